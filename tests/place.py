"""One server and its worker over a local S3, SQS and DynamoDB, without a network between them."""

import contextlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
import httpx2
from botocore.exceptions import EndpointConnectionError
from starlette.testclient import TestClient

from handler.services import build_services
from handler.steps.pacing import Pacing
from handler.web.app import create_app
from handler.worker import Worker
from infra.local.worker import Context, record_of, working
from tests.conftest import TODAY, own_client, settings
from tests.false_upstream import FalseUpstream

PACING = Pacing(part_seconds=20, first_backoff_seconds=0, turn_seconds=0)
_NOTHING = '{"Records": []}'  # what a worker ignores


class Gateway:
    """What API Gateway tells of a caller whom its authorizer knows."""

    def __init__(self, app, subject):
        self.app = app
        self.event = {"requestContext": {"authorizer": {"jwt": {"claims": {"sub": subject}}}}}

    async def __call__(self, scope, receive, send):
        await self.app({**scope, "aws.event": self.event}, receive, send)


class Place:
    """One server and its worker, over what is there in AWS."""

    def __init__(
        self, aws, upstream=None, jobs=None, today=TODAY, pacing=PACING, metrics=None, **given
    ):
        """Over a false upstream, unless the address of a real one is given."""
        chosen = settings(**aws, **given)
        transport = upstream or (None if "openai_base_url" in given else FalseUpstream())
        self.services = build_services(
            chosen, transport=transport, today=lambda: today, jobs=jobs, metrics=metrics
        )
        self.app = create_app(chosen, self.services)
        self.http = TestClient(self.app, raise_server_exceptions=False)
        self.jobs = self.services.jobs
        self.pacing = pacing
        self.worker = Worker.of(self.services, pacing)
        self.s3, self.sqs = (
            own_client(name, os.environ["AWS_ENDPOINT_URL"]) for name in ("s3", "sqs")
        )
        queues = self.jobs.queues
        self.queue, self.parts_queue, self.express_queue = (
            queues.recordings,
            queues.parts,
            queues.express,
        )

    def ask(self, size=1_000_000, **more):
        return self.http.post(
            "/api/uploads",
            json={"filename": "voice.webm", "content_type": "audio/webm", "size": size, **more},
        )

    def upload(self, content, **more):
        """A job whose recording has arrived."""
        asked = self.ask(len(content), **more).json()
        self.post(asked["upload"], content)
        return asked["id"]

    def post(self, form, content):
        """Sends the recording to the bucket."""
        httpx2.post(
            form["url"], data=form["fields"], files={"file": content}, verify=False
        ).raise_for_status()

    def messages(self, queue=None, wait=2):
        """What is in a queue, by default that of the recordings, as Lambda would hand it over."""
        url = queue or self.queue
        found = self.sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=wait,
            AttributeNames=["ApproximateReceiveCount"],
        )
        return [record_of(message, url) for message in found.get("Messages", [])]

    def message(self, body):
        """A message of the queue with this body."""
        identity = self.sqs.send_message(QueueUrl=self.queue, MessageBody=body)["MessageId"]
        return next(record for record in self.messages() if record["messageId"] == identity)

    def about(self, identity):
        """The message that the bucket sent about a job's recording."""
        return next(record for record in self.messages() if identity in record["body"])

    def work(self, *records, context=None):
        """Hands records to the worker, those of the recordings' queue without any, and then all parts.

        Which of the records are to come again; those of the queue that are done are deleted.
        """
        records = list(records) or self.messages()
        again = self.handle(*records, context=context)
        while self.work_on_parts(context=context) or self.work_on_halvings():
            pass
        return again

    def handle(self, *records, context=None):
        """Hands records to the worker; which of them are to come again. The others are deleted."""
        answers = self.worker.handle({"Records": list(records)}, context or Context())
        again = [failure["itemIdentifier"] for failure in answers["batchItemFailures"]]
        for record in records:
            if record["messageId"] not in again:
                self.delete(record)
        return again

    def delete(self, record):
        url = self.queue.rpartition("/")[0] + "/" + record["eventSourceARN"].rpartition(":")[2]
        # One that took longer than it was kept back has been given to another by now.
        with contextlib.suppress(self.sqs.exceptions.ReceiptHandleIsInvalid):
            self.sqs.delete_message(QueueUrl=url, ReceiptHandle=record["receiptHandle"])

    def part_messages(self):
        """The messages of parts that can be delivered now."""
        return [
            record
            for queue in (self.express_queue, self.parts_queue)
            for record in self.messages(queue, wait=0)
        ]

    def cut(self, identity):
        """Hands the worker the message about a job's recording alone; the messages of its parts, in order."""
        assert self.handle(self.about(identity)) == []
        found = [record for record in self.part_messages() if identity in record["body"]]
        return sorted(found, key=lambda record: json.loads(record["body"])["part"]["number"])

    def work_on_parts(self, context=None):
        """Hands the messages of parts to the worker, each once; whether there were any."""
        found = self.part_messages()
        for record in found:
            self.handle(record, context=context)
        return bool(found)

    def work_on_halvings(self):
        """Hands the worker the parts that are to be halved; whether there were any."""
        found = [record for record in self.messages(wait=0) if '"halve"' in record["body"]]
        return bool(found) and self.handle(*found) is not None

    def job(self, identity):
        return self.http.get(f"/api/transcriptions/{identity}").json()

    def transcript(self, identity, **query):
        return self.http.get(f"/api/transcriptions/{identity}/transcript", params=query)

    def items(self):
        """What is in the table."""
        return boto3.resource("dynamodb").Table(self.jobs.table).scan()["Items"]

    def objects(self):
        return [
            found["Key"] for found in self.s3.list_objects_v2(Bucket="steno").get("Contents", [])
        ]


class Server(Place):
    """A server, and a worker that does what is in the queue."""

    def send(self, content, route="/api/transcribe", **fields):
        return self.http.post(route, files={"file": content}, data=fields)

    @contextlib.contextmanager
    def at_work(self):
        """The worker polls the queues as `make run` does."""
        with working(self.services, self.pacing) as threads:
            yield
        for queue in (self.queue, self.parts_queue, self.express_queue):
            self.sqs.send_message(QueueUrl=queue, MessageBody=_NOTHING)  # ends the long poll
        for thread in threads:
            thread.join()


def parts(call):
    """Whether a call carried what the worker makes."""
    return call.filename == "recording.flac"


class Clock:
    """Seconds since 1970, which only a test moves."""

    def __init__(self):
        self.now = time.time()

    def __call__(self):
        return self.now


def at_once(*calls):
    """Makes the calls in threads, all at the same time; what they return."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [made.result() for made in [pool.submit(call) for call in calls]]


@contextlib.contextmanager
def before(place, call, act):
    """Acts on the parameters of each of the worker's calls like `s3.PutObject` before it is sent."""
    jobs, service = place.jobs, call.partition(".")[0]
    events = {
        "dynamodb": lambda: jobs.client.meta.events,
        "s3": lambda: jobs.objects.client.meta.events,
        "sqs": lambda: jobs.queues.sqs.meta.events,
        "secretsmanager": lambda: jobs.aws._session.events,  # a client is built for each call
    }[service]()

    def run(params, **_):
        act(params)

    events.register(f"provide-client-params.{call}", run)
    try:
        yield
    finally:
        events.unregister(f"provide-client-params.{call}", run)


def failing(place, call, error, text=""):
    """Makes the worker's calls like `s3.PutObject` fail that have the text in their parameters."""

    def fail(params):
        if text in str(params):
            raise error

    return before(place, call, fail)


def outage(place, call):
    """Makes the worker's calls like `s3.PutObject` fail as if AWS did not answer."""
    return failing(place, call, EndpointConnectionError(endpoint_url="https://aws.example"))


@contextlib.contextmanager
def visibilities(place):
    """The seconds for which the worker keeps messages back, in their order."""
    seconds = []
    with before(
        place,
        "sqs.ChangeMessageVisibility",
        lambda params: seconds.append(params["VisibilityTimeout"]),
    ):
        yield seconds
