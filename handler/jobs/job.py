"""Defines jobs, and converts them to and from DynamoDB items."""

import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from handler.aws.items import known_fields, to_decimal


@dataclass(frozen=True)
class Caller:
    """The sender of a request.

    `owner` is the subject of the caller's JWT. It is empty if the server does not use JWTs. A
    caller can access only jobs with the same owner. `account` identifies the caller's daily budget.
    """

    owner: str = ""
    account: str = ""


ANONYMOUS = Caller()
SHARED_ACCOUNT = "token"  # the account of all callers that share the access token


@dataclass(frozen=True)
class Job:
    """A stored transcription job. Points in time are in seconds since 1970.

    - `status`: awaiting_upload, queued, processing, completed or failed.
    - `key`: the S3 key of the recording.
    - `request`: the id of the last HTTP request that created or retried the job.
    - `retries`: how many times the job was retried.
    - `attempts`: how many times a worker started to cut the recording. It is reset to 0 when the
      whole recording is cut, and when the job is retried.
    - `generation`: the id of the current set of parts. Each retry creates a new set.
    - `expected`: the estimated number of parts.
    - `total`: the number of parts; None until the whole recording is cut.
    - `pieces`: the total number of pieces of all split parts. `total` does not include them.
    - `saved`: the numbers of the parts and pieces that are saved.
    - `done`: the number of saved parts, stored when the job ends.
    - `reserved_seconds`: the seconds of the daily budget that are reserved for the generation.
    - `reserved_on`: the day (UTC) of that budget.
    - `spent_seconds`: the seconds that were billed for the generation, stored when the job ends.
    - `paid_earlier`: the seconds that were billed for earlier generations.
    - `seconds_paid`: the seconds that were billed for all generations, stored when the job ends.
    - `progressed_at`: when the job last made progress.
    - `entries`: the ledger keys of the job's paid results.
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
        """Return whether the recording is completely cut, and all parts and pieces are saved."""
        return self.total is not None and len(self.saved) == self.total + self.pieces

    @property
    def expected_total(self) -> int | None:
        """Return the number of parts and pieces. It is an estimate until the recording is cut.

        Return None if there is no estimate yet.
        """
        total = self.expected if self.total is None else self.total
        return None if total is None else total + self.pieces


_UPLOADS, _REQUESTS = "uploads", "requests"
# Release 0.1 starts a job only if its item has these fields. While a stack is updated, both
# releases run at the same time. After a rollback, release 0.1 runs again.
_FIELDS_FOR_RELEASE_0_1 = {"lease": "", "lease_until": 0, "retry": False}


def recording_key(job_id: str, extension: str) -> str:
    """Return the S3 key of a recording that is uploaded with a presigned form.

    The extension is only for people who browse the bucket. Steno does not use it.
    """
    return f"{_UPLOADS}/{job_id}.{extension}"


def request_key(job_id: str, extension: str) -> str:
    """Return the S3 key of a recording that was sent in the body of a request.

    S3 sends no event notifications for these keys.
    """
    return f"{_REQUESTS}/{job_id}.{extension}"


def is_from_request(key: str) -> bool:
    """Return whether this is the S3 key of a recording that was sent in the body of a request."""
    return key.startswith(_REQUESTS)


def job_id_of(key: str) -> str:
    """Return the job id in the S3 key of a recording.

    Return an empty string if the key has a different format.
    """
    match = re.fullmatch(rf"(?:{_UPLOADS}|{_REQUESTS})/(.*)\.[a-z0-9]{{1,5}}", key)
    return match[1] if match and is_job_id(match[1]) else ""


def is_job_id(text: str) -> bool:
    """Return whether the text has the format of a job id.

    Check this before a lookup: DynamoDB rejects long keys.
    """
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None


def as_failed(job: Job, code: str, detail: str) -> Job:
    """Return a copy of the job with the status `failed` and this error."""
    return replace(job, status="failed", error={"code": code, "detail": detail})


def to_item(job: Job) -> dict[str, Any]:
    """Return the job as a DynamoDB item, without the primary key and the expiry time."""
    stored = {**asdict(job), "options": json.dumps(job.options, ensure_ascii=False)}
    if not job.saved:
        del stored["saved"]  # DynamoDB rejects empty sets
    for name, value in stored.items():
        if isinstance(value, float):
            stored[name] = to_decimal(value)
    return _FIELDS_FOR_RELEASE_0_1 | stored


def from_item(item: dict[str, Any]) -> Job:
    """Return the job that a DynamoDB item describes. Unknown fields are ignored."""
    stored = known_fields(Job, item)
    stored |= {"options": json.loads(stored["options"]), "entries": tuple(stored["entries"])}
    seconds = ("seconds_paid", "paid_earlier", "reserved_seconds", "spent_seconds", "duration")
    for name in ("created_at", "progressed_at", *seconds):
        if stored.get(name) is not None:
            stored[name] = float(stored[name])
    for name in ("done", "total", "expected", "pieces", "attempts", "retries"):
        if stored.get(name) is not None:
            stored[name] = int(stored[name])
    if error := stored.get("error"):
        stored["error"] = {"code": error["code"], "detail": error["detail"]}
    if stored.get("saved"):
        stored["saved"] = frozenset(map(int, stored["saved"]))
    # Release 0.1 retries a failed job by setting `retry`, without changing the status.
    if item.get("retry") and stored["status"] == "failed":
        stored |= {"status": "queued", "error": None}
    return Job(**stored)
