"""Creates, reads, retries and deletes jobs for callers.

Jobs are items in DynamoDB. Recordings and transcripts are objects in S3. The primary key of the
table consists of the string attributes `pk` and `sk`, and the TTL attribute is `expires`. A job has
these items:

    job#ID  job                      the job; the steps update it with progress.py
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
    as_failed,
    from_item,
    is_job_id,
    recording_key,
    request_key,
    to_item,
)
from handler.jobs.parts import Parts, parts_prefix
from handler.jobs.progress import Progress, job_key
from handler.jobs.queues import Queues
from handler.jobs.stalled import fail_if_stalled
from handler.logs import request_id
from handler.recordings.container import Container
from handler.transcripts.transcript import Transcript

if TYPE_CHECKING:
    from handler.jobs.objects import Objects
    from handler.settings import Settings

log = logging.getLogger("steno")

# How long a presigned form is valid. If the credentials used to sign the form expire earlier, the
# form expires at the same time.
UPLOAD_SECONDS = 15 * 60
_UPLOAD_GRACE_SECONDS = 2 * 3600  # for an upload that starts just before the form expires


@dataclass
class Jobs:
    """The jobs in one bucket and one table. `clock` returns the time in seconds since 1970."""

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
        total, per_caller = self.settings.daily_seconds, self.settings.daily_seconds_per_caller
        return Budget(self.client, self.table, total, per_caller, self.clock)

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
        return Queues(lambda: self.aws.client_with_limits("sqs", self.limits), *map(str, urls))

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
        """Create a job that waits for the upload of its recording.

        Return the job, and the presigned POST (`url` and `fields`) for uploading a recording of at
        most `size` bytes.
        """
        job_id = uuid4().hex
        key = recording_key(job_id, _extension(filename))
        job = Job(
            job_id,
            key,
            caller.owner,
            caller.account,
            filename,
            options,
            self.clock(),
            request=request_id(),
        )
        upload = self.objects.presigned_post(key, content_type, size, self.upload_seconds)
        self.client.put_item(TableName=self.table, Item=self._item(job))
        log.info("Job %s was created and waits for its upload.", job.id, extra={"job": job.id})
        return job, upload

    def create_from_request(
        self,
        job_id: str,
        recording: BinaryIO,
        container: Container,
        options: dict[str, Any],
        caller: Caller,
    ) -> Job:
        """Create and queue a job for a recording that was sent in the body of a request.

        If a job with this id exists, return it, and queue it again if it has failed. The id depends
        on the recording and its options, so a repeated request gets the same job.
        """
        key, name = request_key(job_id, container.extension), container.filename
        new = Job(
            job_id,
            key,
            caller.owner,
            caller.account,
            name,
            options,
            self.clock(),
            request=request_id(),
        )
        job = new if self._create_if_absent(new) else self.get(job_id, caller.owner)
        if job.status in ("processing", "completed"):
            return job
        if job.status == "failed":
            self._queue_again(job, caller.account)
        recording.seek(0)
        self.objects.put(job.key, recording, container.media_type)
        log.info(
            "Job %s was created for the recording of a request.", job.id, extra={"job": job.id}
        )
        # Send a message even if the job is already queued: the process that queued it may have
        # crashed before it sent the message.
        self.queues.send_recording(job.key, caller.account)
        return self.get(job_id)

    def _create_if_absent(self, job: Job) -> bool:
        """Store the job and return True, or return False if a job with this id exists."""
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

    def retry(self, job_id: str, caller: Caller) -> Job:
        """Queue a failed job again, and return it.

        Raises NotFailed if the job has not failed, and NotFound if its recording does not exist.
        A job that is still queued after a retry can be retried again, because the first retry may
        have been interrupted before it sent the message.
        """
        job = self.get(job_id, caller.owner)
        if job.status != "failed" and not (job.status == "queued" and job.retries):
            raise NotFailed(f"The job is {job.status}. Only a failed job can be retried.")
        if not self.objects.exists(job.key):
            raise NotFound("The recording was not uploaded, or was deleted. Upload it again.")
        if job.status == "failed":
            self._queue_again(job, caller.account)
        log.info(
            "Job %s was queued again, because its caller retried it.", job.id, extra={"job": job.id}
        )
        self.queues.send_recording(job.key, caller.account)
        return self.get(job_id)

    def _queue_again(self, job: Job, account: str) -> None:
        """Set a failed job to `queued`, unless it was deleted or has changed since it was read.

        This clears the generation, so that workers ignore old messages for parts of the job.
        """
        spent = self.parts.seconds_spent(job.id, job.generation)
        self.settle(job, spent)  # the reservation of a stalled job is not settled yet
        paid = job.paid_earlier + spent
        # A job of release 0.1 has no generation. Its cost is stored only in `seconds_paid`.
        if not job.generation:
            paid = job.paid_earlier or job.seconds_paid
        with suppress(self.client.exceptions.ConditionalCheckFailedException):
            self.client.update_item(
                TableName=self.table,
                Key=job_key(job.id),
                UpdateExpression="SET #status = :queued, #error = :null, attempts = :zero,"
                " retries = :retries, generation = :none, reserved_on = :none, #total = :null,"
                " expires = :expires, account = :account, progressed_at = :now,"
                " paid_earlier = :paid, #request = :request",
                # Items written by release 0.1 have neither `retries` nor `progressed_at`.
                ConditionExpression="attribute_exists(pk) AND #status <> :completed"
                " AND (attribute_not_exists(retries) OR retries < :retries)"
                " AND (#status = :failed OR attribute_not_exists(progressed_at)"
                " OR progressed_at = :progressed)",
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

    def get(self, job_id: str, owner: str | None = None, *, consistent: bool = True) -> Job:
        """Return the job with its effective status.

        Raises NotFound if it does not exist, has expired, or has another owner. If `consistent` is
        False, the result may be about a second old, but a new job is always found.
        """
        item = self._read(job_id, consistent=consistent) if is_job_id(job_id) else None
        if not item or item["expires"] < self.clock():
            raise NotFound("There is no such job, or it has expired.")
        job = from_item(item)
        if owner is not None and job.owner != owner:
            raise NotFound("There is no such job, or it has expired.")
        return self._effective_status(job)

    def _read(self, job_id: str, *, consistent: bool) -> dict[str, Any] | None:
        request = {"TableName": self.table, "Key": job_key(job_id), "ConsistentRead": consistent}
        item: dict[str, Any] | None = self.client.get_item(**request).get("Item")
        return item if item or consistent else self._read(job_id, consistent=True)

    def _effective_status(self, job: Job) -> Job:
        """Return the job with its effective status, which may differ from the stored status.

        A job is `queued` once its recording is uploaded. It is `failed` if the upload is overdue
        or the job is stalled.
        """
        now = self.clock()
        if job.status == "awaiting_upload" and not self.objects.exists(job.key):
            if now > job.created_at + self.upload_seconds + _UPLOAD_GRACE_SECONDS:
                return as_failed(
                    job,
                    "invalid_request",
                    "The recording was not uploaded in time. Create a new upload.",
                )
            return job
        if job.status == "awaiting_upload":
            job = replace(job, status="queued", error=None)
        return fail_if_stalled(job, now)

    def transcript(self, job: Job) -> Transcript:
        """Return the transcript of a completed job. Raises NotFound if it was deleted."""
        return self.objects.transcript(job.id)

    def delete(self, job_id: str, owner: str | None = None) -> None:
        """Delete a job, along with its recording, parts, transcript and results in the ledger.

        A step that is running stops at its next update, because the job no longer exists.
        """
        job = self.get(job_id, owner)
        self.settle(job, self.parts.seconds_spent(job.id, job.generation))
        self.delete_leftovers(job.key, job.id, job.entries)
        self.client.delete_item(TableName=self.table, Key=job_key(job_id))
        # A running step may have written more data before the job's item was deleted.
        self.delete_leftovers(job.key, job.id, job.entries)

    def delete_leftovers(self, key: str, job_id: str, entries: tuple[str, ...] = ()) -> None:
        """Delete all data of a job except its item: objects, parts, and results in the ledger.

        `key` is the S3 key of the recording.
        """
        self.objects.delete(key)
        self.objects.delete_prefix(parts_prefix(job_id))
        self.objects.delete_transcript(job_id)
        for ledger_key in chain(entries, self.parts.delete_all(job_id)):
            self.ledger.delete(ledger_key)

    def settle(self, job: Job, spent: float) -> None:
        """Settle the budget reservation of the job's generation.

        `spent` is the number of seconds to count as spent. Does nothing if there is no
        reservation, or if it is already settled.
        """
        if job.reserved_on:
            reservation = self.budget.existing_reservation(
                job.account, job.reserved_seconds, reservation_id(job), job.reserved_on
            )
            self.budget.settle(reservation, spent)

    def _item(self, job: Job) -> dict[str, Any]:
        return {**to_item(job), **job_key(job.id), "expires": int(self.expiry(UNFINISHED_DAYS))}

    def expiry(self, days: int = UNFINISHED_DAYS) -> float:
        """Return the expiry time of an item that is written now, in seconds since 1970."""
        return self.clock() + days * DAY_SECONDS


def reservation_id(job: Job) -> str:
    """Return the id of the budget reservation for the job's current generation."""
    return f"{job.id}-{job.generation}"


def _extension(filename: str) -> str:
    match = re.search(r"\.([A-Za-z0-9]{1,5})$", filename)
    return match[1].lower() if match else "bin"
