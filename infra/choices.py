"""What the owner chooses of a deployment."""

import re
from dataclasses import dataclass, fields

from constructs import Node

_NUMBER = re.compile(r"[1-9][0-9]{0,9}")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,39}")
# Of an account, in all of a region's APIs together.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
_MOST_RATE = 10_000
_MOST_BATCH = 10  # that a queue gives without a wait for more messages
_KNOWN = {
    "auth": ("token", "jwt", "open"),
    "machine": ("aarch64", "x86_64"),
    "snapstart": ("on", "off"),
    "protect": ("on", "off"),
}
_RENAMED = {
    "workers": "use -c concurrency=..., the number of parts that are transcribed at the same time (default: 16).",
}


@dataclass(frozen=True)
class Choices:
    """What `-c name=value` chooses; lists are separated by commas."""

    name: str = "Steno"  # of the stack: another one is another environment in the same account
    auth: str = "token"  # token, jwt or open
    issuer: str = ""  # of the JWTs
    audience: str = ""
    origins: str = "http://localhost:3000"  # the pages that may call
    model: str = "gpt-transcribe"
    openai_base_url: str = "https://api.openai.com/v1"  # or another server that speaks its contract
    daily_seconds: str = ""  # of sound that may be paid for, in a day
    daily_seconds_per_caller: str = ""
    aws_endpoint_url: str = ""  # of a local AWS, where the functions are only tried
    machine: str = "aarch64"  # or x86_64
    concurrency: str = "16"  # parts that are transcribed at the same time
    batch: str = "1"  # parts that one function transcribes at the same time
    throttle: str = "50"  # requests in a second, of all callers together
    domain: str = ""  # of the API, such as speech.example.com
    certificate: str = ""  # of the domain: the ARN of one in ACM, in the stack's region
    tags: str = ""  # of all resources, such as team=speech,env=dev
    protect: str = "off"  # on: the stack cannot be deleted
    snapstart: str = "off"  # on: cold starts begin from a snapshot, which is kept, and paid for
    alarm_email: str = ""
    alarm_seconds: str = "36000"  # of sound in a day, beyond which somebody should look

    @classmethod
    def of(cls, node: Node) -> "Choices":
        names = [field.name for field in fields(cls)]
        # CDK's own names have signs in them that these have not.
        for name in node.get_all_context():
            if name in _RENAMED:
                raise SystemExit(f"-c {name}=...: {_RENAMED[name]}")
            if re.fullmatch("[a-z_]+", name) and name not in names:
                raise SystemExit(f"-c {name}=...: there are {', '.join(names)}.")
        given = {name: node.try_get_context(name) for name in names}
        choices = cls(**{name: str(value) for name, value in given.items() if value is not None})
        choices._check()
        return choices

    def _check(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SystemExit(
                f"-c name={self.name}: give letters, digits and hyphens, 40 at most, a letter first."
            )
        for name, known in _KNOWN.items():
            if getattr(self, name) not in known:
                raise SystemExit(
                    f"-c {name}={getattr(self, name)}: there are {', '.join(known[:-1])} and {known[-1]}."
                )
        for name in ("daily_seconds", "daily_seconds_per_caller", "alarm_seconds"):
            if getattr(self, name) and not _NUMBER.fullmatch(getattr(self, name)):
                raise SystemExit(
                    f"-c {name}={getattr(self, name)}: give a number of seconds, such as 3600."
                )
        if not _NUMBER.fullmatch(self.concurrency) or not 2 <= self.parts_at_once <= 1000:
            raise SystemExit(f"-c concurrency={self.concurrency}: Lambda takes 2 to 1000.")
        if not _NUMBER.fullmatch(self.batch) or self.batch_size > _MOST_BATCH:
            raise SystemExit(
                f"-c batch={self.batch}: give the parts for each function, 1 to {_MOST_BATCH}."
            )
        if not _NUMBER.fullmatch(self.throttle) or self.rate > _MOST_RATE:
            raise SystemExit(
                f"-c throttle={self.throttle}: give requests in a second, 1 to {_MOST_RATE}."
            )
        if bool(self.domain) != bool(self.certificate):
            raise SystemExit(
                "-c domain=speech.example.com and -c certificate=arn:aws:acm:... need each other."
            )
        if any(not (key and separator) for key, separator, _ in self._tags()):
            raise SystemExit(f"-c tags={self.tags}: give them as team=speech,env=dev.")
        if self.auth == "jwt" and not (self.issuer and self.audience_list):
            raise SystemExit("-c auth=jwt needs -c issuer=https://... and -c audience=...")
        if self.auth == "open" and not self.daily_seconds:
            raise SystemExit(
                "-c auth=open lets anybody spend your money: cap it with -c daily_seconds=3600 or so."
            )

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
        return [tag.partition("=") for tag in _listed(self.tags)]

    @property
    def origin_list(self) -> list[str]:
        return [origin.rstrip("/") for origin in _listed(self.origins)]

    @property
    def audience_list(self) -> list[str]:
        return _listed(self.audience)


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
