"""deadline.py, clients.py: a request is answered before Lambda cuts its function off."""

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
from tests.false_upstream import FalseUpstream, heard
from tests.place import Place


class OnLambda:
    """The app with Lambda's context in its scope, as Mangum has it; `events` are in order."""

    def __init__(self, application, seconds):
        self.app = application
        self.seconds = seconds
        self.events = []

    def get_remaining_time_in_millis(self):
        self.events.append("time asked for")
        return self.seconds * 1000

    async def __call__(self, scope, receive, send):
        async def received():
            if scope["type"] == "http":
                self.events.append("body read")
            return await receive()

        await self.app({**scope, "aws.context": self}, received, send)


class Timed(FalseUpstream):
    """Answers, and keeps the seconds that it was given for each answer."""

    def __init__(self):
        self.seconds = []
        super().__init__(self._answer, self._answer)

    def _answer(self, request):
        self.seconds.append(request.extensions["timeout"]["read"])
        return heard("Ever tried.")


def post(application, content, **headers):
    with TestClient(application, raise_server_exceptions=False) as http:
        return http.post("/api/transcribe", files={"file": content}, headers=headers)


def test_on_lambda_the_upstream_has_what_is_left_of_the_functions_time(webm):
    upstream = Timed()
    assert post(OnLambda(app(upstream), 27), webm).status_code == 200
    assert post(OnLambda(app(upstream, request_deadline_seconds=10), 27), webm).status_code == 200
    assert 20 < upstream.seconds[0] <= 25
    assert 5 < upstream.seconds[1] <= 10  # a deadline of the owner's own that is sooner


def test_without_lambda_the_deadline_is_the_settings_own(webm):
    upstream = Timed()
    assert post(app(upstream), webm).status_code == 200
    assert 590 < upstream.seconds[0] <= 600


def test_the_deadline_counts_from_the_arrival_of_the_request(webm, monkeypatch):
    """Before the token is read, and before the form is received."""
    secrets = Starlette(routes=[Route("/", lambda _: secret_read(), methods=["POST"])])

    def secret_read():
        place.events.append("token read")
        return JSONResponse({"SecretString": "open-sesame"})

    with serving(secrets) as url:
        for name, value in {
            "SECRET_ACCESS_KEY": "x",
            "ACCESS_KEY_ID": "x",
            "DEFAULT_REGION": "eu-west-1",
        }.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", url)
        place = OnLambda(app(auth="token", token_secret_arn="arn"), 27)
        assert post(place, webm, Authorization="Bearer open-sesame").status_code == 200
    assert place.events[:3] == ["time asked for", "token read", "body read"]
    assert place.events.count("time asked for") == 1


def test_a_request_that_arrives_too_late_is_told_and_pays_nothing(webm):
    upstream = FalseUpstream()
    answer = post(OnLambda(app(upstream), 1), webm)
    assert (answer.status_code, answer.json()["code"]) == (504, "upstream_timeout")
    assert "Nothing was billed" in answer.json()["detail"]
    assert upstream.calls == []


def test_a_request_that_arrives_too_late_is_a_job_where_there_are_jobs(server, webm):
    upstream = FalseUpstream()
    place = server(upstream, idle=True)
    assert post(OnLambda(place.app, 1), webm).status_code == 202
    assert upstream.calls == []


# S3


@contextlib.contextmanager
def silent_server():
    """A server that takes connections and never answers; its address, and the connections."""
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


def test_an_s3_that_never_answers_is_503_after_the_tries_of_the_api(aws, monkeypatch):
    identity = Place(aws).ask().json()["id"]
    with silent_server() as (url, connections):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        limits = Limits(read_seconds=0.1, tries=2)
        answer = Place(aws, jobs=Jobs(settings(**aws), limits=limits)).http.get(
            f"/api/transcriptions/{identity}"
        )
        assert len(connections) == 2
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")


def worst_seconds(client):
    """How long one call lasts at most; botocore pauses for at most 1, 2, 4 ... seconds."""
    config = client.meta.config
    tries = config.retries["total_max_attempts"]
    return tries * max(config.connect_timeout, config.read_timeout) + 2 ** (tries - 1) - 1


@pytest.fixture
def region(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


@pytest.mark.usefixtures("region")
def test_a_request_that_becomes_a_job_at_the_last_moment_meets_a_dead_s3_in_time():
    queues = dict.fromkeys(
        ("recordings_queue_url", "parts_queue_url", "express_queue_url"), "https://sqs.example/q"
    )
    chosen = settings(bucket_name="b", table_name="t", **queues)
    api = build_services(chosen).jobs.objects.client
    worker = Jobs(chosen, limits=WORKER_LIMITS).objects.client
    function_seconds = 27  # test_stack.py holds it against the stack
    deadline = Settings(
        aws_lambda_function_name="steno", openai_api_key="k", access_token="t"
    ).request_deadline_seconds
    assert worst_seconds(api) <= 5 < function_seconds - deadline * _DIRECT_SHARE
    assert worst_seconds(worker) > 60


@pytest.mark.usefixtures("region")
@pytest.mark.parametrize("service", ["dynamodb", "secretsmanager"])
def test_the_other_services_of_aws_are_given_up_before_the_deadline(service):
    assert worst_seconds(AWS().client(service)) <= 23
