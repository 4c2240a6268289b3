"""The deployment options that are set with `-c name=value`, and their validation."""

import json
import re
from dataclasses import dataclass, fields
from typing import Any

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


@dataclass(frozen=True)
class Choices:
    """The values of the `-c name=value` options. Items of lists are separated by commas."""

    name: str = "Steno"  # the name of the stack; each environment in an account needs its own
    auth: str = "token"  # how callers authenticate: token, jwt or open
    issuer: str = ""  # the issuer URL of JWTs, for auth=jwt
    audience: str = ""  # the accepted audiences of JWTs, for auth=jwt
    origins: str = "http://localhost:3000"  # the origins of web pages that may call the API (CORS)
    model: str = "gpt-transcribe"  # the transcription model of the upstream
    openai_base_url: str = "https://api.openai.com/v1"  # the URL of the upstream
    models: str = ""  # model profiles, as JSON for the setting MODELS
    upstreams: str = ""  # several upstreams, as JSON for the setting UPSTREAMS
    fallback_models: str = ""  # models to try if the selected model's upstream fails
    daily_seconds: str = ""  # maximum seconds of audio to pay for per day; empty: no cap
    daily_seconds_per_caller: str = ""  # maximum seconds of audio per caller and day; empty: no cap
    aws_endpoint_url: str = ""  # the URL of an AWS emulator, for testing the functions
    machine: str = "aarch64"  # the architecture of the functions: aarch64 or x86_64
    concurrency: str = "16"  # the number of parts that are transcribed at the same time
    batch: str = "1"  # how many of these parts share one Lambda invocation
    throttle: str = "50"  # maximum requests per second, for all callers together
    domain: str = ""  # the custom domain of the API, such as speech.example.com
    certificate: str = ""  # the ARN of the domain's ACM certificate, in the stack's region
    tags: str = ""  # tags for all resources, such as team=speech,env=dev
    protect: str = "off"  # on: the stack cannot be deleted
    snapstart: str = "off"  # on: use SnapStart for the API function; AWS charges for it
    alarm_email: str = ""  # the email address for alarms
    alarm_seconds: str = "36000"  # raise an alarm if more seconds of audio are paid for in a day

    @classmethod
    def of(cls, node: Node) -> "Choices":
        """Return the options in the CDK context of `node`.

        Exits with a message if an option is unknown or has an invalid value.
        """
        names = [field.name for field in fields(cls)]
        # Names in the CDK's own context contain `:` or `-`, so this pattern skips them.
        for name in node.get_all_context():
            if name in _RENAMED:
                raise SystemExit(f"-c {name}=... {_RENAMED[name]}")
            if re.fullmatch("[a-z_]+", name) and name not in names:
                raise SystemExit(
                    f"-c {name}=... is not an option. The options are {', '.join(names)}."
                )
        values = {name: node.try_get_context(name) for name in names}
        choices = cls(**{name: str(value) for name, value in values.items() if value is not None})
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
        if bool(self.domain) != bool(self.certificate):
            raise SystemExit(
                "-c domain=speech.example.com and -c certificate=arn:aws:acm:..."
                " must be set together."
            )
        if any(not (key and separator) for key, separator, _ in self._tags()):
            raise SystemExit(
                f"-c tags={self.tags} is not valid. Use the format team=speech,env=dev."
            )
        self._validate_upstreams()
        if self.auth == "jwt" and not (self.issuer and self.audience_list):
            raise SystemExit("-c auth=jwt requires -c issuer=https://... and -c audience=...")
        if self.auth == "open" and not self.daily_seconds:
            raise SystemExit(
                "-c auth=open lets anybody use your OpenAI account. Set a daily cap, such as"
                " -c daily_seconds=3600."
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
