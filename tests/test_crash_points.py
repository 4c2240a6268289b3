"""A worker dies between every two of its writes, and another one gets its message: no recording is
lost, no job is stuck, and nothing is billed twice but the request that was in flight.

Every write has a name. In each test one worker dies just before a write, or after the last one. A
death just after a write leaves the same state as one just before the next; `--soak` tries both.
Another test compares the names with the writes of a run without a crash, so that none is left out.
"""

import threading
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from uuid import uuid4

import boto3
import httpx2
import pytest
from botocore.exceptions import EndpointConnectionError
from moto import mock_aws

from handler.dead_letters import DeadLetters
from handler.job import Caller
from handler.jobs import LEASE_SECONDS, Jobs
from handler.wiring import Wiring
from handler.worker import HAND_ON_SECONDS, Worker
from infra.local_worker import Context
from tests.conftest import TODAY, settings
from tests.place import ARN, PACING
from tests.recordings import asset, wav
from tests.upstream import heard, refused

NAME = ARN.rpartition(":")[2]
SPEECH = asset("beckett.wav")[44:] * 3
RECORDINGS = {1: wav(SPEECH[: 32_000 * 2]), 2: wav(SPEECH[: 32_000 * 26])}  # by number of parts
SHORT_PARTS = replace(PACING, part=13)  # the shortest of which the 26 seconds make two

BEGINNING = ("shorten the visibility", "take the job")
COURSES = {
    "completed": (
        *BEGINNING,
        "set the number of parts",
        "claim the part",
        "reserve the budget",
        "send the part",
        "settle the budget",
        "keep the answer",
        "save the part",
        "reset the attempts",
        "claim the part 2",
        "reserve the budget 2",
        "send the part 2",
        "settle the budget 2",
        "keep the answer 2",
        "save the part 2",
        "reset the attempts 2",
        "keep the answer 3",  # the whole transcript
        "store the transcript",
        "complete the job",
        "delete the recording",
        "delete the part",
        "delete the part 2",
        "delete the message",
    ),
    "failed": (
        *BEGINNING,
        "set the number of parts",
        "claim the part",
        "reserve the budget",
        "settle the budget",
        "release the claim",
        "fail the job",
        "delete the message",
    ),
    "handed on": (*BEGINNING, "release the job", "send the next message", "delete the message"),
    "requeued": ("shorten the visibility", "send the next message", "delete the message"),
    "outage": (*BEGINNING, "give the job back", "shorten the visibility 2"),
    # The worker before it died when the job was completed.
    "swept": (*BEGINNING, "delete the recording", "delete the part", "delete the message"),
    "dead letter": ("take the job", "fail the job", "delete the message"),
}
READS = {"GetItem", "Query", "HeadObject", "GetObject", "GetQueueUrl", "GetQueueAttributes"}
OF_A_JOB = {  # by what is in the expression
    "attempts :one": "take the job",
    "attempts :less": "give the job back",
    "hand_overs :one": "release the job",
    "attempts = :zero": "reset the attempts",
    "#total = :total": "set the number of parts",
}
OTHERS = {
    ("PutItem", "paid"): "keep the answer",
    ("PutItem", "job"): "save the part",
    ("DeleteItem", "job"): "delete the part",
    ("DeleteObject", "uploads"): "delete the recording",
    ("PutObject", "transcripts"): "store the transcript",
    ("SendMessage", ""): "send the next message",
    ("ChangeMessageVisibility", ""): "shorten the visibility",
}


def write_of(operation, params):
    """The name of a write; empty for a read."""
    if operation in READS:
        return ""
    key = params.get("Key") or params.get("Item") or ""
    kind = key.partition("/")[0] if isinstance(key, str) else key["pk"].partition("#")[0]
    if operation != "UpdateItem":
        return OTHERS[operation, kind]
    values, expression = params["ExpressionAttributeValues"], params["UpdateExpression"]
    if kind == "paid":
        return "claim the part" if ":until" in values else "release the claim"
    if kind == "spent":
        return "settle the budget" if "DELETE unsettled" in expression else "reserve the budget"
    if ":status" in values:
        return "complete the job" if values[":status"] == "completed" else "fail the job"
    return next(name for part, name in OF_A_JOB.items() if part in expression)


class Death(BaseException):
    """Ends a worker as a signal does: none of its code handles it."""


class Life:
    """The writes of one worker by their names, and the moment at which it dies."""

    def __init__(self, name="", moment=""):
        self.writes = []
        self.is_over = False
        self._end = (name, moment)
        self._counts = Counter()
        self._lock = threading.Lock()

    def begin(self, write):
        """A call begins; its name, with a number from the second of its kind on."""
        with self._lock:
            if write:
                self._counts[write] += 1
                write = f"{write} {self._counts[write]}".removesuffix(" 1")
                self._die_at(write, "before")
            elif self.is_over:
                raise Death
            return write

    def done(self, write):
        with self._lock:
            if not self.is_over and write:
                self.writes.append(write)
            self._die_at(write, "after")

    def _die_at(self, write, moment):
        self.is_over = self.is_over or (write, moment) == self._end
        if self.is_over:
            raise Death


class TimeIsUp:
    def get_remaining_time_in_millis(self):
        return HAND_ON_SECONDS * 1000


class World:
    """A bucket, a queue, a table, an upstream, and the workers that use them in turn."""

    def __init__(self):
        self.s3, self.sqs = boto3.client("s3"), boto3.client("sqs")
        self.queue = self.sqs.create_queue(QueueName=NAME)["QueueUrl"]
        self._create_bucket()
        self.table = boto3.resource("dynamodb").create_table(
            TableName=NAME,
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            BillingMode="PAY_PER_REQUEST",
        )
        self.now = 1_800_000_000.0
        names = {"bucket_name": NAME, "table_name": NAME}
        chosen = settings(**names, daily_seconds=10**9, max_concurrent_calls=1)
        self.caller = Jobs(chosen, lambda: self.now)
        jobs = Jobs(chosen, lambda: self.now)
        upstream = httpx2.MockTransport(self._answer)
        self.wiring = Wiring(chosen, transport=upstream, today=lambda: TODAY, jobs=jobs)
        for client in (jobs.client, jobs.objects.client, self.wiring.sqs):
            self._watch(client.meta.events)
        self.life, self.refuses, self.is_out = Life(), False, False
        self.answered, self.lives = [], []

    def _create_bucket(self):
        self.s3.create_bucket(Bucket=NAME)
        asked = {"QueueUrl": self.queue, "AttributeNames": ["QueueArn"]}
        arn = self.sqs.get_queue_attributes(**asked)["Attributes"]["QueueArn"]
        uploads = {"Key": {"FilterRules": [{"Name": "prefix", "Value": "uploads/"}]}}
        notified = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"], "Filter": uploads}
        self.s3.put_bucket_notification_configuration(
            Bucket=NAME, NotificationConfiguration={"QueueConfigurations": [notified]}
        )

    def _watch(self, events):
        this_thread = threading.local()

        def begin(params, model, **_):
            this_thread.write = self.life.begin(write_of(model.name, params))
            if self.is_out and model.name == "GetObject":
                raise EndpointConnectionError(endpoint_url="https://s3.example")

        events.register("provide-client-params", begin)
        events.register("after-call", lambda **_: self.life.done(this_thread.write))

    def _answer(self, request):
        if self.refuses:
            return refused(400)
        write = self.life.begin("send the part")
        self.answered.append(request.read().partition(b"fLaC")[2].rpartition(b"\r\n--")[0])
        self.life.done(write)
        return heard("Ever tried.")

    def upload(self, parts):
        """A job of a caller who has not paid for anything yet."""
        owner = uuid4().hex
        job, _ = self.caller.create("a.wav", "audio/wav", {}, Caller(owner, owner))
        self.s3.put_object(Bucket=NAME, Key=job.key, Body=RECORDINGS[parts])
        self.answered, self.lives = [], []
        return job

    @property
    def in_flight(self):
        """What the upstream has answered and no worker has kept."""
        writes = [write for life in self.lives for write in life.writes]
        return self.answered[sum(write.startswith("keep the answer") for write in writes) :]

    def deliver(self, life, handle, context=None):
        """Gives a message of the queue to a worker with this life, and deletes it if that succeeds.

        Otherwise it is delivered again at once, but after the end of the lease. False if there is
        no message.
        """
        found = self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=1).get("Messages")
        if not found:
            return False
        self.life, (message,) = life, found
        self.lives.append(life)
        record = {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "eventSourceARN": ARN,
        }
        try:
            if not handle({"Records": [record]}, context or Context())["batchItemFailures"]:
                write = life.begin("delete the message")
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
                life.done(write)
                return True
        except BaseException:
            if not life.is_over:
                raise
        self.now += LEASE_SECONDS + 1
        with suppress(self.sqs.exceptions.ClientError):  # it is deleted
            self.sqs.change_message_visibility(
                QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
            )
        return True

    def work(self, life, course="completed"):
        """One delivery, which takes the given course."""
        worker, dead_letters = Worker(self.wiring, SHORT_PARTS), DeadLetters(self.wiring)
        if course == "swept":
            self.work(Life("complete the job", "after"))
        self.refuses, self.is_out = course == "failed", course == "outage"
        if course == "requeued":
            nobodys = f'{{"key": "uploads/{uuid4().hex}.wav"}}'
            self.sqs.send_message(QueueUrl=self.queue, MessageBody=nobodys)
        if course == "dead letter":
            self.deliver(life, lambda event, _: dead_letters.handle(event))
        else:
            self.deliver(life, worker.handle, TimeIsUp() if course == "handed on" else Context())
        self.refuses = self.is_out = False

    def work_until_the_queue_is_empty(self):
        for _ in range(10):
            if not self.deliver(Life(), Worker(self.wiring, SHORT_PARTS).handle):
                return
        raise AssertionError("messages come again and again")

    def objects(self, job):
        listed = self.s3.list_objects_v2(Bucket=NAME).get("Contents", [])
        return [found["Key"] for found in listed if job.id in found["Key"]]


@pytest.fixture(scope="module")
def world():
    with pytest.MonkeyPatch.context() as environment, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        made = World()
        made.sqs.purge_queue(QueueUrl=made.queue)  # of the bucket's test event
        yield made


def parts_of(course):
    return 2 if course == "completed" else 1


@pytest.mark.parametrize("course", COURSES)
def test_every_write_has_a_name(world, course):
    world.upload(parts_of(course))
    world.work(life := Life(), course)
    assert sorted(life.writes) == sorted(COURSES[course])
    world.work_until_the_queue_is_empty()


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        often = metafunc.config.getoption("--soak")
        points = [
            pytest.param(course, name, moment, id=f"{course}: {moment} {name}")
            for course, names in COURSES.items()
            for name in names
            for moment in ("before", "after")
            if often or moment == "before" or name == names[-1]
        ]
        metafunc.parametrize(("course", "name", "moment"), points)


def test_a_job_survives_the_death_of_its_worker(world, course, name, moment):
    job = world.upload(parts := parts_of(course))
    world.work(life := Life(name, moment), course)
    assert life.is_over
    in_flight = world.in_flight
    world.work_until_the_queue_is_empty()
    if world.caller.get(job.id).status == "failed":
        assert world.objects(job) == [job.key]
        world.caller.retry(job.id, Caller(job.owner, job.account))
        world.work_until_the_queue_is_empty()
    done = world.caller.get(job.id)
    assert done.status == "completed"
    assert world.caller.transcript(done).text == " ".join(["Ever tried."] * parts)
    assert done.seconds_paid >= 3 * len(world.answered)
    assert world.objects(job) == [f"transcripts/{job.id}.json"]
    assert world.caller.heard(job.id) == []
    assert len(set(world.answered)) == parts
    billed_again = Counter(world.answered) - Counter(set(world.answered))
    assert billed_again <= Counter(in_flight)
