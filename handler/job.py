"""A job, and what is heard of it part by part; and how both are written down."""

import json
import re
import zlib
from dataclasses import asdict, dataclass, replace
from typing import Any

from handler.numbers import number
from handler.stored import known_fields
from handler.transcript import Segment, stored_segments


@dataclass(frozen=True)
class Caller:
    """`owner` is whose the jobs are, empty where nobody says who is calling; `account` is whose budget is spent."""

    owner: str = ""
    account: str = ""


NOBODY = Caller()
SHARED_ACCOUNT = "token"  # the account of all callers if they share one token


def has_shared_account(job: "Job") -> bool:
    """Whether the account of the job is that of all callers. A named caller never has it."""
    return not job.owner and job.account == SHARED_ACCOUNT


@dataclass(frozen=True)
class Job:
    """`status` is awaiting_upload, queued, processing, completed or failed; times are seconds since 1970.

    `done` and `seconds_paid` are written when the job ends; until then, its parts tell. `attempts` counts the workers
    that have taken the job since a part was last heard; `message` is the one that the last of them
    was given, empty if none has taken the job since it was created or retried. `hand_overs` counts
    the messages that workers have sent about the job since then. `idle_since` is when a worker last
    released the job, or when it was retried.
    `retry` says that a failed job is to be begun again; `entries` are what the ledger keeps of it.
    """

    id: str
    key: str
    owner: str
    account: str
    filename: str
    options: dict[str, Any]
    created_at: float
    status: str = "awaiting_upload"
    done: int = 0
    total: int | None = None
    duration: float | None = None
    model: str | None = None
    seconds_paid: float = 0.0
    no_speech: bool | None = None
    error: dict[str, str] | None = None
    lease: str = ""
    lease_until: float = 0.0
    message: str = ""
    idle_since: float = 0.0
    attempts: int = 0
    hand_overs: int = 0
    retry: bool = False
    entries: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        return self.status in ("completed", "failed")


@dataclass(frozen=True)
class Heard:
    """What the speech service heard in one part of so many samples, on the recording's own timeline; `start` is its
    first sample.

    `seconds_paid` were paid for it, or may have been; `entries` are what the ledger keeps of it.
    """

    number: int
    start: int
    text: str
    segments: tuple[Segment, ...] = ()
    language: str | None = None
    seconds_paid: float = 0.0
    entries: tuple[str, ...] = ()
    samples: int = 0


def recording_key(identity: str, extension: str) -> str:
    """The extension is for whoever looks into the bucket; nothing depends on it."""
    return f"uploads/{identity}.{extension}"


def identity_of(key: str) -> str:
    """The job that a recording belongs to; empty for an object that cannot be a job's."""
    match = re.fullmatch(r"uploads/(.*)\.[a-z0-9]{1,5}", key)
    return match[1] if match and is_identity(match[1]) else ""


def is_identity(text: str) -> bool:
    """Whether a job can be called that; no table takes a key of any length."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None


def failed(job: Job, code: str, detail: str) -> Job:
    return replace(job, status="failed", error={"code": code, "detail": detail})


def to_item(job: Job) -> dict[str, Any]:
    stored = {**asdict(job), "options": json.dumps(job.options, ensure_ascii=False)}
    return {name: number(value) if isinstance(value, float) else value for name, value in stored.items()}


def from_item(item: dict[str, Any]) -> Job:
    kept = known_fields(Job, item)
    kept |= {"options": json.loads(kept["options"]), "entries": tuple(kept["entries"])}
    for name in ("created_at", "lease_until", "idle_since", "seconds_paid", "duration"):
        if kept.get(name) is not None:
            kept[name] = float(kept[name])
    for name in ("done", "total", "attempts", "hand_overs"):
        if kept.get(name) is not None:
            kept[name] = int(kept[name])
    if error := kept.get("error"):
        kept["error"] = {"code": error["code"], "detail": error["detail"]}
    return Job(**kept)


def packed(heard: Heard) -> bytes:
    return zlib.compress(json.dumps(asdict(heard)).encode())


def heard_from(stored: bytes) -> Heard:
    told = json.loads(zlib.decompress(stored))
    lists = {"segments": stored_segments(told["segments"]), "entries": tuple(told["entries"])}
    return Heard(**{**known_fields(Heard, told), **lists})
