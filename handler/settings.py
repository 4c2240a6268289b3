"""Reads the settings from environment variables, or from `.env` in the working directory."""

import json
import os
import re
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, Url
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from handler.durations import TRANSCRIPT_DAYS
from handler.upstream.models import (
    DEFAULT_MODEL,
    MODEL_NAME,
    OPENAI_URL,
    Models,
    Upstream,
    server_at,
)
from handler.upstream.profiles import Model, parse_profiles, servers

Auth = Literal["token", "jwt", "open"]

_JOB_SETTINGS = (
    "BUCKET_NAME",
    "TABLE_NAME",
    "RECORDINGS_QUEUE_URL",
    "PARTS_QUEUE_URL",
    "EXPRESS_QUEUE_URL",
)
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s]+")
_BASE_URL = re.compile(r"https?://[^ /?#\\]+(/[^ ?#]*)?")


class UpstreamSettings(BaseModel):
    """One entry of the `UPSTREAMS` setting. If `models` is empty, all model names are accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    base_url: str
    api_key: SecretStr | None = None
    secret_arn: str | None = None
    models: tuple[str, ...] = ()

    @field_validator("base_url")
    @classmethod
    def _validate_base_url(cls, url: str) -> str:
        if not _is_valid_base_url(url):
            raise ValueError("base_url must be a URL such as https://api.groq.com/openai/v1.")
        return url

    @model_validator(mode="after")
    def _need_key(self) -> Self:
        if not (self.api_key or self.secret_arn):
            raise ValueError(f"the upstream {self.name} requires `api_key` or `secret_arn`.")
        return self


class Settings(BaseSettings):
    """The settings of a process. Each is read from the environment variable of the same name."""

    # Validation errors must not show values, because a value may be a key. An empty variable is
    # treated as unset.
    model_config = SettingsConfigDict(
        extra="ignore", env_ignore_empty=True, hide_input_in_errors=True, frozen=True
    )

    # `python -m infra.docs` writes docs/reference/settings.md from the descriptions.
    openai_api_key: SecretStr | None = Field(
        default=None,
        description="The API key of the speech service. One of the settings"
        " `OPENAI_API_KEY`, `OPENAI_SECRET_ARN` and `UPSTREAMS` is required. If none of them is"
        " set, `make run` uses the offline engine.",
    )
    openai_secret_arn: str | None = Field(
        default=None, description="The ARN of the Secrets Manager secret that contains the API key."
    )
    openai_base_url: str = Field(
        default=OPENAI_URL,
        description="The URL of the speech service: OpenAI, or any server with OpenAI's"
        " transcription route. The URL usually ends with `/v1`.",
    )
    whisper_model: str = Field(
        default=DEFAULT_MODEL,
        description="The model for requests that do not choose one. This setting is required if the"
        " speech service does not offer the default model.",
    )
    models: Annotated[dict[str, Model], NoDecode] = Field(
        default_factory=dict,
        description="A JSON object with profiles of models. Add a profile for a model if the model"
        " has no built-in profile, or if its built-in profile is wrong."
        " See [Use a server other than OpenAI](../how-to/other-servers.md).",
    )
    upstreams: Annotated[tuple[UpstreamSettings, ...], NoDecode] = Field(
        default=(),
        description="A JSON list of several speech services, in the order of preference."
        " This setting replaces `OPENAI_BASE_URL` and `OPENAI_API_KEY`."
        " See [Use a server other than OpenAI](../how-to/other-servers.md).",
    )
    fallback_models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="A list of models, separated by commas. If the server of the requested"
        " model fails, Steno tries these models. Steno does not try these models if the failed"
        " request may have been billed.",
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("http://localhost:*", "http://127.0.0.1:*"),
        description="The origins of the web pages that may call the API, separated by commas."
        " `http://localhost:*` allows any port, and `*` alone allows all pages.",
    )
    auth: Auth = Field(
        default="open",
        description="How callers authenticate: `token` (a bearer token), `jwt` (a JWT that API"
        " Gateway verifies; only on AWS) or `open` (no authentication). On AWS, or if a token is"
        " set, the default is `token`.",
    )
    access_token: SecretStr | None = Field(
        default=None,
        description="The bearer token for `AUTH=token`. Alternatively, set `TOKEN_SECRET_ARN`.",
    )
    token_secret_arn: str | None = Field(
        default=None,
        description="The ARN of the Secrets Manager secret that contains the bearer token.",
    )
    # OpenAI accepts requests of up to 25 MiB, including the multipart encoding.
    max_audio_bytes: int = Field(
        default=26_000_000,
        ge=1,
        description="The maximum size of a recording in one request, in bytes. On AWS,"
        " the value is 4,500,000, because a request must fit into a Lambda event.",
    )
    max_concurrent_calls: int = Field(
        default=250,
        ge=1,
        description="The maximum number of requests that Steno sends to the speech service at the"
        " same time. Further requests wait. With the offline engine, `make run` sets the value 4.",
    )
    request_deadline_seconds: float = Field(
        default=600,
        gt=0,
        description="The time limit of one request, in seconds. The time starts when the request"
        " arrives. On AWS, the default is 25, because API Gateway ends requests after at"
        " most 30 seconds.",
    )
    bucket_name: str | None = Field(
        default=None,
        description="The S3 bucket for recordings and transcripts. A server without a bucket does"
        " not support uploads and jobs. Uploads require `BUCKET_NAME` and the next four settings on"
        " this page. The stack and `make run` set these five settings.",
    )
    table_name: str | None = Field(
        default=None, description="The DynamoDB table for jobs and budgets."
    )
    recordings_queue_url: str | None = Field(
        default=None, description="The URL of the SQS queue of uploaded recordings."
    )
    parts_queue_url: str | None = Field(
        default=None, description="The URL of the SQS queue of parts."
    )
    express_queue_url: str | None = Field(
        default=None, description="The URL of the SQS queue of short recordings."
    )
    # S3 accepts form uploads of at most 5 GB.
    max_upload_bytes: int = Field(
        default=2_000_000_000,
        ge=1,
        le=5_000_000_000,
        description="The maximum size of an uploaded recording, in bytes. The highest possible"
        " value is 5 GB.",
    )
    max_audio_seconds: float = Field(
        default=12 * 3600,
        gt=0,
        description="The maximum duration of the recording of a job, in seconds.",
    )
    transcript_days: int = Field(
        default=TRANSCRIPT_DAYS,
        ge=1,
        description="The number of days for which the transcripts of jobs are kept.",
    )
    daily_seconds: float | None = Field(
        default=None,
        gt=0,
        description="The maximum number of seconds of audio that can be billed per day (UTC), for"
        " all callers together. See [Limit the costs](../how-to/budgets.md).",
    )
    daily_seconds_per_caller: float | None = Field(
        default=None,
        gt=0,
        description="The maximum number of seconds of audio that can be billed per day (UTC), for"
        " each caller. See [Limit the costs](../how-to/budgets.md).",
    )
    metrics_namespace: str = Field(
        default="Steno",
        pattern=r"^[A-Za-z0-9.\-_/#:]{1,255}$",
        description="The CloudWatch namespace of the metrics. On AWS, the namespace is the name"
        " of the stack.",
    )

    # Set by Lambda. On Lambda, `auth` and `request_deadline_seconds` have other defaults.
    aws_lambda_function_name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _set_dynamic_defaults(cls, values: dict[str, object]) -> dict[str, object]:
        on_lambda = values.get("aws_lambda_function_name")
        if on_lambda or values.get("access_token") or values.get("token_secret_arn"):
            values = {"auth": "token", **values}
        if on_lambda:  # API Gateway ends requests after 30 s
            values = {"request_deadline_seconds": 25, **values}
        return values

    @field_validator("openai_api_key", "access_token")
    @classmethod
    def _strip(cls, secret: SecretStr | None) -> SecretStr | None:
        """Strip whitespace, because a line break after a key would make the HTTP header invalid."""
        stripped = secret.get_secret_value().strip() if secret else ""
        return SecretStr(stripped) if stripped else None

    @field_validator("openai_base_url")
    @classmethod
    def _validate_base_url(cls, url: str) -> str:
        if not _is_valid_base_url(url):
            raise ValueError(
                "OPENAI_BASE_URL must be a URL such as https://api.openai.com/v1,"
                " without a query or a fragment."
            )
        return url

    @field_validator("models", mode="before")
    @classmethod
    def _parse_models(cls, value: object) -> object:
        """Parse model profiles from JSON, such as `{"my-model": {"like": "whisper-1"}}`."""
        try:
            given: Any = json.loads(value) if isinstance(value, str) else value
            built_in: dict[str, Model] = {}
            for server in servers().values():
                built_in |= server.models
            profiles = parse_profiles(given, built_in)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"MODELS is not a JSON object of model profiles: {error}") from None
        return {name: vars(model) for name, model in profiles.items()}

    @field_validator("upstreams", mode="before")
    @classmethod
    def _parse_upstreams(cls, value: object) -> object:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError as error:
            raise ValueError(f"UPSTREAMS is not a JSON list of upstreams: {error}") from None

    @field_validator("fallback_models", mode="before")
    @classmethod
    def _split_fallbacks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(name.strip() for name in value.split(",") if name.strip())

    @field_validator("whisper_model")
    @classmethod
    def _validate_model_name(cls, name: str) -> str:
        if not MODEL_NAME.fullmatch(name):
            raise ValueError(
                "WHISPER_MODEL must be a model name of at most 200 printable ASCII characters,"
                " without spaces."
            )
        return name

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split_origins(cls, origins: str | tuple[str, ...]) -> tuple[str, ...]:
        items = origins.split(",") if isinstance(origins, str) else origins
        return tuple(origin.strip().rstrip("/") for origin in items if origin.strip())

    @field_validator("allowed_origins")
    @classmethod
    def _validate_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"ALLOWED_ORIGINS contains {origin!r}, which is not an origin."
                    " Use origins such as https://app.example.com."
                )
        return origins

    @model_validator(mode="after")
    def _validate_models(self) -> Self:
        """Check that each configured model is accepted by an upstream."""
        models = self.build_models(lambda: date.min)
        names = ", ".join(
            model.full_name for upstream in models.upstreams for model in upstream.listed
        )
        upstream_names = [upstream.name for upstream in models.upstreams]
        if len(set(upstream_names)) != len(upstream_names):
            raise ValueError(
                "UPSTREAMS contains a name twice. Use a unique name for each upstream."
            )
        if models.configured() is None:
            raise ValueError(f"WHISPER_MODEL must be one of {names}.")
        model = models.get()
        server = server_at(model.base_url)
        if self.whisper_model == DEFAULT_MODEL and server and not model.is_documented:
            raise ValueError(
                f"WHISPER_MODEL is required, because {model.base_url} does not offer the default"
                f" model {DEFAULT_MODEL}. Set it to a model of this server, for example one of"
                f" {names}."
            )
        for name in self.fallback_models:
            if models.find(name) is None:
                raise ValueError(f"FALLBACK_MODELS contains {name}, which is not one of {names}.")
        return self

    def build_models(self, today: Callable[[], date]) -> Models:
        """Return the models of the configured upstreams. `today` returns the current date."""
        upstreams = tuple(
            Upstream(entry.base_url, self.models, entry.name, entry.models)
            for entry in self.upstreams
        )
        upstreams = upstreams or (Upstream(self.openai_base_url, self.models),)
        return Models(self.whisper_model, upstreams, today, self.fallback_models)

    @model_validator(mode="after")
    def _validate_combinations(self) -> Self:
        if not (self.openai_api_key or self.openai_secret_arn or self.upstreams):
            raise ValueError(
                "No OpenAI key. Set OPENAI_API_KEY to the key,"
                " or OPENAI_SECRET_ARN to the ARN of the Secrets Manager secret that contains it."
            )
        job_settings = ", ".join(_JOB_SETTINGS)
        missing = [name for name in _JOB_SETTINGS if not getattr(self, name.lower())]
        if 0 < len(missing) < len(_JOB_SETTINGS):
            raise ValueError(
                f"Uploads require these settings: {job_settings}."
                f" Also set {' and '.join(missing)}, or set none of these settings."
            )
        if (self.daily_seconds or self.daily_seconds_per_caller) and not self.table_name:
            raise ValueError(
                "DAILY_SECONDS and DAILY_SECONDS_PER_CALLER require a DynamoDB table."
                f" Set {job_settings}."
            )
        if self.auth == "jwt" and not self.aws_lambda_function_name:
            raise ValueError(
                "AUTH=jwt works only on Lambda, behind API Gateway, which checks the tokens."
                " Use AUTH=token or AUTH=open."
            )
        if self.auth == "token" and not (self.access_token or self.token_secret_arn):
            raise ValueError(
                "AUTH=token requires a token. Set ACCESS_TOKEN to the token,"
                " or TOKEN_SECRET_ARN to the ARN of the Secrets Manager secret that contains it."
            )
        return self


def read_settings() -> Settings:
    """Return the settings of this process. On Lambda, `.env` is not read.

    Raises SystemExit with one line for each invalid setting.
    """
    try:
        env_file = None if os.environ.get("AWS_LAMBDA_FUNCTION_NAME") else ".env"
        # mypy does not recognize the `_env_file` parameter of BaseSettings.
        return Settings(_env_file=env_file)  # type: ignore[call-arg]
    except ValidationError as error:
        raise SystemExit("\n".join(map(_format_error, error.errors()))) from None


def _is_valid_base_url(url: str) -> bool:
    """Return whether this is an HTTP or HTTPS URL with a host, but no query or fragment."""
    if not (url.isascii() and url.isprintable() and _BASE_URL.fullmatch(url)):
        return False
    try:
        normalized_host, host = Url(url).host or "", urlsplit(url).hostname
    except ValueError:  # an invalid host or port
        return False
    # The HTTP client rejects some hosts that `Url` normalizes, such as 1.2.3.04.
    return normalized_host == host or normalized_host.startswith("[")


def _format_error(error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        return f"Steno cannot start. {error['msg'].removeprefix('Value error, ')}"
    name = ".".join(map(str, error["loc"])).upper()
    return f"Steno cannot start. {name}: {error['msg']}."
