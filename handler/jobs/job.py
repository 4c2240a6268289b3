"""A job, and how it is written down."""

import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from handler.aws.items import known_fields, to_decimal


@dataclass(frozen=True)
class Caller:
    """`owner` is whose the jobs are, empty where nobody says who is calling; `account` is whose budget is spent."""

    owner: str = ""
    account: str = ""


ANONYMOUS = Caller()
SHARED_ACCOUNT = "token"  # the account of all callers if they share one token


@dataclass(frozen=True)
class Job:
    """`status` is awaiting_upload, queued, processing, completed or failed; times are seconds since 1970.

    `retries` counts how often the job was retried, `attempts` how often its recording was begun to
    be cut without an end. `generation` names one set of parts: `saved` has the numbers of those
    that are saved, `expected` is how many there will probably be. `total` is how many there are,
    known once all are cut; `pieces` is by how many halved parts have increased that number.
    `reserved_seconds` of the budget of the day `reserved_on` are reserved for the generation, of
    which `spent_seconds` were spent at its end. `paid_earlier` were paid for earlier generations.
    `request` is the id of the request that created or retried the job.
    `progressed_at` is when the job last came closer to its end. `done` and `seconds_paid` are
    written when the job ends; until then, they follow from its parts. `entries` are the keys
    under which the ledger has answers of the job.
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
    retries: int = 0
    attempts: int = 0
    generation: str = ""
    expected: int | None = None
    saved: frozenset[int] = frozenset()
    pieces: int = 0
    reserved_seconds: float = 0.0
    reserved_on: str = ""
    spent_seconds: float = 0.0
    paid_earlier: float = 0.0
    progressed_at: float = 0.0
    entries: tuple[str, ...] = ()
    request: str = ""

    @property
    def finished(self) -> bool:
        return self.status in ("completed", "failed")

    @property
    def all_parts_saved(self) -> bool:
        """Whether all parts are saved."""
        return self.total is not None and len(self.saved) == self.total + self.pieces

    @property
    def expected_total(self) -> int | None:
        """Return how many parts there will probably be; None if that is not known yet."""
        total = self.expected if self.total is None else self.total
        return None if total is None else total + self.pieces


_UPLOADS, _REQUESTS = "uploads", "requests"
# Release 0.1 begins no job without these. It may run beside this one while a stack is updated, or after a rollback.
_OF_RELEASE_0_1 = {"lease": "", "lease_until": 0, "retry": False}


def recording_key(identity: str, extension: str) -> str:
    """The extension is for whoever looks into the bucket; nothing depends on it."""
    return f"{_UPLOADS}/{identity}.{extension}"


def request_key(identity: str, extension: str) -> str:
    """The key of a recording that came in a request. The bucket sends no message about it."""
    return f"{_REQUESTS}/{identity}.{extension}"


def is_from_request(key: str) -> bool:
    return key.startswith(_REQUESTS)


def job_id_of(key: str) -> str:
    """The job that a recording belongs to; empty for an object that cannot be a job's."""
    match = re.fullmatch(rf"(?:{_UPLOADS}|{_REQUESTS})/(.*)\.[a-z0-9]{{1,5}}", key)
    return match[1] if match and is_job_id(match[1]) else ""


def is_job_id(text: str) -> bool:
    """Whether a job can be called that; no table takes a key of any length."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None


def failed(job: Job, code: str, detail: str) -> Job:
    return replace(job, status="failed", error={"code": code, "detail": detail})


def to_item(job: Job) -> dict[str, Any]:
    stored = {**asdict(job), "options": json.dumps(job.options, ensure_ascii=False)}
    if not job.saved:
        del stored["saved"]  # no table has empty sets
    numbers = {
        name: to_decimal(value) if isinstance(value, float) else value
        for name, value in stored.items()
    }
    return _OF_RELEASE_0_1 | numbers


def from_item(item: dict[str, Any]) -> Job:
    kept = known_fields(Job, item)
    kept |= {"options": json.loads(kept["options"]), "entries": tuple(kept["entries"])}
    seconds = ("seconds_paid", "paid_earlier", "reserved_seconds", "spent_seconds", "duration")
    for name in ("created_at", "progressed_at", *seconds):
        if kept.get(name) is not None:
            kept[name] = float(kept[name])
    for name in ("done", "total", "expected", "pieces", "attempts", "retries"):
        if kept.get(name) is not None:
            kept[name] = int(kept[name])
    if error := kept.get("error"):
        kept["error"] = {"code": error["code"], "detail": error["detail"]}
    if kept.get("saved"):
        kept["saved"] = frozenset(map(int, kept["saved"]))
    if item.get("retry") and kept["status"] == "failed":  # release 0.1 has begun it again
        kept |= {"status": "queued", "error": None}
    return Job(**kept)
