"""The settings: environment variables, or `.env` in the working directory."""

import os
import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, Url
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from handler.durations import TRANSCRIPT_DAYS
from handler.upstream.models import DEFAULT_MODEL, MODEL_NAME, MODELS, OPENAI_URL, is_openai

Auth = Literal["token", "jwt", "open"]

_OF_JOBS = (
    "BUCKET_NAME",
    "TABLE_NAME",
    "RECORDINGS_QUEUE_URL",
    "PARTS_QUEUE_URL",
    "EXPRESS_QUEUE_URL",
)
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s]+")
_BASE_URL = re.compile(r"https?://[^ /?#\\]+(/[^ ?#]*)?")


class Settings(BaseSettings):
    # An error never shows the value it is about: it may be a key. What is empty is not set.
    model_config = SettingsConfigDict(
        extra="ignore", env_ignore_empty=True, hide_input_in_errors=True, frozen=True
    )

    openai_api_key: SecretStr | None = None
    openai_secret_arn: str | None = None
    openai_base_url: str = OPENAI_URL
    whisper_model: str = DEFAULT_MODEL
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ("http://localhost:3000",)
    auth: Auth = "open"
    access_token: SecretStr | None = None
    token_secret_arn: str | None = None
    # OpenAI takes 25 MiB for the whole request, and the multipart frame counts too.
    max_audio_bytes: int = Field(default=26_000_000, ge=1)
    max_concurrent_calls: int = Field(default=250, ge=1)
    request_deadline_seconds: float = Field(default=600, gt=0)

    bucket_name: str | None = None
    table_name: str | None = None
    recordings_queue_url: str | None = None
    parts_queue_url: str | None = None
    express_queue_url: str | None = None
    max_upload_bytes: int = Field(
        default=2_000_000_000, ge=1, le=5_000_000_000
    )  # S3 takes no larger form
    max_audio_seconds: float = Field(default=12 * 3600, gt=0)
    transcript_days: int = Field(default=TRANSCRIPT_DAYS, ge=1)
    daily_seconds: float | None = Field(default=None, gt=0)
    daily_seconds_per_caller: float | None = Field(default=None, gt=0)

    metrics_namespace: str = Field(
        default="Steno", pattern=r"^[A-Za-z0-9.\-_/#:]{1,255}$"
    )  # of CloudWatch

    # Lambda sets it; where it is set, nothing is open unless it says so and the gateway's 30 s are near.
    aws_lambda_function_name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_place(cls, values: dict[str, object]) -> dict[str, object]:
        on_lambda = values.get("aws_lambda_function_name")
        if on_lambda or values.get("access_token") or values.get("token_secret_arn"):
            values = {"auth": "token", **values}
        return {"request_deadline_seconds": 25, **values} if on_lambda else values

    @field_validator("openai_api_key", "access_token")
    @classmethod
    def _strip(cls, secret: SecretStr | None) -> SecretStr | None:
        """A key pasted with a line break would otherwise be an illegal header on every call."""
        stripped = secret.get_secret_value().strip() if secret else ""
        return SecretStr(stripped) if stripped else None

    @field_validator("openai_base_url")
    @classmethod
    def _real_url(cls, url: str) -> str:
        if not _is_address(url):
            raise ValueError("OPENAI_BASE_URL must be an address like https://api.openai.com/v1.")
        return url

    @field_validator("whisper_model")
    @classmethod
    def _known_model(cls, name: str, info: ValidationInfo) -> str:
        """Another host than OpenAI's may have any model."""
        if name not in MODELS and is_openai(info.data.get("openai_base_url", OPENAI_URL)):
            raise ValueError(f"WHISPER_MODEL must be one of {', '.join(MODELS)}.")
        if not MODEL_NAME.fullmatch(name):
            raise ValueError(
                "WHISPER_MODEL must be a model's name: printable ASCII without spaces."
            )
        return name

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split_origins(cls, origins: str | tuple[str, ...]) -> tuple[str, ...]:
        listed = origins.split(",") if isinstance(origins, str) else origins
        return tuple(origin.strip().rstrip("/") for origin in listed if origin.strip())

    @field_validator("allowed_origins")
    @classmethod
    def _real_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"ALLOWED_ORIGINS takes origins like https://app.example.com, not {origin!r}."
                )
        return origins

    @model_validator(mode="after")
    def _need_secrets(self) -> Self:
        if not (self.openai_api_key or self.openai_secret_arn):
            raise ValueError(
                "No OpenAI key: set OPENAI_API_KEY to the key itself,"
                " or OPENAI_SECRET_ARN to the Secrets Manager secret that holds it."
            )
        of_jobs = {name: bool(getattr(self, name.lower())) for name in _OF_JOBS}
        if any(of_jobs.values()) and not all(of_jobs.values()):
            missing = " and ".join(name for name, given in of_jobs.items() if not given)
            raise ValueError(
                f"Uploads need all of {', '.join(_OF_JOBS)}. Set {missing} too, or none of them."
            )
        if (self.daily_seconds or self.daily_seconds_per_caller) and not self.table_name:
            raise ValueError(
                "DAILY_SECONDS and DAILY_SECONDS_PER_CALLER are counted in a table: set BUCKET_NAME and TABLE_NAME."
            )
        if self.auth == "jwt" and not self.aws_lambda_function_name:
            raise ValueError(
                "AUTH=jwt needs API Gateway to check the tokens; here, use AUTH=token or AUTH=open."
            )
        if self.auth == "token" and not (self.access_token or self.token_secret_arn):
            raise ValueError(
                "AUTH=token needs a token: set ACCESS_TOKEN to the token itself,"
                " or TOKEN_SECRET_ARN to the Secrets Manager secret that holds it."
            )
        return self


def read_settings() -> Settings:
    """Return this process's settings, or end it with one sentence for each that is wrong. Lambda has no `.env`."""
    try:
        file = None if os.environ.get("AWS_LAMBDA_FUNCTION_NAME") else ".env"
        return Settings(_env_file=file)  # type: ignore[call-arg] # BaseSettings takes it, which mypy cannot see
    except ValidationError as error:
        raise SystemExit("\n".join(map(_sentence, error.errors()))) from None


def _is_address(url: str) -> bool:
    """Whether a request can be sent to it: `http` or `https`, a host, and no query or fragment."""
    if not (url.isascii() and url.isprintable() and _BASE_URL.fullmatch(url)):
        return False
    try:
        host, written = Url(url).host or "", urlsplit(url).hostname
    except ValueError:  # a wrong host or port
        return False
    # `Url` rewrites some hosts, such as 1.2.3.04, that the HTTP client refuses.
    return host == written or host.startswith("[")


def _sentence(error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        return f"Steno cannot start. {error['msg'].removeprefix('Value error, ')}"
    return f"Steno cannot start. {'.'.join(map(str, error['loc'])).upper()}: {error['msg']}."
