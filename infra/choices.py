"""What the owner chooses of a deployment."""

import re
from dataclasses import dataclass, fields

from constructs import Node

_NUMBER = re.compile(r"[1-9][0-9]{0,9}")
_RENAMED = {
    "workers": "use -c concurrency=..., the number of parts that are transcribed at the same time (default: 16).",
}


@dataclass(frozen=True)
class Choices:
    """What `-c name=value` chooses; lists are separated by commas."""

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
        if self.auth not in ("token", "jwt", "open"):
            raise SystemExit(f"-c auth={self.auth}: there are token, jwt and open.")
        for name in ("daily_seconds", "daily_seconds_per_caller", "alarm_seconds"):
            if getattr(self, name) and not _NUMBER.fullmatch(getattr(self, name)):
                raise SystemExit(f"-c {name}={getattr(self, name)}: give a number of seconds, such as 3600.")
        if not _NUMBER.fullmatch(self.concurrency) or not 2 <= self.parts_at_once <= 1000:
            raise SystemExit(f"-c concurrency={self.concurrency}: Lambda takes 2 to 1000.")
        if self.machine not in ("aarch64", "x86_64"):
            raise SystemExit(f"-c machine={self.machine}: there are aarch64 and x86_64.")
        if self.snapstart not in ("on", "off"):
            raise SystemExit(f"-c snapstart={self.snapstart}: there are on and off.")
        if self.auth == "jwt" and not (self.issuer and self.audience_list):
            raise SystemExit("-c auth=jwt needs -c issuer=https://... and -c audience=...")
        if self.auth == "open" and not self.daily_seconds:
            raise SystemExit("-c auth=open lets anybody spend your money: cap it with -c daily_seconds=3600 or so.")

    @property
    def parts_at_once(self) -> int:
        return int(self.concurrency)

    @property
    def origin_list(self) -> list[str]:
        return [origin.rstrip("/") for origin in _listed(self.origins)]

    @property
    def audience_list(self) -> list[str]:
        return _listed(self.audience)


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
