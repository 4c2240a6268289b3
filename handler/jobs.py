"""The jobs: what may become of them, and who may do it. Their state is in DynamoDB, their bytes in S3.

The table has the keys `pk` and `sk`, both strings, and a time to live in `expires`:

    job#ID  job         the job itself
    job#ID  part#0007   what the speech service heard in its eighth part
"""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import uuid4

from handler.audio import Container
from handler.aws import API_S3, AWS, S3Limits
from handler.errors import NotFailed, NotFound, StenoError
from handler.job import (
    NOBODY,
    Caller,
    Heard,
    Job,
    failed,
    from_item,
    heard_from,
    identity_of,
    is_identity,
    packed,
    recording_key,
    to_item,
)
from handler.ledger import MOST_BYTES, Ledger
from handler.numbers import number
from handler.stalled import unless_stalled
from handler.transcript import Transcript

if TYPE_CHECKING:
    from handler.objects import Objects
    from handler.settings import Settings

UPLOAD_SECONDS = 15 * 60  # a role's presigned address dies with its token, too
LEASE_SECONDS = 60
_DAY = 86_400
_UPLOADING_SECONDS = 2 * 3600  # a form that was in time may take that long to arrive
_KEPT_UNFINISHED_DAYS = 7  # as long as the bucket keeps a recording that was not finished


class Lost(Exception):
    """The job is not this worker's any more: deleted, or taken over after its lease ran out."""


class Held(Exception):
    """Another worker has the job, because of `message`."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass
class Jobs:
    """The jobs of one bucket and one table; `clock` tells the seconds since 1970."""

    settings: "Settings"
    clock: Callable[[], float] = time.time
    upload_seconds: int = UPLOAD_SECONDS
    lease_seconds: int = LEASE_SECONDS
    aws: AWS = field(default_factory=AWS)
    s3_limits: S3Limits = API_S3

    @cached_property
    def objects(self) -> "Objects":
        from handler.objects import Objects

        return Objects(self.aws, str(self.settings.bucket_name), self.s3_limits)

    @cached_property
    def client(self) -> Any:
        return self.aws.table_client()

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.client, str(self._name), self.clock)

    @property
    def _name(self) -> str | None:
        return self.settings.table_name

    # For callers

    def create(
        self, filename: str, content_type: str, options: dict[str, Any], caller: Caller = NOBODY
    ) -> tuple[Job, dict[str, Any]]:
        """A job that awaits its recording, and the presigned POST to send it with: `url` and `fields`."""
        identity = uuid4().hex
        key = recording_key(identity, _extension(filename))
        job = Job(identity, key, caller.owner, caller.account, filename, options, self.clock())
        upload = self.objects.form(key, content_type, self.settings.max_upload_bytes, self.upload_seconds)
        self.client.put_item(TableName=self._name, Item=self._item(job, _KEPT_UNFINISHED_DAYS))
        return job, upload

    def adopt(
        self, identity: str, recording: BinaryIO, container: Container, options: dict[str, Any], caller: Caller
    ) -> Job:
        """The job of a recording that has come in one request; the same one again joins the job that it has."""
        key, name = recording_key(identity, container.extension), container.filename
        new = Job(identity, key, caller.owner, caller.account, name, options, self.clock())
        job = new if self._begin(new) else self.get(identity, caller.owner)
        if job.status == "failed" or job.retry:
            self._begin_again(job, caller.account)
        elif job.status != "awaiting_upload":
            return job
        recording.seek(0)
        self.objects.put(job.key, recording, container.media_type)
        return self.get(identity)

    def _begin(self, job: Job) -> bool:
        """Whether there was no such job before."""
        try:
            self.client.put_item(
                TableName=self._name,
                Item=self._item(job, _KEPT_UNFINISHED_DAYS),
                ConditionExpression="attribute_not_exists(pk) OR expires < :now",
                ExpressionAttributeValues={":now": int(self.clock())},
            )
        except self.client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def retry(self, identity: str, caller: Caller) -> Job:
        """A failed job, begun again; NotFailed for any other, NotFound where its recording is gone."""
        job = self.get(identity, caller.owner)
        if job.status != "failed" and not job.retry:
            raise NotFailed(f"The job is {job.status}; only one that has failed can be tried again.")
        if not self.objects.has(job.key):
            raise NotFound("The recording is not here (any more); upload it again.")
        self._begin_again(job, caller.account)
        self.objects.announce(job.key)
        return self.get(identity)

    def _begin_again(self, job: Job, account: str) -> None:
        """Leaves a failed job to the next worker, unless one has taken it since `job` was read."""
        with suppress(self.client.exceptions.ConditionalCheckFailedException):
            self.client.update_item(
                TableName=self._name,
                Key=_job_key(job.id),
                UpdateExpression="SET retry = :true, attempts = :zero, hand_overs = :zero,"
                " lease_until = :zero, expires = :expires, account = :account, message = :none,"
                " idle_since = :now",
                ConditionExpression="lease = :lease"
                " AND (#status = :failed OR (#status <> :completed AND lease_until < :now))",
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues={
                    ":true": True,
                    ":zero": 0,
                    ":none": "",
                    ":expires": int(self._expiry(_KEPT_UNFINISHED_DAYS)),
                    ":account": account,
                    ":lease": job.lease,
                    ":failed": "failed",
                    ":completed": "completed",
                    ":now": number(self.clock()),
                },
            )

    def get(self, identity: str, owner: str | None = None) -> Job:
        """The job as it stands; NotFound for one that is unknown, expired or somebody else's."""
        asked = {"TableName": self._name, "Key": _job_key(identity), "ConsistentRead": True}
        item = self.client.get_item(**asked).get("Item") if is_identity(identity) else None
        if not item or item["expires"] < self.clock():
            raise NotFound("There is no such job, or it has expired.")
        job = from_item(item)
        if owner is not None and job.owner != owner:
            raise NotFound("There is no such job, or it has expired.")
        return self._as_it_reads(job)

    def _as_it_reads(self, job: Job) -> Job:
        """What nobody writes down: that a recording has arrived or never will, and that no worker comes any more."""
        now = self.clock()
        if job.status == "awaiting_upload" and not self.objects.has(job.key):
            if now > job.created_at + self.upload_seconds + _UPLOADING_SECONDS:
                return failed(job, "invalid_request", "The recording was not uploaded in time; ask for a new upload.")
            return job
        if job.status == "awaiting_upload" or (job.retry and job.status != "completed"):
            job = replace(job, status="queued", error=None)
        return unless_stalled(job, now)

    def transcript(self, job: Job) -> Transcript:
        """The whole transcript of a completed job."""
        return self.objects.transcript(job.id)

    def delete(self, identity: str, owner: str | None = None) -> None:
        """Recording, parts and transcript go; a worker that has the job learns it at its next step."""
        job = self.get(identity, owner)
        self._delete_objects(job)
        self.client.delete_item(TableName=self._name, Key=_job_key(identity))
        # What a worker has written meanwhile; only now can it write no more.
        self._delete_objects(job)
        self._forget(job.entries)
        for heard in self._delete_parts(identity):
            self._forget(heard.entries)

    def _forget(self, entries: tuple[str, ...]) -> None:
        for entry in entries:
            self.ledger.forget(entry)

    # For the worker

    def take(self, key: str, worker: str, message: str) -> Job:
        """The job of the recording `key`, leased to `worker`; Held while another has it, NotFound if there is none."""
        identity, now = identity_of(key), self.clock()
        try:
            item = self.client.update_item(
                TableName=self._name,
                Key=_job_key(identity),
                UpdateExpression="SET #status = :processing, lease = :worker, lease_until = :until, message = :message,"
                " retry = :false, #error = :null ADD attempts :one",
                ConditionExpression="#key = :key AND #status <> :completed AND (#status <> :failed OR retry = :true)"
                " AND lease_until < :now",
                ExpressionAttributeNames={"#status": "status", "#key": "key", "#error": "error"},
                ExpressionAttributeValues={
                    ":processing": "processing",
                    ":completed": "completed",
                    ":failed": "failed",
                    ":key": key,
                    ":worker": worker,
                    ":message": message,
                    ":until": number(now + self.lease_seconds),
                    ":now": number(now),
                    ":one": 1,
                    ":true": True,
                    ":false": False,
                    ":null": None,
                },
                ReturnValues="ALL_NEW",
            )["Attributes"]
        except self.client.exceptions.ConditionalCheckFailedException:
            job = self.get(identity)
            if job.finished or job.key != key:
                raise NotFound("The job is finished, or has another recording.") from None
            raise Held(job.message) from None
        return from_item(item)

    def renew(self, job: Job) -> None:
        self._update(job, "SET lease_until = :until", {":until": number(self.clock() + self.lease_seconds)})

    def release(self, job: Job) -> None:
        """For the worker that gets the next message, which the caller sends."""
        self._let_go(job, " ADD hand_overs :one", {":one": 1})

    def give_back(self, job: Job) -> None:
        """Releases the job as if it had not been taken: an outage of AWS is not an attempt."""
        self._let_go(job, " ADD attempts :less", {":less": -1})

    def _let_go(self, job: Job, more: str = "", values: dict[str, Any] | None = None) -> None:
        usual = {":zero": 0, ":none": "", ":now": number(self.clock())}
        expression = f"SET lease_until = :zero, lease = :none, idle_since = :now{more}"
        self._update(job, expression, usual | (values or {}))

    def tidy(self, key: str) -> None:
        """Deletes a recording that no job needs: its job was deleted before it arrived, or has its transcript."""
        identity = identity_of(key)
        with suppress(NotFound):
            if self.get(identity).status != "completed":
                return
        self.objects.delete(key)
        self._delete_parts(identity)

    def fetch(self, job: Job, target: Any) -> None:
        """The recording's bytes, into the open file `target`; NotFound if they are gone."""
        self.objects.fetch(job.key, target)

    def cut(self, job: Job, total: int) -> None:
        """Says into how many parts the recording is cut."""
        self._update(job, "SET #total = :total", {":total": total})

    def hear(self, job: Job, heard: Heard) -> None:
        """Keeps what was heard in a part.

        Not in one transaction with the job: sixteen parts that end together would cancel each other's.
        """
        told = packed(heard)
        if len(told) > MOST_BYTES:
            raise StenoError("What the speech service heard in a part is more than can be kept, or can have been said.")
        expires = int(self._expiry(_KEPT_UNFINISHED_DAYS))
        item = {**_part_key(job.id, heard.number), "expires": expires, "heard": told}
        self.client.put_item(TableName=self._name, Item=item)
        try:
            self._update(job, "SET attempts = :zero", {":zero": 0})
        except Lost:
            if not self._is_known(job.id):
                self.client.delete_item(TableName=self._name, Key=_part_key(job.id, heard.number))
                self._forget(heard.entries)
            raise

    def heard(self, identity: str) -> list[Heard]:
        """What has been heard so far, in the order of the parts."""
        from boto3.dynamodb.conditions import Key

        asked: dict[str, Any] = {
            "TableName": self._name,
            "KeyConditionExpression": Key("pk").eq(f"job#{identity}") & Key("sk").begins_with("part#"),
            "ConsistentRead": True,
        }
        found: list[Heard] = []
        while True:
            page = self.client.query(**asked)
            found += [heard_from(item["heard"].value) for item in page["Items"]]
            if "LastEvaluatedKey" not in page:
                return found
            asked["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def complete(self, job: Job, transcript: Transcript, entry: str = "") -> None:
        """Stores the transcript, which the ledger has under `entry`, then says so; the recording and the parts go."""
        self.objects.put_transcript(job.id, transcript)
        heard = self.heard(job.id)
        told = {
            "total": len(heard),
            "entries": [entry, *(entry for part in heard for entry in part.entries)],
            "model": transcript.model,
            "duration": number(transcript.duration or 0),
            "no_speech": not transcript.text,
            "expires": int(self._expiry(self.settings.transcript_days)),
        }
        try:
            self._end(job, "completed", heard, **told)
        except Lost:
            # Who has taken the job over writes, or has written, the same.
            if not self._is_known(job.id):
                self.objects.delete_transcript(job.id)
                self.ledger.forget(entry)
            raise
        self.objects.delete(job.key)
        self._delete_parts(job.id)

    def fail(self, job: Job, error: StenoError) -> None:
        self._end(job, "failed", self.heard(job.id), error={"code": error.code, "detail": error.detail})

    def _end(self, job: Job, status: str, heard: list[Heard], **told: Any) -> None:
        paid = sum(part.seconds_paid for part in heard)
        told |= {"status": status, "done": len(heard), "seconds_paid": number(paid)}
        sets = ", ".join(f"#{name} = :{name}" for name in told)
        self._update(job, f"SET {sets}", {f":{name}": value for name, value in told.items()})

    def _update(self, job: Job, expression: str, values: dict[str, Any]) -> None:
        """One change that only the lease's holder can make; Lost for anybody else."""
        names = {f"#{name}": name for name in re.findall(r"#(\w+)", expression)}
        try:
            self.client.update_item(
                TableName=self._name,
                Key=_job_key(job.id),
                UpdateExpression=expression,
                ConditionExpression="lease = :holder",
                ExpressionAttributeValues={":holder": job.lease, **values},
                **({"ExpressionAttributeNames": names} if names else {}),
            )
        except self.client.exceptions.ConditionalCheckFailedException:
            raise Lost from None

    def _is_known(self, identity: str) -> bool:
        return "Item" in self.client.get_item(TableName=self._name, Key=_job_key(identity), ConsistentRead=True)

    def _delete_objects(self, job: Job) -> None:
        self.objects.delete(job.key)
        self.objects.delete_transcript(job.id)

    def _delete_parts(self, identity: str) -> list[Heard]:
        parts = self.heard(identity)
        for heard in parts:
            self.client.delete_item(TableName=self._name, Key=_part_key(identity, heard.number))
        return parts

    def _item(self, job: Job, days: int) -> dict[str, Any]:
        return {**to_item(job), **_job_key(job.id), "expires": int(self._expiry(days))}

    def _expiry(self, days: int) -> float:
        return self.clock() + days * _DAY


def _job_key(identity: str) -> dict[str, str]:
    return {"pk": f"job#{identity}", "sk": "job"}


def _part_key(identity: str, number: int) -> dict[str, str]:
    return {"pk": f"job#{identity}", "sk": f"part#{number:04}"}


def _extension(filename: str) -> str:
    match = re.search(r"\.([A-Za-z0-9]{1,5})$", filename)
    return match[1].lower() if match else "bin"
