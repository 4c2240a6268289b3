"""A discrete-event simulation of SQS and Lambda in one process, for tests with many jobs.

Simulation  a clock that jumps from event to event, and the activities that use the clock
FakeSQS     fair queues that can duplicate, delay and reorder messages, and a dead-letter queue
Simulated   a deployment of Steno with these queues, a fake upstream, a table in moto, and a
            bucket in memory
"""

import heapq
import itertools
import json
import math
import random
import threading
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from types import SimpleNamespace
from uuid import uuid4

import boto3
import httpx2
import pytest
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.dynamodb.exceptions import ConditionalCheckFailed
from moto.dynamodb.models import dynamodb_backends

from handler.jobs.job import Caller
from handler.jobs.parts import PartMessage
from handler.jobs.queues import Queues
from handler.jobs.store import Jobs
from handler.recordings.speech_activity import SAMPLE_RATE
from handler.services import build_services
from handler.steps.pacing import DEFAULT_PACING
from handler.worker import Worker
from infra.local.worker import Context
from tests.conftest import TODAY, settings
from tests.fake_upstream import error_response, transcript_response

NOON = datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC).timestamp()
RECORDINGS, PARTS, EXPRESS = QUEUES = ("recordings", "parts", "express")
DEAD_LETTERS = "dead-letters"
# The stack's default. The `express` queue gets half of it, and `recordings` a quarter.
CONCURRENCY = 16
MAX_DELIVERIES = 200  # the same as in the stack
_VISIBILITY_SECONDS = 420.0
_REJECTION_SECONDS = 0.1
# Steps use the real clock to renew their claims, so a claim must last longer than any simulated
# delivery.
_CLAIM_SECONDS = 3600.0
_ARN = "arn:aws:sqs:us-east-1:000000000000:"


class Simulation:
    """A simulated clock and its activities. Only one activity runs at a time. The others wait.

    Each activity is a thread, so that Steno's own code can run in many activities concurrently.
    The order of events depends only on the simulated clock, not on the speed of the machine.
    """

    def __init__(self, now=NOON):
        self.now = self.began = now
        self._agenda = []
        self._numbers = itertools.count()
        self._paused = threading.Semaphore(0)
        self._failures = []

    def clock(self):
        return self.now

    def after(self, seconds, action):
        heapq.heappush(self._agenda, (self.now + seconds, next(self._numbers), action))

    def run(self, seconds=math.inf, *, done=lambda: False):
        """Run for `seconds`, but stop early if no events are left or `done` returns true."""
        until = self.now + seconds
        while self._agenda and self._agenda[0][0] <= until and not done():
            self.now, _, action = heapq.heappop(self._agenda)
            action()
            if self._failures:
                raise self._failures[0]
        if until < math.inf and not done():
            self.now = until

    def begin(self, activity):
        """Start an activity, and run it until it calls `take` or ends."""

        def work():
            try:
                activity()
            except BaseException as error:
                self._failures.append(error)
            finally:
                self._paused.release()

        threading.Thread(target=work, daemon=True).start()
        self._paused.acquire()

    def take(self, seconds):
        """Pause the calling activity for `seconds` of simulated time."""
        resumed = threading.Event()

        def resume():
            resumed.set()
            self._paused.acquire()

        self.after(seconds, resume)
        self._paused.release()
        resumed.wait()


@dataclass
class _Copy:
    """A stored copy of an SQS message. A queue may contain several copies of a message.

    `chain` lists the queues of the earlier messages whose processing led to this message.
    """

    message_id: str
    body: str
    group: str
    chain: tuple
    number: int
    visible_at: float
    deliveries: int = 0
    receipt: str = ""

    def is_in_flight(self, now):
        return bool(self.receipt) and self.visible_at > now


@dataclass
class _Share:
    """The recent processing time of a message group.

    The weight of earlier processing time halves every `half_life` seconds.
    """

    half_life: float = 60.0
    seconds: float = 0.0
    _since: float = 0.0

    def add(self, in_flight, now):
        """Record that `in_flight` messages were in flight between the last call and `now`."""
        left = 0.5 ** ((now - self._since) / self.half_life)
        self.seconds = self.seconds * left + in_flight * (1 - left) * self.half_life / math.log(2)
        self._since = now


class _Queue:
    """The messages in one queue. If `rng` is given, messages are received in random order."""

    def __init__(self, name, simulation, visibility, move_to_dead_letters, rng=None):
        self.name = name
        self.copies = {}
        self.most_deliveries = 0
        self._move_to_dead_letters = move_to_dead_letters
        self._simulation = simulation
        self._visibility = visibility
        self._rng = rng
        self._shares = defaultdict(_Share)

    def add(self, copy):
        self.copies[copy.number] = copy

    def receive(self):
        """Return the next message and mark it as in flight, or return None if none is visible."""
        while copy := self._next():
            if copy.deliveries < MAX_DELIVERIES:
                break
            self._move_to_dead_letters(self.copies.pop(copy.number))
        if copy is None:
            return None
        self._count()
        copy.deliveries += 1
        self.most_deliveries = max(self.most_deliveries, copy.deliveries)
        copy.receipt = f"{copy.number} {copy.deliveries}"
        copy.visible_at = self._simulation.now + self._visibility
        return copy

    def of(self, receipt):
        """Return the message with this receipt, or None if it was deleted or received again."""
        copy = self.copies.get(int(receipt.partition(" ")[0]))
        return copy if copy and copy.receipt == receipt else None

    def hide(self, copy, seconds):
        self._count()
        copy.visible_at = self._simulation.now + seconds

    def delete(self, copy):
        self._count()
        del self.copies[copy.number]

    def _in_flight(self):
        return Counter(
            copy.group for copy in self.copies.values() if copy.is_in_flight(self._simulation.now)
        )

    def _count(self):
        """Update the processing time of each message group."""
        in_flight = self._in_flight()
        for group in {*in_flight, *self._shares}:
            self._shares[group].add(in_flight[group], self._simulation.now)

    def _next(self):
        """Return the message that an SQS fair queue delivers next.

        Messages of groups that are not noisy are delivered first.

        https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues-detailed.html
        """
        now = self._simulation.now
        visible = [copy for copy in self.copies.values() if copy.visible_at <= now]
        if not visible:
            return None
        self._count()
        in_flight, all_seconds = (
            self._in_flight(),
            sum(share.seconds for share in self._shares.values()),
        )
        all_in_flight = in_flight.total()

        def is_noisy(group):
            count = in_flight[group]
            if count >= 30 and count > 0.1 * all_in_flight:
                return True
            return self._shares[group].seconds > 0.1 * all_seconds

        ranks = {
            group: (1, in_flight[group]) if is_noisy(group) else (0, 0)
            for group in {c.group for c in visible}
        }
        best = min(ranks.values())
        first = [copy for copy in visible if ranks[copy.group] == best]
        if self._rng:
            return self._rng.choice(first)
        return min(first, key=lambda copy: (copy.visible_at, copy.number))


class MessageNotInflight(Exception):
    pass


class ReceiptHandleIsInvalid(Exception):
    pass


class FakeSQS:
    """A replacement for the SQS client in handler.jobs.queues and handler.jobs.messages.

    Each message is stored `copies` times, and each copy is deleted separately. Half of the copies
    are delayed by up to `late` seconds. If `disorder` is true, messages are received in random
    order.
    """

    exceptions = SimpleNamespace(
        MessageNotInflight=MessageNotInflight, ReceiptHandleIsInvalid=ReceiptHandleIsInvalid
    )

    def __init__(self, simulation, *, copies=1, late=0.0, disorder=False, seed=1):
        rng = self._rng = random.Random(seed)
        visibility = _VISIBILITY_SECONDS
        self.queues = {
            name: _Queue(
                name, simulation, visibility, self._move_to_dead_letters, rng if disorder else None
            )
            for name in (*QUEUES, DEAD_LETTERS)
        }
        self.dead = []
        self._simulation = simulation
        self._copies = copies
        self._late = late
        self._numbers = itertools.count()
        self._sources = {}
        self._thread = threading.local()

    def connect(self, name, handle, concurrency):
        """Call `handle` with each message in a queue, up to `concurrency` messages at a time."""
        self._sources[name] = _Source(
            self, self.queues[name], self._simulation, handle, concurrency
        )

    def get_queue_url(self, *, QueueName):  # noqa: N803 - boto3's parameter name
        return {"QueueUrl": QueueName}

    def send_message(self, *, QueueUrl, MessageBody, MessageGroupId=""):  # noqa: N803 - as in boto3
        message_id = uuid4().hex
        chain = getattr(self._thread, "chain", ())
        for _ in range(self._copies):
            late = self._rng.choice((0.0, self._rng.uniform(0, self._late)))
            number = next(self._numbers)
            group = MessageGroupId or message_id
            copy = _Copy(message_id, MessageBody, group, chain, number, self._simulation.now + late)
            self.queues[QueueUrl].add(copy)
            self._poll_after(QueueUrl, late)
        return {"MessageId": message_id}

    def change_message_visibility(self, *, QueueUrl, ReceiptHandle, VisibilityTimeout):  # noqa: N803 - as in boto3
        copy = self.queues[QueueUrl].of(ReceiptHandle)
        if copy is None:
            raise ReceiptHandleIsInvalid
        if not copy.is_in_flight(self._simulation.now):
            raise MessageNotInflight
        self.queues[QueueUrl].hide(copy, VisibilityTimeout)
        self._poll_after(QueueUrl, VisibilityTimeout)

    def delete_message(self, *, QueueUrl, ReceiptHandle):  # noqa: N803 - as in boto3
        if copy := self.queues[QueueUrl].of(ReceiptHandle):
            self.queues[QueueUrl].delete(copy)

    def _move_to_dead_letters(self, copy):
        self.dead.append(copy)
        self.queues[DEAD_LETTERS].add(replace(copy, deliveries=0, receipt=""))
        self._poll_after(DEAD_LETTERS, 0)

    def _poll_after(self, name, seconds):
        self._simulation.after(seconds, self._sources[name].poll)

    def deliver(self, queue, copy, handle):
        """Call `handle` with one message. Delete the message if `handle` succeeds."""
        self._thread.chain = (*copy.chain, queue.name)
        receipt = copy.receipt
        record = {
            "messageId": copy.message_id,
            "receiptHandle": receipt,
            "body": copy.body,
            "attributes": {"ApproximateReceiveCount": str(copy.deliveries)},
            "eventSource": "aws:sqs",
            "eventSourceARN": _ARN + queue.name,
        }
        if not handle({"Records": [record]})["batchItemFailures"]:
            self.delete_message(QueueUrl=queue.name, ReceiptHandle=receipt)

    @property
    def most_deliveries(self):
        """Return the maximum number of times that any message was delivered."""
        return max(queue.most_deliveries for queue in self.queues.values())

    @property
    def longest_chain(self):
        """Return the maximum number of calls to one function in any chain of messages.

        In a chain, each message is sent while the previous message is processed.
        """

        return max(source.longest_chain for source in self._sources.values())


class _Source:
    """An event source mapping that calls a function with the messages in a queue."""

    def __init__(self, sqs, queue, simulation, handle, concurrency):
        self.deliveries = 0
        self.longest_chain = 0
        self._sqs = sqs
        self._queue = queue
        self._simulation = simulation
        self._handle = handle
        self._free = concurrency

    def poll(self):
        while self._free and (copy := self._queue.receive()):
            self._free -= 1
            self.deliveries += 1
            self.longest_chain = max(self.longest_chain, 1 + copy.chain.count(self._queue.name))
            self._simulation.after(copy.visible_at - self._simulation.now, self.poll)
            self._simulation.begin(lambda copy=copy: self._work(copy))

    def _work(self, copy):
        try:
            self._sqs.deliver(self._queue, copy, self._handle)
        finally:
            self._free += 1
            self._simulation.after(0, self.poll)


class FixedWindow:
    """A rate limiter that allows `limit` requests in each minute of the simulated clock."""

    def __init__(self, limit=60):
        self.limit = limit
        self._admitted = Counter()

    def wait(self, now):
        """Return 0 if a request is allowed now. Otherwise, return the number of seconds to wait."""
        window, into = divmod(now, 60)
        if self._admitted[window] == self.limit:
            return 60 - into
        self._admitted[window] += 1
        return 0


class TokenBucket:
    """A rate limiter that allows `limit` requests per minute, in bursts of up to `size`."""

    def __init__(self, limit=60, size=10):
        self.limit = limit
        self._size = self._tokens = size
        self._since = 0.0

    def wait(self, now):
        """Return 0 if a request is allowed now. Otherwise, return the number of seconds to wait."""
        self._tokens = min(self._size, self._tokens + (now - self._since) * self.limit / 60)
        self._since = now
        if self._tokens < 1:
            return (1 - self._tokens) * 60 / self.limit
        self._tokens -= 1
        return 0


class Upstream(httpx2.MockTransport):
    """An upstream that takes `seconds` to respond, and returns 429 if its rate limit is exceeded.

    `answered` contains the arrival times of accepted requests, and `refused` contains the arrival
    times of rejected requests. `recordings` counts the accepted requests for each recording.
    """

    def __init__(self, simulation, *, seconds=1.0, limiter=None, retry_after=True):
        super().__init__(self._handle)
        self.answered, self.refused, self.recordings = [], [], Counter()
        self.reply = lambda _content: transcript_response("Ever tried.")
        self._simulation = simulation
        self._seconds = seconds
        self._limiter = limiter
        self._retry_after = retry_after

    def _handle(self, request):
        content = request.read().partition(b"fLaC")[2].rpartition(b"\r\n--")[0]
        now = self._simulation.now
        if self._limiter and (wait := self._limiter.wait(now)):
            self.refused.append(now)
            self._simulation.take(_REJECTION_SECONDS)
            return error_response(
                429, **({"retry_after": str(math.ceil(wait))} if self._retry_after else {})
            )
        self._simulation.take(self._seconds)
        reply = self.reply(content)
        if reply.status_code == 200:
            self.answered.append(now)
            self.recordings[content] += 1
        return reply

    def after(self, seconds):
        """Return the numbers of accepted and rejected requests after the first `seconds`."""
        start = self._simulation.began + seconds
        return tuple(sum(at >= start for at in times) for times in (self.answered, self.refused))


class Simulated:
    """A simulated deployment of Steno. An AWS call takes about `aws_seconds`.

    `queues` contains arguments for FakeSQS, `caps` contains budget settings, and `upstream`
    contains arguments for Upstream. `out` is the set of AWS services that are down. `completed`
    counts how often each job was completed, and `completed_at` is the time of its last completion.
    """

    def __init__(
        self,
        *,
        concurrency=CONCURRENCY,
        pacing=DEFAULT_PACING,
        aws_seconds=0.01,
        queues=None,
        caps=None,
        **upstream,
    ):
        self.simulation = Simulation()
        self.sqs = FakeSQS(self.simulation, **(queues or {}))
        self.upstream = Upstream(self.simulation, **upstream)
        name = f"steno-{uuid4().hex}"
        _create_table(name)
        self.bucket = {}
        urls = {
            "recordings_queue_url": RECORDINGS,
            "parts_queue_url": PARTS,
            "express_queue_url": EXPRESS,
        }
        self._settings = settings(bucket_name=name, table_name=name, **urls, **(caps or {}))
        self.out, self.failures = set(), Counter()
        self.completed, self.completed_at = Counter(), {}
        self._aws_seconds, self._rng = aws_seconds, random.Random(1)
        self.caller, worker_jobs = self._jobs(), self._worker_jobs()
        services = build_services(
            self._settings, transport=self.upstream, today=lambda: TODAY, jobs=worker_jobs
        )
        worker = Worker.from_services(
            services, replace(pacing, claim_seconds=_CLAIM_SECONDS), self.simulation.take
        )
        limits = (max(2, concurrency // 4), concurrency, max(2, concurrency // 2))
        for queue, limit in zip(QUEUES, limits, strict=True):
            self.sqs.connect(queue, lambda event: worker.handle(event, Context()), limit)
        self.sqs.connect(DEAD_LETTERS, worker.handle_dead_letters, 2)

    def _jobs(self):
        jobs = Jobs(self._settings, self.simulation.clock)
        jobs.queues = Queues(lambda: self.sqs, *QUEUES)
        jobs.objects.client = _Bucket(self.bucket)
        return jobs

    def _worker_jobs(self):
        """Return the worker's job store. Its AWS calls take simulated time and can fail."""
        jobs = self._jobs()
        jobs.client = _Table(jobs.client, self._call, self._ended)
        jobs.objects.client = _Bucket(self.bucket, self._call)
        return jobs

    def _call(self, service):
        """Simulate an AWS call. It takes some time, or fails if its service is down."""
        if service in self.out:
            self.failures[service] += 1
            raise EndpointConnectionError(endpoint_url=f"https://{service}.example")
        if self._aws_seconds:
            self.simulation.take(self._rng.uniform(0.5, 1.5) * self._aws_seconds)

    def _ended(self, job_id, status):
        if status == "completed":
            self.completed[job_id] += 1
            self.completed_at[job_id] = self.simulation.now

    def run(self, seconds=math.inf, **options):
        self.simulation.run(seconds, **options)

    def seconds_until_completed(self, job):
        """Run until the job is completed. Return how many simulated seconds this took."""
        began = self.simulation.now
        self.run(done=lambda: job.id in self.completed)
        return self.completed_at[job.id] - began

    def upload(self, content, caller=None):
        """Create a job and put its recording into the bucket."""
        caller = caller or new_caller()
        job, _ = self.caller.create("a.wav", "audio/wav", 10**9, {}, caller)
        self.bucket[job.key] = content
        self.announce(job)
        return job

    def announce(self, job):
        """Send the S3 event notification for a job's recording."""
        event = {"Records": [{"s3": {"object": {"key": job.key}}}]}
        self.sqs.send_message(QueueUrl=RECORDINGS, MessageBody=json.dumps(event))

    def cut(self, parts, caller=None, seconds=300):
        """Create a job whose recording is already cut, and queue its parts, each `seconds` long."""
        caller, jobs = caller or new_caller(), self.caller
        job, _ = jobs.create("a.wav", "audio/wav", 10**9, {}, caller)
        self.bucket[job.key] = b"recording"
        job = jobs.progress.start_generation(
            jobs.progress.begin_attempt(job.key), "generation", uuid4().hex
        )
        jobs.progress.set_total(job, parts, parts * seconds)
        for number in range(parts):
            part = PartMessage(
                job=job.id,
                generation="generation",
                entry=uuid4().hex,
                number=number,
                start=number * seconds * SAMPLE_RATE,
                samples=seconds * SAMPLE_RATE,
                timeline=((0, number * seconds),),
            )
            self.bucket[part.key] = b"fLaC" + uuid4().bytes
            jobs.queues.send_part(part, caller.account, express=False)
        return job

    def status(self, job):
        return self.caller.get(job.id).status

    def text(self, job):
        return self.caller.transcript(self.caller.get(job.id)).text

    def items(self, job):
        """Return the sort keys of all items that belong to a job."""
        return [item["sk"] for item in self._all_items() if job.id in item["pk"]]

    def spent(self):
        """Return the budget item that counts the seconds spent by all callers in one day."""
        (item,) = (item for item in self._all_items() if item["sk"] == "all")
        return item

    def _all_items(self):
        return self.caller.client.scan(TableName=self._settings.table_name)["Items"]

    def objects(self, job):
        return [key for key in self.bucket if job.id in key]


class _Table:
    """A DynamoDB client that calls moto's backend directly, which is faster than using boto3.

    `begin` is called before each operation, and `ended` is called with the id and status of each
    job that has ended.
    """

    def __init__(self, client, begin, ended):
        self.exceptions = client.exceptions
        self._client = client
        self._begin = begin
        self._ended = ended
        self._backend = dynamodb_backends[DEFAULT_ACCOUNT_ID][client.meta.region_name]

    def get_item(self, **call):
        self._begin("dynamodb")
        item = self._backend.get_item(call["TableName"], _typed(call["Key"]))
        return {"Item": _untyped(item)} if item else {}

    def put_item(self, **call):
        self._begin("dynamodb")
        self._backend.put_item(call["TableName"], _typed(call["Item"]))

    def update_item(self, **call):
        self._begin("dynamodb")
        key, values, wanted = (
            _typed(call["Key"]),
            call["ExpressionAttributeValues"],
            call.get("ReturnValues"),
        )
        old = self._backend.get_item(call["TableName"], key)
        attributes = _untyped(old) if old and wanted == "ALL_OLD" else {}
        with self._conditional("UpdateItem"):
            new = self._backend.update_item(
                call["TableName"],
                key,
                update_expression=call["UpdateExpression"],
                expression_attribute_names=call.get("ExpressionAttributeNames", {}),
                expression_attribute_values=_typed(values),
                condition_expression=call.get("ConditionExpression"),
            )
        if ":status" in values:
            self._ended(call["Key"]["pk"].partition("#")[2], values[":status"])
        return {"Attributes": _untyped(new) if wanted == "ALL_NEW" else attributes}

    def query(self, **call):
        self._begin("dynamodb")
        return self._client.query(**call)

    def delete_item(self, **call):
        self._begin("dynamodb")
        values = call.get("ExpressionAttributeValues")
        with self._conditional("DeleteItem"):
            self._backend.delete_item(
                call["TableName"],
                _typed(call["Key"]),
                call.get("ExpressionAttributeNames"),
                values and _typed(values),
                call.get("ConditionExpression"),
            )

    @contextmanager
    def _conditional(self, operation):
        try:
            yield
        except ConditionalCheckFailed:
            error = {"Error": {"Code": "ConditionalCheckFailedException", "Message": ""}}
            raise self.exceptions.ConditionalCheckFailedException(error, operation) from None


class _Bucket:
    """An S3 client that keeps `objects` in memory. `begin` is called before each operation."""

    def __init__(self, objects, begin=lambda _service: None):
        self._objects = objects
        self._begin = begin

    def generate_presigned_post(self, *_, **__):
        return {}

    def put_object(self, **call):
        self._begin("s3")
        self._objects[call["Key"]] = (
            call["Body"] if isinstance(call["Body"], bytes) else call["Body"].read()
        )

    def download_fileobj(self, _bucket, key, target):
        self._begin("s3")
        target.write(self._get(key, "HeadObject"))

    def get_object(self, **call):
        self._begin("s3")
        return {"Body": BytesIO(self._get(call["Key"], "GetObject"))}

    def head_object(self, **call):
        self._begin("s3")
        self._get(call["Key"], "HeadObject")

    def delete_object(self, **call):
        self._begin("s3")
        self._objects.pop(call["Key"], None)

    def get_paginator(self, _operation):
        return self

    def paginate(self, **call):
        self._begin("s3")
        yield {
            "Contents": [{"Key": key} for key in self._objects if key.startswith(call["Prefix"])]
        }

    def _get(self, key, operation):
        if key not in self._objects:
            error = {"Error": {"Code": "404"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
            raise ClientError(error, operation)
        return self._objects[key]


def _typed(item):
    return {name: TypeSerializer().serialize(value) for name, value in item.items()}


def _untyped(item):
    return {
        name: TypeDeserializer().deserialize(value)
        for name, value in item.to_json()["Attributes"].items()
    }


def new_caller():
    name = uuid4().hex
    return Caller(name, name)


def _create_table(name):
    keys = ("pk", "HASH"), ("sk", "RANGE")
    boto3.client("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in keys],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key, _ in keys],
        BillingMode="PAY_PER_REQUEST",
    )


@contextmanager
def aws_in_process():
    """Emulate S3, SQS and DynamoDB in this process with moto."""
    with pytest.MonkeyPatch.context() as environment, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield
