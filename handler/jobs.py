"""Jobs: recordings on their way to transcripts. Their state is in DynamoDB, their bytes in S3.

The table has the keys `pk` and `sk`, both strings, and a time to live in `expires`:

    job#ID  job         the job itself
    job#ID  part#0007   what the speech service heard in its eighth part
"""

import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import uuid4

from handler.audio import Container
from handler.errors import NotFailed, NotFound, StenoError
from handler.ledger import Ledger
from handler.numbers import number
from handler.transcript import Segment, Transcript

if TYPE_CHECKING:
    from handler.settings import Settings

UPLOAD_SECONDS = 15 * 60  # a role's presigned address dies with its token, too
LEASE_SECONDS = 60
_CONNECTIONS = 50  # as many as there are threads to use them
MOST_ATTEMPTS = 5
GAVE_UP = "The job was begun several times without getting anywhere; the log says more."
_DAY = 86_400
_UPLOADING_SECONDS = 2 * 3600  # a form that was in time may take that long to arrive
_KEPT_UNFINISHED_DAYS = 7  # as long as the bucket keeps a recording that was not finished


@dataclass(frozen=True)
class Caller:
    """`owner` is whose the jobs are, empty where nobody says who is calling; `account` is whose budget is spent."""

    owner: str = ""
    account: str = ""


NOBODY = Caller()


@dataclass(frozen=True)
class Job:
    """`status` is awaiting_upload, queued, processing, completed or failed; times are seconds since 1970.

    `done` and `seconds_paid` are written when the job ends; until then, its parts tell. `attempts` counts the workers
    that have taken the job since a part was last heard; `message` is what the holder of the lease was told of it by.
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
    attempts: int = 0
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

    @cached_property
    def _session(self) -> Any:
        import boto3  # only a function that has jobs pays for it

        return boto3.session.Session()

    @cached_property
    def _s3(self) -> Any:
        from botocore.config import Config

        # The bucket's own address: the global one redirects to other regions, which no browser follows with a form.
        config = Config(signature_version="s3v4", s3={"addressing_style": "virtual"}, max_pool_connections=_CONNECTIONS)
        return self._session.client("s3", config=config)

    @cached_property
    def client(self) -> Any:
        """A client that speaks Python's types; unlike the resource, it is safe in threads."""
        from botocore.config import Config

        return self._session.resource("dynamodb", config=Config(max_pool_connections=_CONNECTIONS)).meta.client

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.client, str(self._name), self.clock)

    @property
    def _name(self) -> str | None:
        return self.settings.table_name

    @property
    def _bucket(self) -> str | None:
        return self.settings.bucket_name

    # For callers

    def create(
        self, filename: str, content_type: str, options: dict[str, Any], caller: Caller = NOBODY
    ) -> tuple[Job, dict[str, Any]]:
        """A job that awaits its recording, and the presigned POST to send it with: `url` and `fields`."""
        identity = uuid4().hex
        key = f"uploads/{identity}.{_extension(filename)}"
        job = Job(identity, key, caller.owner, caller.account, filename, options, self.clock())
        upload = self._s3.generate_presigned_post(
            self._bucket,
            job.key,
            Fields={"Content-Type": content_type},
            Conditions=[{"Content-Type": content_type}, ["content-length-range", 1, self.settings.max_upload_bytes]],
            ExpiresIn=self.upload_seconds,
        )
        self.client.put_item(TableName=self._name, Item=_item(job, self._expiry(_KEPT_UNFINISHED_DAYS)))
        return job, upload

    def adopt(
        self, identity: str, recording: BinaryIO, container: Container, options: dict[str, Any], caller: Caller
    ) -> Job:
        """The job of a recording that has come in one request; the same one again joins the job that it has."""
        key, name = f"uploads/{identity}.{container.extension}", container.filename
        new = Job(identity, key, caller.owner, caller.account, name, options, self.clock())
        job = new if self._begin(new) else self.get(identity, caller.owner)
        if job.status == "failed" or job.retry:
            self._begin_again(job, caller.account)
        elif job.status != "awaiting_upload":
            return job
        recording.seek(0)
        self._s3.put_object(Bucket=self._bucket, Key=job.key, Body=recording, ContentType=container.media_type)
        return self.get(identity)

    def _begin(self, job: Job) -> bool:
        """Whether there was no such job before."""
        try:
            self.client.put_item(
                TableName=self._name,
                Item=_item(job, self._expiry(_KEPT_UNFINISHED_DAYS)),
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
        if not self._exists(job.key):
            raise NotFound("The recording is not here (any more); upload it again.")
        self._begin_again(job, caller.account)
        # A copy onto itself: the bucket tells the queue as it did of the first, and the recording's days begin anew.
        source = {"Bucket": self._bucket, "Key": job.key}
        self._s3.copy(source, self._bucket, job.key, ExtraArgs={"MetadataDirective": "REPLACE"})
        return self.get(identity)

    def _begin_again(self, job: Job, account: str) -> None:
        """Leaves the job to the next worker; it may be in a worker's hands again by now, and is left there then."""
        with suppress(self.client.exceptions.ConditionalCheckFailedException):
            self.client.update_item(
                TableName=self._name,
                Key=_job_key(job.id),
                UpdateExpression="SET retry = :true, attempts = :zero, lease_until = :zero, expires = :expires,"
                " account = :account",
                ConditionExpression="#status = :failed OR (attempts >= :most AND lease_until < :now)",
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues={
                    ":true": True,
                    ":zero": 0,
                    ":expires": int(self._expiry(_KEPT_UNFINISHED_DAYS)),
                    ":account": account,
                    ":failed": "failed",
                    ":most": MOST_ATTEMPTS,
                    ":now": number(self.clock()),
                },
            )

    def get(self, identity: str, owner: str | None = None) -> Job:
        """The job as it stands; NotFound for one that is unknown, expired or somebody else's."""
        item = self.client.get_item(TableName=self._name, Key=_job_key(identity), ConsistentRead=True).get("Item")
        if not item or item["expires"] < self.clock():
            raise NotFound("There is no such job, or it has expired.")
        job = _job(item)
        if owner is not None and job.owner != owner:
            raise NotFound("There is no such job, or it has expired.")
        return self._as_it_reads(job)

    def _as_it_reads(self, job: Job) -> Job:
        """What nobody writes down: that a recording has arrived or never will, and that no worker comes any more."""
        if job.status == "awaiting_upload" and self._exists(job.key):
            return replace(job, status="queued")
        if job.status == "awaiting_upload" and self.clock() > job.created_at + self.upload_seconds + _UPLOADING_SECONDS:
            return _failed(job, "invalid_request", "The recording was not uploaded in time; ask for a new upload.")
        if job.status == "processing" and job.attempts >= MOST_ATTEMPTS and job.lease_until < self.clock():
            return _failed(job, StenoError.code, GAVE_UP)
        if job.retry and job.status != "completed":
            return replace(job, status="queued", error=None)
        return job

    def transcript(self, job: Job) -> Transcript:
        """The whole transcript of a completed job."""
        stored = self._s3.get_object(Bucket=self._bucket, Key=_transcript_key(job.id))["Body"].read()
        return Transcript.from_json(stored)

    def delete(self, identity: str, owner: str | None = None) -> None:
        """Recording, parts and transcript go; a worker that has the job learns it at its next step."""
        job = self.get(identity, owner)
        self._delete_objects(job.key, _transcript_key(identity))
        self.client.delete_item(TableName=self._name, Key=_job_key(identity))
        # What a worker has written meanwhile; only now can it write no more.
        self._delete_objects(job.key, _transcript_key(identity))
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
        return _job(item)

    def renew(self, job: Job) -> None:
        self._update(job, "SET lease_until = :until", {":until": number(self.clock() + self.lease_seconds)})

    def release(self, job: Job) -> None:
        """For the next worker to take at once."""
        self._update(job, "SET lease_until = :zero, lease = :none", {":zero": 0, ":none": ""})

    def tidy(self, key: str) -> None:
        """Deletes a recording that no job needs: its job was deleted before it arrived, or has its transcript."""
        identity = identity_of(key)
        with suppress(NotFound):
            if self.get(identity).status != "completed":
                return
        self._delete_objects(key)
        self._delete_parts(identity)

    def fetch(self, job: Job, target: Any) -> None:
        """The recording's bytes, into the open file `target`; NotFound if they are gone."""
        from botocore.exceptions import ClientError

        try:
            self._s3.download_fileobj(self._bucket, job.key, target)
        except ClientError as error:
            if _is_gone(error):
                raise NotFound("The recording is gone.") from None
            raise

    def cut(self, job: Job, total: int) -> None:
        """Says into how many parts the recording is cut."""
        self._update(job, "SET #total = :total", {":total": total})

    def hear(self, job: Job, heard: Heard) -> None:
        """Keeps what was heard in a part.

        Not in one transaction with the job: sixteen parts that end together would cancel each other's.
        """
        item = {
            **_part_key(job.id, heard.number),
            "expires": int(self._expiry(_KEPT_UNFINISHED_DAYS)),
            "heard": json.dumps(asdict(heard)),
        }
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
            found += [_heard(item["heard"]) for item in page["Items"]]
            if "LastEvaluatedKey" not in page:
                return found
            asked["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def complete(self, job: Job, transcript: Transcript, entry: str = "") -> None:
        """Stores the transcript, which the ledger has under `entry`, then says so; the recording and the parts go."""
        stored = transcript.to_json()
        self._s3.put_object(Bucket=self._bucket, Key=_transcript_key(job.id), Body=stored)
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
                self._delete_objects(_transcript_key(job.id))
                self.ledger.forget(entry)
            raise
        self._delete_objects(job.key)
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

    def _exists(self, key: str) -> bool:
        from botocore.exceptions import ClientError

        try:
            self._s3.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if _is_gone(error):
                return False
            raise
        return True

    def _delete_objects(self, *keys: str) -> None:
        for key in keys:
            self._s3.delete_object(Bucket=self._bucket, Key=key)

    def _delete_parts(self, identity: str) -> list[Heard]:
        parts = self.heard(identity)
        for heard in parts:
            self.client.delete_item(TableName=self._name, Key=_part_key(identity, heard.number))
        return parts

    def _expiry(self, days: int) -> float:
        return self.clock() + days * _DAY


def identity_of(key: str) -> str:
    """The job that an uploaded object belongs to; empty for an object that cannot be a job's."""
    match = re.fullmatch(r"uploads/([0-9a-f]{32})\.[a-z0-9]{1,5}", key)
    return match[1] if match else ""


def _extension(filename: str) -> str:
    """For whoever looks into the bucket; nothing depends on it."""
    match = re.search(r"\.([A-Za-z0-9]{1,5})$", filename)
    return match[1].lower() if match else "bin"


def _transcript_key(identity: str) -> str:
    return f"transcripts/{identity}.json"


def _job_key(identity: str) -> dict[str, str]:
    return {"pk": f"job#{identity}", "sk": "job"}


def _part_key(identity: str, number: int) -> dict[str, str]:
    return {"pk": f"job#{identity}", "sk": f"part#{number:04}"}


def _is_gone(error: Any) -> bool:
    """Without the right to list the bucket, what is not there is forbidden."""
    return error.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 404)


def _item(job: Job, expires: float) -> dict[str, Any]:
    stored = {**asdict(job), "options": json.dumps(job.options), "expires": int(expires), **_job_key(job.id)}
    return {name: number(value) if isinstance(value, float) else value for name, value in stored.items()}


def _job(item: dict[str, Any]) -> Job:
    kept = {name: item[name] for name in Job.__dataclass_fields__ if name in item}
    kept |= {"options": json.loads(kept["options"]), "entries": tuple(kept["entries"])}
    for name in ("created_at", "lease_until", "seconds_paid", "duration"):
        if kept.get(name) is not None:
            kept[name] = float(kept[name])
    for name in ("done", "total", "attempts"):
        if kept.get(name) is not None:
            kept[name] = int(kept[name])
    return Job(**kept)


def _failed(job: Job, code: str, detail: str) -> Job:
    return replace(job, status="failed", error={"code": code, "detail": detail})


def _heard(stored: str) -> Heard:
    told = json.loads(stored)
    segments = tuple(Segment(**segment) for segment in told["segments"])
    return Heard(**{**told, "segments": segments, "entries": tuple(told["entries"])})
