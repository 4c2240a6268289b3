"""Run the API and its worker in the test process, with the AWS emulator."""

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
from infra.local.worker import Context, lambda_record, local_worker
from tests.conftest import TODAY, direct_client, settings
from tests.fake_upstream import FakeUpstream

PACING = Pacing(part_seconds=20, first_backoff_seconds=0, turn_seconds=0)
_EMPTY_EVENT = '{"Records": []}'  # the worker ignores it


class JwtGateway:
    """The app behind an API Gateway whose JWT authorizer has accepted a token with this subject."""

    def __init__(self, app, subject):
        self.app = app
        self.event = {"requestContext": {"authorizer": {"jwt": {"claims": {"sub": subject}}}}}

    async def __call__(self, scope, receive, send):
        await self.app({**scope, "aws.event": self.event}, receive, send)


class Harness:
    """The API, and a worker that processes messages only when a test calls it."""

    def __init__(
        self, aws, upstream=None, jobs=None, today=TODAY, pacing=PACING, metrics=None, **overrides
    ):
        """Use a fake upstream, unless `overrides` contains the setting `openai_base_url`."""
        config = settings(**aws, **overrides)
        if upstream is None and not overrides.keys() & {"openai_base_url", "upstreams"}:
            upstream = FakeUpstream()
        self.services = build_services(
            config, transport=upstream, today=lambda: today, jobs=jobs, metrics=metrics
        )
        self.app = create_app(config, self.services)
        self.http = TestClient(self.app, raise_server_exceptions=False)
        self.jobs = self.services.jobs
        self.pacing = pacing
        self.worker = Worker.from_services(self.services, pacing)
        self.s3, self.sqs = (
            direct_client(name, os.environ["AWS_ENDPOINT_URL"]) for name in ("s3", "sqs")
        )
        queues = self.jobs.queues
        self.queue, self.parts_queue, self.express_queue = (
            queues.recordings,
            queues.parts,
            queues.express,
        )

    def request_upload(self, size=1_000_000, **fields):
        return self.http.post(
            "/api/uploads",
            json={"filename": "voice.webm", "content_type": "audio/webm", "size": size, **fields},
        )

    def upload(self, content, **fields):
        """Create a job, upload its recording and return the job's id."""
        created = self.request_upload(len(content), **fields).json()
        self.post(created["upload"], content)
        return created["id"]

    def post(self, form, content):
        """Upload a recording to the bucket with a presigned form."""
        httpx2.post(
            form["url"], data=form["fields"], files={"file": content}, verify=False
        ).raise_for_status()

    def messages(self, queue=None, wait=2):
        """Receive up to 10 messages from a queue, as Lambda event records.

        The default is the recordings queue.
        """
        url = queue or self.queue
        received = self.sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=wait,
            AttributeNames=["ApproximateReceiveCount"],
        )
        return [lambda_record(message, url) for message in received.get("Messages", [])]

    def message(self, body):
        """Send a message to the recordings queue, receive it, and return its event record."""
        message_id = self.sqs.send_message(QueueUrl=self.queue, MessageBody=body)["MessageId"]
        return next(record for record in self.messages() if record["messageId"] == message_id)

    def upload_record(self, job_id):
        """Receive the message for a job from the recordings queue. Return its event record."""
        return next(record for record in self.messages() if job_id in record["body"])

    def run_worker(self, *records, context=None):
        """Pass the records to the worker, and then all resulting part messages.

        Without arguments, receive the records from the recordings queue. Return the ids of the
        messages that failed, and delete the other messages.
        """
        records = list(records) or self.messages()
        failed = self.handle(*records, context=context)
        while self.handle_part_records(context=context) or self.handle_split_records():
            pass
        return failed

    def handle(self, *records, context=None):
        """Pass records to the worker, and return the ids of the messages that failed.

        The other messages are deleted.
        """
        result = self.worker.handle({"Records": list(records)}, context or Context())
        failed = [failure["itemIdentifier"] for failure in result["batchItemFailures"]]
        for record in records:
            if record["messageId"] not in failed:
                self.delete(record)
        return failed

    def delete(self, record):
        url = self.queue.rpartition("/")[0] + "/" + record["eventSourceARN"].rpartition(":")[2]
        # The receipt is invalid if the message became visible and was received again.
        with contextlib.suppress(self.sqs.exceptions.ReceiptHandleIsInvalid):
            self.sqs.delete_message(QueueUrl=url, ReceiptHandle=record["receiptHandle"])

    def part_messages(self):
        """Receive the visible messages from the express and parts queues."""
        return [
            record
            for queue in (self.express_queue, self.parts_queue)
            for record in self.messages(queue, wait=0)
        ]

    def cut(self, job_id):
        """Cut a job's recording with the worker. Return the part records, sorted by part number."""
        assert self.handle(self.upload_record(job_id)) == []
        records = [record for record in self.part_messages() if job_id in record["body"]]
        return sorted(records, key=lambda record: json.loads(record["body"])["part"]["number"])

    def handle_part_records(self, context=None):
        """Pass each visible part message to the worker once. Return whether there was a message."""
        records = self.part_messages()
        for record in records:
            self.handle(record, context=context)
        return bool(records)

    def handle_split_records(self):
        """Have the worker handle all requests to split a part. Return whether there were any."""
        records = [record for record in self.messages(wait=0) if '"halve"' in record["body"]]
        if records:
            self.handle(*records)
        return bool(records)

    def job(self, job_id):
        return self.http.get(f"/api/transcriptions/{job_id}").json()

    def transcript(self, job_id, **query):
        return self.http.get(f"/api/transcriptions/{job_id}/transcript", params=query)

    def items(self):
        """Return all items in the table."""
        return boto3.resource("dynamodb").Table(self.jobs.table).scan()["Items"]

    def objects(self):
        """Return the keys of all objects in the bucket."""
        listing = self.s3.list_objects_v2(Bucket="steno")
        return [stored["Key"] for stored in listing.get("Contents", [])]


class Server(Harness):
    """A harness whose worker polls the queues inside a `with running_worker():` block."""

    def send(self, content, route="/api/transcribe", **fields):
        return self.http.post(route, files={"file": content}, data=fields)

    @contextlib.contextmanager
    def running_worker(self):
        """Run the worker's polling threads, as `make run` does."""
        with local_worker(self.services, self.pacing) as threads:
            yield
        for queue in (self.queue, self.parts_queue, self.express_queue):
            self.sqs.send_message(QueueUrl=queue, MessageBody=_EMPTY_EVENT)  # ends the long poll
        for thread in threads:
            thread.join()


def is_part_request(call):
    """Return whether the audio in an upstream request was encoded by the worker."""
    return call.filename == "recording.flac"


class Clock:
    """A clock that returns the Unix time. The time changes only when a test sets `now`."""

    def __init__(self):
        self.now = time.time()

    def __call__(self):
        return self.now


def run_concurrently(*calls):
    """Run each call in its own thread. Return the results in the order of the calls."""
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
        return [future.result() for future in futures]


@contextlib.contextmanager
def before_call(harness, call, act):
    """Before each AWS call of the type `call` (such as `s3.PutObject`), run `act(parameters)`."""
    jobs, service = harness.jobs, call.partition(".")[0]
    events = {
        "dynamodb": lambda: jobs.client.meta.events,
        "s3": lambda: jobs.objects.client.meta.events,
        "sqs": lambda: jobs.queues.sqs.meta.events,
        "secretsmanager": lambda: jobs.aws._session.events,  # each read creates its own client
    }[service]()

    def run(params, **_):
        act(params)

    events.register(f"provide-client-params.{call}", run)
    try:
        yield
    finally:
        events.unregister(f"provide-client-params.{call}", run)


def failing_calls(harness, call, error, text=""):
    """Raise `error` in AWS calls such as `s3.PutObject` whose parameters contain `text`."""

    def fail(params):
        if text in str(params):
            raise error

    return before_call(harness, call, fail)


def outage(harness, call):
    """Make AWS calls such as `s3.PutObject` fail as if the endpoint were unreachable."""
    return failing_calls(harness, call, EndpointConnectionError(endpoint_url="https://aws.example"))


@contextlib.contextmanager
def visibility_timeouts(harness):
    """Record the visibility timeouts, in seconds, that the worker sets on its messages."""
    seconds = []
    with before_call(
        harness,
        "sqs.ChangeMessageVisibility",
        lambda params: seconds.append(params["VisibilityTimeout"]),
    ):
        yield seconds
