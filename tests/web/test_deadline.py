"""Tests of deadline.py and clients.py: a request gets its response before Lambda times out."""

import contextlib
import socket
import threading

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from handler.aws.clients import AWS, WORKER_LIMITS, Limits
from handler.jobs.store import Jobs
from handler.services import build_services
from handler.settings import Settings
from handler.transcription.direct import _DIRECT_SHARE
from tests.conftest import app, serving, settings
from tests.fake_upstream import FakeUpstream, transcript_response
from tests.harness import Harness


class OnLambda:
    """Adds a Lambda context to the scope, as Mangum does, and records each read in `events`."""

    def __init__(self, application, seconds):
        self.app = application
        self.seconds = seconds
        self.events = []

    def get_remaining_time_in_millis(self):
        self.events.append("time read")
        return self.seconds * 1000

    async def __call__(self, scope, receive, send):
        async def received():
            if scope["type"] == "http":
                self.events.append("body read")
            return await receive()

        await self.app({**scope, "aws.context": self}, received, send)


class TimeoutRecorder(FakeUpstream):
    """A fake upstream that records the read timeout of each call, in seconds."""

    def __init__(self):
        self.seconds = []
        super().__init__(self._respond, self._respond)

    def _respond(self, request):
        self.seconds.append(request.extensions["timeout"]["read"])
        return transcript_response("Ever tried.")


def post(application, content, **headers):
    with TestClient(application, raise_server_exceptions=False) as http:
        return http.post("/api/transcribe", files={"file": content}, headers=headers)


def test_on_lambda_the_upstream_timeout_is_the_remaining_time(webm):
    upstream = TimeoutRecorder()
    assert post(OnLambda(app(upstream), 27), webm).status_code == 200
    assert post(OnLambda(app(upstream, request_deadline_seconds=10), 27), webm).status_code == 200
    assert 20 < upstream.seconds[0] <= 25
    assert 5 < upstream.seconds[1] <= 10  # the configured deadline is earlier


def test_without_lambda_the_deadline_is_the_setting(webm):
    upstream = TimeoutRecorder()
    assert post(app(upstream), webm).status_code == 200
    assert 590 < upstream.seconds[0] <= 600


def test_the_deadline_counts_from_the_arrival_of_the_request(webm, monkeypatch):
    """The app first reads the remaining time, then the token, and then the form."""
    secrets = Starlette(routes=[Route("/", lambda _: secret_read(), methods=["POST"])])

    def secret_read():
        harness.events.append("token read")
        return JSONResponse({"SecretString": "open-sesame"})

    with serving(secrets) as url:
        for name, value in {
            "SECRET_ACCESS_KEY": "x",
            "ACCESS_KEY_ID": "x",
            "DEFAULT_REGION": "eu-west-1",
        }.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", url)
        harness = OnLambda(app(auth="token", token_secret_arn="arn"), 27)
        assert post(harness, webm, Authorization="Bearer open-sesame").status_code == 200
    assert harness.events[:3] == ["time read", "token read", "body read"]
    assert harness.events.count("time read") == 1


def test_a_request_that_arrives_too_late_is_rejected_and_not_billed(webm):
    upstream = FakeUpstream()
    response = post(OnLambda(app(upstream), 1), webm)
    assert (response.status_code, response.json()["code"]) == (504, "upstream_timeout")
    assert "Nothing was billed" in response.json()["detail"]
    assert upstream.calls == []


def test_a_request_that_arrives_too_late_becomes_a_job(server, webm):
    upstream = FakeUpstream()
    harness = server(upstream, idle=True)
    assert post(OnLambda(harness.app, 1), webm).status_code == 202
    assert upstream.calls == []


# S3


@contextlib.contextmanager
def silent_server():
    """Run a server that accepts connections but never responds. Yield its URL and connections."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connections.append(listener.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", connections
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in connections:
            connection.close()


def test_an_unresponsive_s3_is_a_503_after_two_attempts(aws, monkeypatch):
    job_id = Harness(aws).request_upload().json()["id"]
    with silent_server() as (url, connections):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        limits = Limits(read_seconds=0.1, max_attempts=2)
        response = Harness(aws, jobs=Jobs(settings(**aws), limits=limits)).http.get(
            f"/api/transcriptions/{job_id}"
        )
        assert len(connections) == 2
    assert (response.status_code, response.json()["code"]) == (503, "storage_unavailable")


def max_seconds(client):
    """Return the longest time that a call can take, in seconds.

    botocore waits at most 1, 2, 4, ... seconds between attempts.
    """

    config = client.meta.config
    attempts = config.retries["total_max_attempts"]
    return attempts * max(config.connect_timeout, config.read_timeout) + 2 ** (attempts - 1) - 1


@pytest.fixture
def region(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


@pytest.mark.usefixtures("region")
def test_the_longest_s3_call_fits_in_the_time_after_a_direct_attempt():
    queues = dict.fromkeys(
        ("recordings_queue_url", "parts_queue_url", "express_queue_url"), "https://sqs.example/q"
    )
    config = settings(bucket_name="b", table_name="t", **queues)
    api = build_services(config).jobs.objects.client
    worker = Jobs(config, limits=WORKER_LIMITS).objects.client
    function_seconds = 27  # test_stack.py compares the stack's actual timeout with the deadline
    deadline = Settings(
        aws_lambda_function_name="steno", openai_api_key="k", access_token="t"
    ).request_deadline_seconds
    assert max_seconds(api) <= 5 < function_seconds - deadline * _DIRECT_SHARE
    assert max_seconds(worker) > 60


@pytest.mark.usefixtures("region")
@pytest.mark.parametrize("service", ["dynamodb", "secretsmanager"])
def test_calls_of_other_aws_services_end_before_the_deadline(service):
    assert max_seconds(AWS().client(service)) <= 23
