"""The jobs, as callers use them: create, read, retry, delete. Their state is in DynamoDB, their bytes in S3.

The table has the keys `pk` and `sk`, both strings, and a time to live in `expires`:

    job#ID  job                      the job itself; progress.py has the writes of the engine's steps
    job#ID  parts#GENERATION#0007    its eighth part (parts.py)
"""

import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import uuid4

from handler.aws.clients import API_LIMITS, AWS, Limits
from handler.aws.items import to_decimal
from handler.billing.budget import Budget
from handler.billing.ledger import Ledger
from handler.durations import DAY_SECONDS, UNFINISHED_DAYS
from handler.errors import NotFailed, NotFound
from handler.jobs.job import (
    ANONYMOUS,
    Caller,
    Job,
    failed,
    from_item,
    is_job_id,
    recording_key,
    request_key,
    to_item,
)
from handler.jobs.parts import Parts, folder_of
from handler.jobs.progress import Progress, job_key
from handler.jobs.queues import Queues
from handler.jobs.stalled import unless_stalled
from handler.logs import request_id
from handler.recordings.container import Container
from handler.transcripts.transcript import Transcript

if TYPE_CHECKING:
    from handler.jobs.objects import Objects
    from handler.settings import Settings

log = logging.getLogger("steno")

UPLOAD_SECONDS = 15 * 60  # a role's presigned address dies with its token, too
_UPLOADING_SECONDS = 2 * 3600  # a form that was in time may take that long to arrive


@dataclass
class Jobs:
    """The jobs of one bucket and one table; `clock` tells the seconds since 1970."""

    settings: "Settings"
    clock: Callable[[], float] = time.time
    upload_seconds: int = UPLOAD_SECONDS
    aws: AWS = field(default_factory=AWS)
    limits: Limits = API_LIMITS

    @cached_property
    def objects(self) -> "Objects":
        from handler.jobs.objects import Objects

        return Objects(self.aws, str(self.settings.bucket_name), self.limits)

    @cached_property
    def client(self) -> Any:
        return self.aws.table_client()

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.client, self.table, self.clock)

    @cached_property
    def budget(self) -> Budget:
        everyone, each = self.settings.daily_seconds, self.settings.daily_seconds_per_caller
        return Budget(self.client, self.table, everyone, each, self.clock)

    @cached_property
    def parts(self) -> Parts:
        return Parts(self.client, self.table)

    @cached_property
    def progress(self) -> Progress:
        return Progress(self.client, self.table, self.clock)

    @cached_property
    def queues(self) -> Queues:
        settings = self.settings
        urls = settings.recordings_queue_url, settings.parts_queue_url, settings.express_queue_url
        return Queues(lambda: self.aws.limited("sqs", self.limits), *map(str, urls))

    @property
    def table(self) -> str:
        return str(self.settings.table_name)

    def create(
        self,
        filename: str,
        content_type: str,
        size: int,
        options: dict[str, Any],
        caller: Caller = ANONYMOUS,
    ) -> tuple[Job, dict[str, Any]]:
        """A job that awaits its recording of `size` bytes at most, and the presigned POST to send it
        with: `url` and `fields`."""
        identity = uuid4().hex
        key = recording_key(identity, _extension(filename))
        job = Job(
            identity,
            key,
            caller.owner,
            caller.account,
            filename,
            options,
            self.clock(),
            request=request_id(),
        )
        upload = self.objects.form(key, content_type, size, self.upload_seconds)
        self.client.put_item(TableName=self.table, Item=self._item(job))
        log.info("Job %s awaits its recording.", job.id, extra={"job": job.id})
        return job, upload

    def create_from_request(
        self,
        identity: str,
        recording: BinaryIO,
        container: Container,
        options: dict[str, Any],
        caller: Caller,
    ) -> Job:
        """The job of a recording that has come in one request; the same one again joins the job that it has."""
        key, name = request_key(identity, container.extension), container.filename
        new = Job(
            identity,
            key,
            caller.owner,
            caller.account,
            name,
            options,
            self.clock(),
            request=request_id(),
        )
        job = new if self._begin(new) else self.get(identity, caller.owner)
        if job.status in ("processing", "completed"):
            return job
        if job.status == "failed":
            self._begin_again(job, caller.account)
        recording.seek(0)
        self.objects.put(job.key, recording, container.media_type)
        log.info("Job %s goes on with what the request has sent.", job.id, extra={"job": job.id})
        # Also for a job that is queued: whoever put it there may have died before this message.
        self.queues.send_recording(job.key, caller.account)
        return self.get(identity)

    def _begin(self, job: Job) -> bool:
        """Whether there was no such job before."""
        try:
            self.client.put_item(
                TableName=self.table,
                Item=self._item(job),
                ConditionExpression="attribute_not_exists(pk) OR expires < :now",
                ExpressionAttributeValues={":now": int(self.clock())},
            )
        except self.client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def retry(self, identity: str, caller: Caller) -> Job:
        """A failed job, begun again; NotFailed for any other, NotFound where its recording is gone.

        Whoever was cut off before the message was sent can ask again.
        """
        job = self.get(identity, caller.owner)
        if job.status != "failed" and not (job.status == "queued" and job.retries):
            raise NotFailed(
                f"The job is {job.status}; only one that has failed can be tried again."
            )
        if not self.objects.has(job.key):
            raise NotFound("The recording is not here (any more); upload it again.")
        if job.status == "failed":
            self._begin_again(job, caller.account)
        log.info("Job %s is tried again.", job.id, extra={"job": job.id})
        self.queues.send_recording(job.key, caller.account)
        return self.get(identity)

    def _begin_again(self, job: Job, account: str) -> None:
        """Queue a failed job, unless it was retried or deleted, or has ended, since `job` was read.

        It has no generation until its recording is cut: old messages about its parts are dropped.
        """
        spent = self.parts.seconds_spent(job.id, job.generation)
        self.settle(job, spent)  # of a job that is stuck
        # Release 0.1 knew no generations.
        paid = job.paid_earlier + spent if job.generation else job.paid_earlier or job.seconds_paid
        with suppress(self.client.exceptions.ConditionalCheckFailedException):
            self.client.update_item(
                TableName=self.table,
                Key=job_key(job.id),
                UpdateExpression="SET #status = :queued, #error = :null, attempts = :zero, retries = :retries,"
                " generation = :none, reserved_on = :none, #total = :null, expires = :expires,"
                " account = :account, progressed_at = :now, paid_earlier = :paid, #request = :request",
                # `retries` and `progressed_at` are not in items of release 0.1.
                ConditionExpression="attribute_exists(pk) AND #status <> :completed"
                " AND (attribute_not_exists(retries) OR retries < :retries)"
                " AND (#status = :failed OR attribute_not_exists(progressed_at) OR progressed_at = :progressed)",
                ExpressionAttributeNames={
                    "#status": "status",
                    "#error": "error",
                    "#total": "total",
                    "#request": "request",
                },
                ExpressionAttributeValues={
                    ":queued": "queued",
                    ":null": None,
                    ":none": "",
                    ":zero": 0,
                    ":retries": job.retries + 1,
                    ":expires": int(self.expiry(UNFINISHED_DAYS)),
                    ":account": account,
                    ":completed": "completed",
                    ":failed": "failed",
                    ":progressed": to_decimal(job.progressed_at),
                    ":now": to_decimal(self.clock()),
                    ":paid": to_decimal(paid),
                    ":request": request_id(),
                },
            )

    def get(self, identity: str, owner: str | None = None, *, consistent: bool = True) -> Job:
        """The job as it stands; NotFound for one that is unknown, expired or somebody else's.

        What is not read consistently may be a second old, but is never missing.
        """
        item = self._read(identity, consistent=consistent) if is_job_id(identity) else None
        if not item or item["expires"] < self.clock():
            raise NotFound("There is no such job, or it has expired.")
        job = from_item(item)
        if owner is not None and job.owner != owner:
            raise NotFound("There is no such job, or it has expired.")
        return self._effective_status(job)

    def _read(self, identity: str, *, consistent: bool) -> dict[str, Any] | None:
        asked = {"TableName": self.table, "Key": job_key(identity), "ConsistentRead": consistent}
        item: dict[str, Any] | None = self.client.get_item(**asked).get("Item")
        return item if item or consistent else self._read(identity, consistent=True)

    def _effective_status(self, job: Job) -> Job:
        """What nobody writes down: that a recording has arrived or never will, and that the job is stuck."""
        now = self.clock()
        if job.status == "awaiting_upload" and not self.objects.has(job.key):
            if now > job.created_at + self.upload_seconds + _UPLOADING_SECONDS:
                return failed(
                    job,
                    "invalid_request",
                    "The recording was not uploaded in time; ask for a new upload.",
                )
            return job
        if job.status == "awaiting_upload":
            job = replace(job, status="queued", error=None)
        return unless_stalled(job, now)

    def transcript(self, job: Job) -> Transcript:
        """The whole transcript of a completed job."""
        return self.objects.transcript(job.id)

    def delete(self, identity: str, owner: str | None = None) -> None:
        """Recording, parts and transcript go; a step that is under way finds no job at its next write."""
        job = self.get(identity, owner)
        self.settle(job, self.parts.seconds_spent(job.id, job.generation))
        self.delete_leftovers(job.key, job.id, job.entries)
        self.client.delete_item(TableName=self.table, Key=job_key(identity))
        self.delete_leftovers(job.key, job.id, job.entries)  # what was written meanwhile

    def delete_leftovers(self, key: str, identity: str, entries: tuple[str, ...] = ()) -> None:
        """Delete all that a deleted job may have left: objects, parts, and answers in the ledger."""
        self.objects.delete(key)
        self.objects.delete_below(folder_of(identity))
        self.objects.delete_transcript(identity)
        for entry in chain(entries, self.parts.delete_all(identity)):
            self.ledger.delete(entry)

    def settle(self, job: Job, spent: float) -> None:
        """Settle what the job's generation has reserved of the budget, if it is not settled yet."""
        if job.reserved_on:
            reservation = self.budget.reserved(
                job.account, job.reserved_seconds, reservation_id(job), job.reserved_on
            )
            self.budget.settle(reservation, spent)

    def _item(self, job: Job) -> dict[str, Any]:
        return {**to_item(job), **job_key(job.id), "expires": int(self.expiry(UNFINISHED_DAYS))}

    def expiry(self, days: int = UNFINISHED_DAYS) -> float:
        """Return when something that is written now expires (seconds since 1970)."""
        return self.clock() + days * DAY_SECONDS


def reservation_id(job: Job) -> str:
    """Return the name of the one reservation that a job makes for each of its generations."""
    return f"{job.id}-{job.generation}"


def _extension(filename: str) -> str:
    match = re.search(r"\.([A-Za-z0-9]{1,5})$", filename)
    return match[1].lower() if match else "bin"
