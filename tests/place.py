"""One server and its worker over a local S3, SQS and DynamoDB, without a network between them."""

import contextlib
import threading

import boto3
import httpx2
from starlette.testclient import TestClient

from handler.api import create_app
from handler.transcription import Pacing
from handler.wiring import Wiring
from handler.worker import Worker
from infra.local_worker import Context
from tests.conftest import TODAY, settings
from tests.upstream import FalseUpstream

PACING = Pacing(part=20, pause=0.01, later=0, last=1)
_NOTHING = '{"Records": []}'  # what a worker ignores
ARN = "arn:aws:sqs:us-east-1:000000000000:steno"


class Gateway:
    """What API Gateway tells of a caller whom its authorizer knows."""

    def __init__(self, app, subject):
        self.app = app
        self.event = {"requestContext": {"authorizer": {"jwt": {"claims": {"sub": subject}}}}}

    async def __call__(self, scope, receive, send):
        await self.app({**scope, "aws.event": self.event}, receive, send)


class Place:
    """One server and its worker, over what is there in AWS."""

    def __init__(self, aws, upstream=None, jobs=None, today=TODAY, pacing=PACING, metrics=None, **given):
        """Over a false upstream, unless the address of a real one is given."""
        chosen = settings(**aws, **given)
        transport = upstream or (None if "openai_base_url" in given else FalseUpstream())
        self.wiring = Wiring(chosen, transport=transport, today=lambda: today, jobs=jobs, metrics=metrics)
        self.app = create_app(chosen, self.wiring)
        self.http = TestClient(self.app, raise_server_exceptions=False)
        self.jobs = self.wiring.jobs
        self.worker = Worker(self.wiring, pacing)
        self.s3, self.sqs = boto3.client("s3"), boto3.client("sqs")
        self.queue = self.sqs.get_queue_url(QueueName="steno")["QueueUrl"]

    def ask(self, size=1000, **more):
        return self.http.post(
            "/api/uploads", json={"filename": "voice.webm", "content_type": "audio/webm", "size": size, **more}
        )

    def upload(self, content, **more):
        """A job whose recording has arrived."""
        asked = self.ask(len(content), **more).json()
        self.post(asked["upload"], content)
        return asked["id"]

    def post(self, form, content):
        """Sends the recording to the bucket."""
        httpx2.post(form["url"], data=form["fields"], files={"file": content}).raise_for_status()

    def messages(self):
        """What is in the queue, as Lambda would hand it over."""
        found = self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10, WaitTimeSeconds=2)
        return [
            {"messageId": m["MessageId"], "receiptHandle": m["ReceiptHandle"], "body": m["Body"], "eventSourceARN": ARN}
            for m in found.get("Messages", [])
        ]

    def message(self, body):
        """A message of the queue with this body."""
        identity = self.sqs.send_message(QueueUrl=self.queue, MessageBody=body)["MessageId"]
        return next(record for record in self.messages() if record["messageId"] == identity)

    def about(self, identity):
        """The message that the bucket sent about a job's recording."""
        return next(record for record in self.messages() if identity in record["body"])

    def work(self, *records, context=None):
        """Hands records to the worker, those of the queue without any; which of them are to come again."""
        answers = self.worker.handle({"Records": list(records) or self.messages()}, context or Context())
        return [failure["itemIdentifier"] for failure in answers["batchItemFailures"]]

    def job(self, identity):
        return self.http.get(f"/api/transcriptions/{identity}").json()

    def transcript(self, identity, **query):
        return self.http.get(f"/api/transcriptions/{identity}/transcript", params=query)

    def objects(self):
        return [found["Key"] for found in self.s3.list_objects_v2(Bucket="steno").get("Contents", [])]


class Server(Place):
    """A server, and a worker that does what is in the queue."""

    def send(self, content, route="/api/transcribe", **fields):
        return self.http.post(route, files={"file": content}, data=fields)

    @contextlib.contextmanager
    def at_work(self):
        stopped = threading.Event()

        def work():
            while not stopped.is_set():
                for message in self.messages():
                    if self.work(message) == []:
                        # One that took longer than it was kept back has been given to another by now.
                        with contextlib.suppress(self.sqs.exceptions.ReceiptHandleIsInvalid):
                            self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["receiptHandle"])

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            self.sqs.send_message(QueueUrl=self.queue, MessageBody=_NOTHING)  # ends the long poll
            thread.join()


def parts(call):
    """Whether a call carried what the worker makes."""
    return call.filename == "recording.flac"
