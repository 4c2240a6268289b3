"""A world in which processes die: AWS in this process, an upstream, a caller, and the engine.

Every write has a name. `World.record` notes the writes from there on, each with the state just
before it. This state is what a process that dies before the write leaves behind, and `World.restore`
goes back to it. A death just after a write leaves the same state as one just before the next.
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
from infra.local.worker import Context, record_of
from tests.conftest import TODAY, settings
from tests.false_upstream import heard
from tests.place import PACING
from tests.samples import asset, wav

NAME, REGION = "steno", "us-east-1"
QUEUES = {name: f"{NAME}-{name}" for name in ("recordings", "express", "parts")}
WORDS, BILLED_SECONDS = "Ever tried.", 3  # of every answer
LONGEST_PART_SECONDS = 26
SHORT_PARTS = replace(PACING, part_seconds=13)  # the shortest of which the long recording makes two
LONG_PARTS = replace(PACING, part_seconds=30)
_SPEECH = asset("beckett.wav")[44:] * 3
SHORT, LONG = (wav(_SPEECH[: 32_000 * seconds]) for seconds in (4, 26))
_TOO_LONG_BYTES = 350_000
SILENCE, NONSENSE = wav(bytes(128_000)), b"<html>" * 100
OTHER = wav(_SPEECH[32_000 : 32_000 * 6])

_READS = {"GetItem", "Query", "HeadObject", "GetObject", "ListObjectsV2", "GetQueueUrl"}
_CHANGES_OF_A_JOB = {  # by what is in the expression
    "attempts :one": "begin the job",
    "attempts = :before": "undo the beginning",
    "generation = :new": "start the generation",
    "expected = :parts": "expect the parts",
    "reserved_on = :day": "note the reservation",
    "pieces :pieces": "split the part",
    "ADD saved :part": "add the part",
    "duration = :duration, attempts": "set the total",
    "retries = :retries": "queue the job",
}
_OTHERS = {
    ("PutItem", "paid"): "keep the answer",
    ("PutItem", "job"): "create the job",
    ("DeleteItem", "job"): "delete the job",
    ("DeleteItem", "part"): "delete the part",
    ("DeleteItem", "paid"): "forget the answer",
    ("UpdateItem", "upstream"): "slow down",
    ("PutObject", "requests"): "put the recording",
    ("PutObject", "parts"): "put the sound",
    ("PutObject", "transcripts"): "put the transcript",
    ("DeleteObject", "uploads"): "delete the recording",
    ("DeleteObject", "requests"): "delete the recording",
    ("DeleteObject", "parts"): "delete the sound",
    ("DeleteObject", "transcripts"): "delete the transcript",
}


def write_of(operation, params):
    """The name of a write; empty for a read."""
    if operation in _READS:
        return ""
    if operation == "ChangeMessageVisibility":
        return (
            "hold the message"
            if params["VisibilityTimeout"] == DEFAULT_PACING.claim_seconds
            else "give the message back"
        )
    if operation == "SendMessage":
        if '"halve"' in params["MessageBody"]:
            return "send the halving"
        return f"send to {params['QueueUrl'].rpartition('-')[2]}"
    key = params.get("Key") or params["Item"]
    kind = key.partition("/")[0] if isinstance(key, str) else _kind(key)
    if (operation, kind) == ("PutItem", "part"):
        return "save the part" if "heard" in params["Item"] else "note the try"
    if (operation, kind) in _OTHERS:
        return _OTHERS[operation, kind]
    values, change = params["ExpressionAttributeValues"], params["UpdateExpression"]
    if kind == "paid":
        return "claim the part" if "ADD doubt :seconds" in change else "release the claim"
    if kind == "spent":
        return "settle the budget" if "DELETE unsettled" in change else "reserve the budget"
    if ":status" in values:
        return "complete the job" if values[":status"] == "completed" else "fail the job"
    return next(name for part, name in _CHANGES_OF_A_JOB.items() if part in change)


def _kind(key):
    return "part" if key["sk"].startswith("part") else key["pk"].partition("#")[0]


@dataclass(frozen=True)
class State:
    """What outlasts a process. `bills` are the parts that the upstream has answered."""

    now: float
    pacing: Pacing
    bills: tuple
    unanswered: int
    job: Job | None
    table: dict
    bucket: dict
    queues: dict


class World:
    """A bucket, three queues, a table, an upstream, and the processes that use them in turn."""

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
        chosen = settings(bucket_name=NAME, table_name=NAME, daily_seconds=10**9, **urls)
        self.now = 1_800_000_000.0
        self.caller, self.jobs = (Jobs(chosen, lambda: self.now) for _ in range(2))
        upstream = httpx2.MockTransport(self._answer)
        self._services = build_services(
            chosen, transport=upstream, today=lambda: TODAY, jobs=self.jobs
        )
        for client in (self.jobs.client, self.jobs.objects.client, self.jobs.queues.sqs):
            client.meta.events.register("provide-client-params", self._before_call)
            client.meta.events.register_first("before-send", self._lose_response)
        self._forget()
        self.bills, self.unanswered, self.job = [], 0, None
        self.use(SHORT_PARTS)
        self.sqs.purge_queue(QueueUrl=self.queues["recordings"])  # of the bucket's test event
        self._blank = self._state()

    def _create_bucket(self):
        self.s3.create_bucket(Bucket=NAME)
        arn = self.sqs.get_queue_attributes(
            QueueUrl=self.queues["recordings"], AttributeNames=["QueueArn"]
        )
        uploads = {"Key": {"FilterRules": [{"Name": "prefix", "Value": "uploads/"}]}}
        notified = {
            "QueueArn": arn["Attributes"]["QueueArn"],
            "Events": ["s3:ObjectCreated:*"],
            "Filter": uploads,
        }
        self.s3.put_bucket_notification_configuration(
            Bucket=NAME, NotificationConfiguration={"QueueConfigurations": [notified]}
        )

    def use(self, pacing):
        self._pacing = pacing
        self.worker = Worker.of(self._services, pacing)

    def empty(self):
        """Begin anew, with nothing stored."""
        self.restore(self._blank)

    def _forget(self):
        """What does not outlast the process, and what was to go wrong in the world around it."""
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
        """Go back to a state, in which no process is at work."""
        self._forget()
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
        """Note the writes from here on by their names, and the states before them."""
        self.is_recording = True

    def lose_responses(self):
        """From here on, the response to each write is lost once, and AWS's client makes the call again."""
        self._loses_responses = True

    def before(self, write, action):
        """Do something before a write that comes later."""
        self._before[write] = action

    def _write(self, write):
        if action := self._before.pop(write, None):
            action()
        if self.is_recording:
            self._counts[write] += 1
            self.writes.append(f"{write} {self._counts[write]}".removesuffix(" 1"))
            self.states.append(self._state())

    def end(self):
        """Stop recording. The last state is that after the last write."""
        self.is_recording = False
        return self.writes, [*self.states, self._state()]

    def _before_call(self, params, model, **_):
        if self.outages and model.name == "GetObject":
            self.outages -= 1
            raise EndpointConnectionError(endpoint_url="https://s3.example")
        if write := write_of(model.name, params):
            self._write(write)
        self._is_write = bool(write)

    def _lose_response(self, request, **_):
        if self._loses_responses and self._is_write:
            assert botocore_stubber("before-send", request).status_code < 500
            request.reset_stream()

    # The world around the engine

    def _answer(self, request):
        self._write("ask the upstream")
        sound = request.read().partition(b"fLaC")[2].rpartition(b"\r\n--")[0]
        reply = self.replies.popleft() if self.replies else _heard(sound)
        if isinstance(reply, httpx2.Response) and reply.is_success:
            self.bills.append(sound)
        elif isinstance(reply, httpx2.ReadTimeout):
            self.unanswered += 1
            raise reply
        return reply

    def upload(self, content, caller=None):
        """A job whose recording has arrived; of a caller who has not paid for anything yet, if none is given."""
        self.job, _ = self.caller.create("a.wav", "audio/wav", 10**9, {}, caller or _new_caller())
        self.put(content)

    def put(self, content):
        """Use the form of the upload, again if it was used before."""
        self.s3.put_object(Bucket=NAME, Key=self.job.key, Body=content)

    def hand_over(self):
        """What the API does with a request that it cannot answer in time."""
        file = BytesIO(SHORT)
        self.job = self.jobs.create_from_request(
            "1" * 32, file, identify(file), {}, Caller("ada", "ada")
        )

    def retry(self):
        self.jobs.retry(self.job.id, self.owner)

    def delete(self):
        self.jobs.delete(self.job.id)

    def forget_bills(self):
        """Count only what is billed from here on."""
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
        """The job as it is stored; None if it was deleted."""
        return self.caller.progress.job(self.job.id)

    # Deliveries

    def deliver(self, handle=None):
        """Give the engine the message that is visible first, after a pause if all are held. False if there is none."""
        messages = [(message, name) for name, queue in _queues().items() for message in queue]
        if not messages:
            return False
        first, queue = min(messages, key=lambda found: found[0].visible_at)
        pause = ceil(first.visible_at / 1000 - time.time())
        self._wait(max(pause, 0), [message for message, _ in messages])
        url = self.queues[queue]
        (message,) = self.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=1, AttributeNames=["ApproximateReceiveCount"]
        )["Messages"]
        event = {"Records": [record_of(message, url)]}
        answer = handle(event) if handle else self.worker.handle(event, Context())
        if not answer["batchItemFailures"]:
            self._write("delete the message")
            self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return True

    def _wait(self, seconds, messages):
        self.now += seconds
        for message in messages:
            message.visible_at -= seconds * 1000 + 1  # the clock of the queues has milliseconds

    def deliver_dead_letter(self):
        """Give the engine the next message as a dead letter."""
        return self.deliver(self.worker.handle_dead_letters)

    def work(self):
        """Deliver messages until there are none."""
        for _ in range(60):
            if not self.deliver():
                return
        raise AssertionError("messages come again and again")

    # What is left

    def items(self):
        """The keys of all items, without those of the budget and of the pauses."""
        found = [(item["pk"], item["sk"]) for item in self._scan()]
        return [key for key in found if not key[0].startswith(("spent#", "upstream#"))]

    def objects(self):
        return sorted(
            found["Key"] for found in self.s3.list_objects_v2(Bucket=NAME).get("Contents", [])
        )

    def budget(self):
        """The seconds that are spent, and the reservations that are not settled."""
        items = [item for item in self._scan() if item["pk"].startswith("spent#")]
        seconds = sum(float(item["seconds"]) for item in items)
        return seconds, set().union(*(item.get("unsettled", ()) for item in items))

    def _scan(self):
        return self.caller.client.scan(TableName=NAME)["Items"]


def _heard(sound):
    """What the upstream answers. Of more than twenty seconds, the answer is as long as it can be, and is cut off."""
    if len(sound) < _TOO_LONG_BYTES:
        return heard(WORDS)
    details = {"audio_tokens": 10 * BILLED_SECONDS}
    usage = {
        "type": "tokens",
        "input_tokens": 30,
        "output_tokens": 2000,
        "input_token_details": details,
    }
    return httpx2.Response(200, json={"text": "Ever", "usage": usage})


def repeat(action):
    """What a caller who got no response does: the same again."""
    with suppress(NotFailed, NotFound):  # it was done
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
    """The messages of all queues, those of the first to be delivered first."""
    return {name: _queue(name)._messages for name in QUEUES}
