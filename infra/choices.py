"""The deployment options that are set with `-c name=value`, and their validation."""

import json
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing it starts Node.js
    from constructs import Node

_NUMBER = re.compile(r"[1-9][0-9]{0,9}")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,39}")
# The default quota of API Gateway in requests per second, for all APIs of an account in a region.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
_MAX_RATE = 10_000
_MAX_BATCH = 10  # the maximum batch size of an SQS event source without a batching window
_ALLOWED_VALUES = {
    "auth": ("token", "jwt", "open"),
    "machine": ("aarch64", "x86_64"),
    "snapstart": ("on", "off"),
    "protect": ("on", "off"),
}
_RENAMED = {
    "workers": "was renamed. Use -c concurrency=..., the number of parts that are transcribed at"
    " the same time (default: 16).",
}


def _option(default: str, description: str) -> Any:
    """Return a field whose description is published in docs/reference/deploy-options.md."""
    return field(default=default, metadata={"description": description})


@dataclass(frozen=True)
class Choices:
    """The values of the `-c name=value` options. Items of lists are separated by commas."""

    name: str = _option(
        "Steno",
        "the name of the stack. If you deploy several stacks in an account, each stack needs its "
        "own name",
    )
    auth: str = _option(
        "token",
        "how callers authenticate: `token` (one generated bearer token for all callers), `jwt` "
        "(each user has their own jobs; requires `issuer` and `audience`) or `open` (no "
        "authentication; requires `daily_seconds`)",
    )
    issuer: str = _option("", "the issuer URL of the JWTs, for `auth=jwt`")
    audience: str = _option(
        "",
        "the accepted audiences of the JWTs, separated by commas, for `auth=jwt`",
    )
    origins: str = _option(
        "http://localhost:3000",
        "the origins of the web pages that may call the API, separated by commas. `*` allows all "
        "pages",
    )
    model: str = _option("gpt-transcribe", "the model for requests that do not choose one")
    openai_base_url: str = _option(
        "https://api.openai.com/v1",
        "the URL of the speech service: OpenAI, or any server with OpenAI's transcription route",
    )
    models: str = _option(
        "",
        "profiles of models, as a JSON object. See the setting [`MODELS`](settings.md#models)",
    )
    upstreams: str = _option(
        "",
        "several speech services, as a JSON list. See the setting "
        "[`UPSTREAMS`](settings.md#upstreams). Each server requires `secret_arn`",
    )
    fallback_models: str = _option(
        "",
        "a list of models, separated by commas. If the server of the requested model fails, Steno "
        "tries these models. Steno does not try these models if the failed request may have been "
        "billed",
    )
    daily_seconds: str = _option(
        "",
        "the maximum number of seconds of audio that can be billed per day (UTC), for all callers "
        "together",
    )
    daily_seconds_per_caller: str = _option(
        "",
        "the maximum number of seconds of audio that can be billed per day (UTC), for each caller",
    )
    aws_endpoint_url: str = _option("", "the URL of an AWS emulator, for testing the functions")
    machine: str = _option("aarch64", "the architecture of the functions: `aarch64` or `x86_64`")
    concurrency: str = _option(
        "16",
        "the maximum number of parts of long recordings that are transcribed at the same time. The "
        "value can be 2 to 1000. Additional functions transcribe short recordings. Half of the "
        "value is the maximum number of short recordings that are transcribed at the same time. A "
        "quarter of the value is the maximum number of recordings that are cut at the same time",
    )
    batch: str = _option(
        "1",
        "the number of parts that one function transcribes at the same time (1 to 10). With a "
        "higher number, fewer functions are needed. However, if a function crashes, all parts of "
        "this function are transcribed again",
    )
    throttle: str = _option(
        "50",
        "the maximum number of requests per second, for all callers together",
    )
    domain: str = _option(
        "",
        "your own domain for the API, such as `speech.example.com`. Requires `certificate`",
    )
    certificate: str = _option(
        "",
        "the ARN of the domain's certificate in ACM. The certificate must be in the region of the "
        "stack",
    )
    tags: str = _option("", "tags for all resources, such as `team=speech,env=dev`")
    protect: str = _option("off", "`on` protects the stack against deletion")
    snapstart: str = _option(
        "off",
        "with `on`, AWS starts the API function from a snapshot. Cold starts are then faster. AWS "
        "charges for snapshots",
    )
    alarm_email: str = _option("", "the email address to which alarms are sent")
    alarm_seconds: str = _option(
        "36000",
        "the limit of the alarm `SecondsPaid`, in seconds of audio per day. If more seconds are "
        "billed, the alarm starts",
    )

    @classmethod
    def of(cls, node: "Node") -> "Choices":
        """Return the options in the CDK context of `node`.

        Exits with a message if an option is unknown or has an invalid value.
        """
        names = [option.name for option in fields(cls)]
        # Names in the CDK's own context contain `:` or `-`, so this pattern skips them.
        for name in node.get_all_context():
            if name in _RENAMED:
                raise SystemExit(f"-c {name}=... {_RENAMED[name]}")
            if re.fullmatch("[a-z_]+", name) and name not in names:
                raise SystemExit(
                    f"-c {name}=... is not an option. The options are {', '.join(names)}."
                )
        values = {name: node.try_get_context(name) for name in names}
        given = {name: _to_text(value) for name, value in values.items() if value is not None}
        choices = cls(**given)
        choices._validate()
        return choices

    def _validate(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SystemExit(
                f"-c name={self.name} is not valid. Use at most 40 letters, digits and hyphens,"
                " and begin with a letter."
            )
        for name, allowed in _ALLOWED_VALUES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise SystemExit(
                    f"-c {name}={value} is not valid."
                    f" The allowed values are {', '.join(allowed[:-1])} and {allowed[-1]}."
                )
        self._validate_numbers()
        if bool(self.domain) != bool(self.certificate):
            raise SystemExit(
                "-c domain=speech.example.com and -c certificate=arn:aws:acm:..."
                " must be set together."
            )
        if any(not (key and separator) for key, separator, _ in self._tags()):
            raise SystemExit(
                f"-c tags={self.tags} is not valid. Use the format team=speech,env=dev."
            )
        self._validate_origins()
        self._validate_upstreams()
        if self.auth == "jwt" and not (self.issuer and self.audience_list):
            raise SystemExit("-c auth=jwt requires -c issuer=https://... and -c audience=...")
        if self.auth == "open" and not self.daily_seconds:
            raise SystemExit(
                "-c auth=open lets anybody use your OpenAI account. Set a daily cap, such as"
                " -c daily_seconds=3600."
            )

    def _validate_numbers(self) -> None:
        for name in ("daily_seconds", "daily_seconds_per_caller", "alarm_seconds"):
            value = getattr(self, name)
            if value and not _NUMBER.fullmatch(value):
                raise SystemExit(
                    f"-c {name}={value} is not valid. Use a whole number of seconds, such as 3600."
                )
        if not _NUMBER.fullmatch(self.concurrency) or not 2 <= self.parts_at_once <= 1000:
            raise SystemExit(
                f"-c concurrency={self.concurrency} is not valid. Use a number from 2 to 1000."
            )
        if not _NUMBER.fullmatch(self.batch) or self.batch_size > _MAX_BATCH:
            raise SystemExit(
                f"-c batch={self.batch} is not valid. Use 1 to {_MAX_BATCH} parts per invocation."
            )
        if not _NUMBER.fullmatch(self.throttle) or self.rate > _MAX_RATE:
            raise SystemExit(
                f"-c throttle={self.throttle} is not valid."
                f" Use 1 to {_MAX_RATE} requests per second."
            )

    def _validate_origins(self) -> None:
        for origin in self.origin_list:
            if origin.endswith(":*"):
                raise SystemExit(
                    f"-c origins={origin} is not valid. API Gateway needs the port of each origin,"
                    " such as http://localhost:5173."
                )

    def _validate_upstreams(self) -> None:
        _parse_json(self.models, "models", dict)
        for upstream in self.upstream_list:
            if "api_key" in upstream or not upstream.get("secret_arn"):
                raise SystemExit(
                    "-c upstreams=... is not valid. Each upstream requires `secret_arn`, the ARN of"
                    " a secret that contains its API key. Do not put API keys in a template."
                )

    @property
    def upstream_list(self) -> list[dict[str, Any]]:
        upstreams: list[dict[str, Any]] = _parse_json(self.upstreams, "upstreams", list) or []
        return upstreams

    @property
    def parts_at_once(self) -> int:
        return int(self.concurrency)

    @property
    def batch_size(self) -> int:
        return int(self.batch)

    @property
    def rate(self) -> int:
        return int(self.throttle)

    @property
    def tag_list(self) -> list[tuple[str, str]]:
        return [(key, value) for key, _, value in self._tags()]

    def _tags(self) -> list[tuple[str, str, str]]:
        return [tag.partition("=") for tag in _split(self.tags)]

    @property
    def origin_list(self) -> list[str]:
        return [origin.rstrip("/") for origin in _split(self.origins)]

    @property
    def audience_list(self) -> list[str]:
        return _split(self.audience)


def _to_text(value: Any) -> str:
    """Convert a value from `cdk.json`, which can also be a boolean, number, list or object."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _parse_json(text: str, name: str, kind: type) -> Any:
    """Return the value of a JSON option, or None if it is empty.

    Exits with a message if the value is not valid.
    """
    if not text:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SystemExit(f"-c {name}=... is not valid JSON: {error}") from None
    items = value if kind is list else value.values() if isinstance(value, dict) else [None]
    if not isinstance(value, kind) or not all(isinstance(item, dict) for item in items):
        shape = "array of objects" if kind is list else "object whose values are objects"
        raise SystemExit(f"-c {name}=... is not valid. Use a JSON {shape}.")
    return value


def _split(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
