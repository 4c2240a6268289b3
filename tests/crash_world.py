"""A simulated environment for crash tests, with AWS, an upstream, a caller and a worker.

Every write has a name. After a call to `World.record`, the name of each write is recorded with the
state just before the write. A crash just before the write leaves this state, and `World.restore`
restores it. A crash just after a write leaves the same state as a crash just before the next write.
"""

import time
from collections import Counter, deque
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from io import BytesIO
from math import ceil
from uuid import uuid4

import boto3
import httpx2
from botocore.exceptions import EndpointConnectionError
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.models import botocore_stubber
from moto.dynamodb.models import dynamodb_backends
from moto.s3.models import s3_backends
from moto.sqs.models import sqs_backends

from handler.errors import NotFailed, NotFound
from handler.jobs.job import Caller, Job
from handler.jobs.store import Jobs
from handler.recordings.container import identify
from handler.services import build_services
from handler.steps.pacing import DEFAULT_PACING, Pacing
from handler.worker import Worker
from infra.local.worker import Context, lambda_record
from tests.conftest import TODAY, settings
from tests.fake_upstream import transcript_response
from tests.harness import PACING
from tests.samples import asset, wav

NAME, REGION = "steno", "us-east-1"
QUEUES = {name: f"{NAME}-{name}" for name in ("recordings", "express", "parts")}
WORDS, BILLED_SECONDS = "Ever tried.", 3  # in every upstream response
LONGEST_PART_SECONDS = 26
SHORT_PARTS = replace(PACING, part_seconds=13)  # the minimum that splits LONG into two parts
LONG_PARTS = replace(PACING, part_seconds=30)
_SPEECH = asset("beckett.wav")[44:] * 3
SHORT, LONG = (wav(_SPEECH[: 32_000 * seconds]) for seconds in (4, 26))
_TOO_LONG_BYTES = 350_000
SILENCE, NONSENSE = wav(bytes(128_000)), b"<html>" * 100
OTHER = wav(_SPEECH[32_000 : 32_000 * 6])

_READS = {"GetItem", "Query", "HeadObject", "GetObject", "ListObjectsV2", "GetQueueUrl"}
# Maps a substring of the update expression to the name of the write.
_JOB_UPDATES = {
    "attempts :one": "start the job",
    "attempts = :before": "undo the start",
    "generation = :new": "start the generation",
    "expected = :parts": "store the number of parts",
    "reserved_on = :day": "note the reservation",
    "pieces :pieces": "split the part",
    "ADD saved :part": "add the part",
    "duration = :duration, attempts": "set the total",
    "retries = :retries": "queue the job",
}
# Maps an operation, with the kind of its item or the folder of its object, to a write name.
_WRITES = {
    ("PutItem", "paid"): "store the result",
    ("PutItem", "job"): "create the job",
    ("DeleteItem", "job"): "delete the job",
    ("DeleteItem", "part"): "delete the part",
    ("DeleteItem", "paid"): "delete the result",
    ("UpdateItem", "upstream"): "store the upstream pause",
    ("PutObject", "requests"): "put the recording",
    ("PutObject", "parts"): "put the part audio",
    ("PutObject", "transcripts"): "put the transcript",
    ("DeleteObject", "uploads"): "delete the recording",
    ("DeleteObject", "requests"): "delete the recording",
    ("DeleteObject", "parts"): "delete the part audio",
    ("DeleteObject", "transcripts"): "delete the transcript",
}


def write_name(operation, params):
    """Return the name of a write, or an empty string for a read."""
    if operation in _READS:
        return ""
    if operation == "ChangeMessageVisibility":
        if params["VisibilityTimeout"] == DEFAULT_PACING.claim_seconds:
            return "extend the visibility timeout"
        return "return the message"
    if operation == "SendMessage":
        if '"halve"' in params["MessageBody"]:
            return "send the split request"
        return f"send to {params['QueueUrl'].rpartition('-')[2]}"
    key = params.get("Key") or params["Item"]
    kind = key.partition("/")[0] if isinstance(key, str) else _kind(key)
    if (operation, kind) == ("PutItem", "part"):
        return "save the part" if "heard" in params["Item"] else "count the attempt"
    if (operation, kind) in _WRITES:
        return _WRITES[operation, kind]
    values, change = params["ExpressionAttributeValues"], params["UpdateExpression"]
    if kind == "paid":
        return "claim the part" if "ADD doubt :seconds" in change else "release the claim"
    if kind == "spent":
        return "settle the budget" if "DELETE unsettled" in change else "reserve the budget"
    if ":status" in values:
        return "complete the job" if values[":status"] == "completed" else "fail the job"
    return next(name for part, name in _JOB_UPDATES.items() if part in change)


def _kind(key):
    return "part" if key["sk"].startswith("part") else key["pk"].partition("#")[0]


@dataclass(frozen=True)
class State:
    """The state that remains after a crash. `bills` lists the audio of each billed request."""

    now: float
    pacing: Pacing
    bills: tuple
    unanswered: int
    job: Job | None
    table: dict
    bucket: dict
    queues: dict


class World:
    """The simulated environment: a bucket, three queues, a table, an upstream and a worker."""

    def __init__(self):
        self.s3, self.sqs = boto3.client("s3"), boto3.client("sqs")
        self.queues = {
            name: self.sqs.create_queue(QueueName=queue)["QueueUrl"]
            for name, queue in QUEUES.items()
        }
        self._create_bucket()
        boto3.client("dynamodb").create_table(
            TableName=NAME,
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        urls = {f"{name}_queue_url": url for name, url in self.queues.items()}
        config = settings(bucket_name=NAME, table_name=NAME, daily_seconds=10**9, **urls)
        self.now = 1_800_000_000.0
        self.caller, self.jobs = (Jobs(config, lambda: self.now) for _ in range(2))
        upstream = httpx2.MockTransport(self._respond)
        self._services = build_services(
            config, transport=upstream, today=lambda: TODAY, jobs=self.jobs
        )
        for client in (self.jobs.client, self.jobs.objects.client, self.jobs.queues.sqs):
            client.meta.events.register("provide-client-params", self._before_call)
            client.meta.events.register_first("before-send", self._lose_response)
        self._reset()
        self.bills, self.unanswered, self.job = [], 0, None
        self.use(SHORT_PARTS)
        self.sqs.purge_queue(QueueUrl=self.queues["recordings"])  # removes the test event from S3
        self._initial_state = self._state()

    def _create_bucket(self):
        self.s3.create_bucket(Bucket=NAME)
        arn = self.sqs.get_queue_attributes(
            QueueUrl=self.queues["recordings"], AttributeNames=["QueueArn"]
        )
        uploads = {"Key": {"FilterRules": [{"Name": "prefix", "Value": "uploads/"}]}}
        notification = {
            "QueueArn": arn["Attributes"]["QueueArn"],
            "Events": ["s3:ObjectCreated:*"],
            "Filter": uploads,
        }
        self.s3.put_bucket_notification_configuration(
            Bucket=NAME, NotificationConfiguration={"QueueConfigurations": [notification]}
        )

    def use(self, pacing):
        self._pacing = pacing
        self.worker = Worker.from_services(self._services, pacing)

    def empty(self):
        """Restore the initial state, in which nothing is stored."""
        self.restore(self._initial_state)

    def _reset(self):
        """Discard the recorded writes, and the replies and failures that a test has set up."""
        self.writes, self.states, self._counts, self.is_recording = [], [], Counter(), False
        self.replies, self.outages, self._loses_responses = deque(), 0, False
        self._before = {}

    # States

    def _state(self):
        table, bucket = _table().items, _bucket().keys
        return State(
            self.now,
            self._pacing,
            tuple(self.bills),
            self.unanswered,
            self.job,
            *map(deepcopy, (table, bucket, _queues())),
        )

    def restore(self, state):
        """Restore a state and create a new worker."""
        self._reset()
        self.use(state.pacing)
        self.now, self.bills, self.unanswered, self.job = (
            state.now,
            list(state.bills),
            state.unanswered,
            state.job,
        )
        _table().items, _bucket().keys = deepcopy(state.table), deepcopy(state.bucket)
        for name, messages in deepcopy(state.queues).items():
            _queue(name)._messages = messages

    def record(self):
        """From now on, record the name of each write, and the state before the write."""
        self.is_recording = True

    def lose_responses(self):
        """From now on, lose the first response to each write. The AWS client repeats the write."""
        self._loses_responses = True

    def before(self, write, action):
        """Call `action` once, just before the next write with this name."""
        self._before[write] = action

    def _write(self, write):
        if action := self._before.pop(write, None):
            action()
        if self.is_recording:
            self._counts[write] += 1
            self.writes.append(f"{write} {self._counts[write]}".removesuffix(" 1"))
            self.states.append(self._state())

    def end(self):
        """Stop recording. Return the writes, the state before each write, and the final state."""
        self.is_recording = False
        return self.writes, [*self.states, self._state()]

    def _before_call(self, params, model, **_):
        if self.outages and model.name == "GetObject":
            self.outages -= 1
            raise EndpointConnectionError(endpoint_url="https://s3.example")
        if write := write_name(model.name, params):
            self._write(write)
        self._is_write = bool(write)

    def _lose_response(self, request, **_):
        if self._loses_responses and self._is_write:
            assert botocore_stubber("before-send", request).status_code < 500
            request.reset_stream()

    # Upstream and caller

    def _respond(self, request):
        self._write("call the upstream")
        audio = request.read().partition(b"fLaC")[2].rpartition(b"\r\n--")[0]
        reply = self.replies.popleft() if self.replies else _transcribe(audio)
        if isinstance(reply, httpx2.Response) and reply.is_success:
            self.bills.append(audio)
        elif isinstance(reply, httpx2.ReadTimeout):
            self.unanswered += 1
            raise reply
        return reply

    def upload(self, content, caller=None):
        """Create a job and upload its recording.

        If `caller` is not given, the job belongs to a new caller, who has no stored results yet.
        """
        self.job, _ = self.caller.create("a.wav", "audio/wav", 10**9, {}, caller or _new_caller())
        self.put(content)

    def put(self, content):
        """Store a recording under the job's key, like an upload with the presigned form."""
        self.s3.put_object(Bucket=NAME, Key=self.job.key, Body=content)

    def hand_over(self):
        """Create a job from a request, as the API does if it cannot respond in time."""
        file = BytesIO(SHORT)
        self.job = self.jobs.create_from_request(
            "1" * 32, file, identify(file), {}, Caller("ada", "ada")
        )

    def retry(self):
        self.jobs.retry(self.job.id, self.owner)

    def delete(self):
        self.jobs.delete(self.job.id)

    def forget_bills(self):
        """Clear the bills and the spent budget, so that only later requests are counted."""
        self.bills.clear()
        for item in self._scan():
            if item["pk"].startswith("spent#"):
                self.caller.client.delete_item(
                    TableName=NAME, Key={"pk": item["pk"], "sk": item["sk"]}
                )

    @property
    def owner(self):
        return Caller(self.job.owner, self.job.account)

    @property
    def status(self):
        try:
            return self.caller.get(self.job.id).status
        except NotFound:
            return "deleted"

    def stored(self):
        """Return the stored job, or None if it was deleted."""
        return self.caller.progress.job(self.job.id)

    # Deliveries

    def deliver(self, handle=None):
        """Pass the next message to the worker. Return False if all queues are empty.

        If no message is visible yet, move the clock forward.
        """

        messages = [(message, name) for name, queue in _queues().items() for message in queue]
        if not messages:
            return False
        first, queue = min(messages, key=lambda queued: queued[0].visible_at)
        pause = ceil(first.visible_at / 1000 - time.time())
        self._wait(max(pause, 0), [message for message, _ in messages])
        url = self.queues[queue]
        (message,) = self.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=1, AttributeNames=["ApproximateReceiveCount"]
        )["Messages"]
        event = {"Records": [lambda_record(message, url)]}
        answer = handle(event) if handle else self.worker.handle(event, Context())
        if not answer["batchItemFailures"]:
            self._write("delete the message")
            self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return True

    def _wait(self, seconds, messages):
        self.now += seconds
        for message in messages:
            # `visible_at` is in milliseconds. The extra 1 ms allows for rounding.
            message.visible_at -= seconds * 1000 + 1

    def deliver_dead_letter(self):
        """Have the dead-letter function process the next message."""
        return self.deliver(self.worker.handle_dead_letters)

    def work(self):
        """Deliver messages until all queues are empty."""
        for _ in range(60):
            if not self.deliver():
                return
        raise AssertionError("The queues are not empty after 60 deliveries")

    # Remaining data

    def items(self):
        """Return the keys of all items, except budget items and upstream pauses."""
        keys = [(item["pk"], item["sk"]) for item in self._scan()]
        return [key for key in keys if not key[0].startswith(("spent#", "upstream#"))]

    def objects(self):
        listing = self.s3.list_objects_v2(Bucket=NAME)
        return sorted(stored["Key"] for stored in listing.get("Contents", []))

    def budget(self):
        """Return the number of seconds spent, and the ids of the unsettled reservations."""
        items = [item for item in self._scan() if item["pk"].startswith("spent#")]
        seconds = sum(float(item["seconds"]) for item in items)
        return seconds, set().union(*(item.get("unsettled", ()) for item in items))

    def _scan(self):
        return self.caller.client.scan(TableName=NAME)["Items"]


def _transcribe(audio):
    """Return the upstream's response. The text is truncated if the audio exceeds about 20 s."""
    if len(audio) < _TOO_LONG_BYTES:
        return transcript_response(WORDS)
    details = {"audio_tokens": 10 * BILLED_SECONDS}
    usage = {
        "type": "tokens",
        "input_tokens": 30,
        "output_tokens": 2000,
        "input_token_details": details,
    }
    return httpx2.Response(200, json={"text": "Ever", "usage": usage})


def repeat(action):
    """Repeat a request, as a caller does if no response arrives."""
    with suppress(NotFailed, NotFound):  # raised if the first request succeeded
        action()


def _new_caller():
    name = uuid4().hex
    return Caller(name, name)


def _table():
    return dynamodb_backends[DEFAULT_ACCOUNT_ID][REGION].tables[NAME]


def _bucket():
    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[NAME]


def _queue(name):
    return sqs_backends[DEFAULT_ACCOUNT_ID][REGION].queues[QUEUES[name]]


def _queues():
    """Return the messages in each queue, in the order of QUEUES."""
    return {name: _queue(name)._messages for name in QUEUES}
