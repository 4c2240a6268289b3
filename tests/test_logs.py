"""Tests of logs.py and request_id.py: a request id links a response to its log lines and job."""

import io
import logging
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from handler import logs
from tests.conftest import app
from tests.fake_upstream import FakeUpstream, error_response, transcript_response
from tests.harness import Harness
from tests.samples import long_recording

ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"


@pytest.fixture
def lines(caplog):
    """Return a function that returns the log records, including the ids in each record."""
    logs.configure(on_lambda=True)
    with caplog.at_level(logging.INFO, "steno"):
        yield lambda: caplog.records


class Lambda:
    """The app, called with the ASGI scope that Mangum passes to it on Lambda."""

    def __init__(self, wrapped):
        self._wrapped = wrapped

    async def __call__(self, scope, receive, send):
        context = SimpleNamespace(aws_request_id=ID, get_remaining_time_in_millis=lambda: 20_000)
        await self._wrapped({**scope, "aws.context": context}, receive, send)


def test_on_lambda_the_request_id_is_that_of_lambda_in_the_response_and_the_log(lines, webm):
    upstream = FakeUpstream(*[error_response(500) for _ in range(3)])
    http = TestClient(Lambda(app(upstream)))
    response = http.post("/api/transcribe", files={"file": webm})
    assert (response.headers["x-request-id"], response.json()["request_id"]) == (ID, ID)
    assert {(line.levelname, line.request) for line in lines() if "upstream" in line.message} == {
        ("WARNING", ID)
    }


def test_outside_lambda_each_request_has_an_id_of_its_own(client, webm):
    http = client()
    ids = {
        http.post("/v1/audio/transcriptions", files={"file": webm}).headers["x-request-id"]
        for _ in range(2)
    }
    assert len(ids) == 2


def test_an_internal_error_has_the_request_id_of_its_log_line(client, lines, webm):
    def bug(_):
        raise RuntimeError("a bug")

    response = client(FakeUpstream(bug)).post("/api/transcribe", files={"file": webm})
    assert response.status_code == 500
    assert (
        response.json()["detail"]
        == f"Internal error. See the server log (request {response.json()['request_id']})."
    )
    assert [line.request for line in lines() if line.exc_info] == [response.headers["x-request-id"]]


def test_a_request_id_links_its_job_the_parts_the_upstream_requests_and_the_failure(aws, lines):
    upstream = FakeUpstream(transcript_response("One."), error_response(400))
    harness = Harness(aws, upstream)
    created = harness.request_upload()
    request = created.headers["x-request-id"]
    harness.post(created.json()["upload"], long_recording("ogg", 40))
    harness.run_worker()
    (created_line,) = (
        line
        for line in lines()
        if getattr(line, "request", "") == request and "waits for its upload" in line.message
    )
    job = created_line.job
    assert job == created.json()["id"]
    job_lines = [line for line in lines() if getattr(line, "job", "") == job]
    assert {line.part for line in job_lines if hasattr(line, "part")} == {0, 1}
    assert any("cut into 2 parts" in line.message for line in job_lines)
    assert any(
        "Received the transcription" in line.message and line.part == 0 for line in job_lines
    )
    (failure,) = (line for line in job_lines if line.levelname == "WARNING")
    assert failure.request == request
    assert "request id req_1" in failure.message


def test_outside_lambda_log_lines_have_time_level_and_ids(monkeypatch):
    out, log = io.StringIO(), logging.getLogger("steno")
    monkeypatch.setattr("sys.stderr", out)
    before = log.handlers[:]
    monkeypatch.setattr(log, "handlers", [])
    logs.configure(on_lambda=False)
    with logs.context(request="r1", job="j1"):
        log.warning("Words.")
        log.info("Nothing that needs attention.")
    monkeypatch.setattr(log, "handlers", before)
    (line,) = out.getvalue().splitlines()
    assert line[:2] == "20"
    assert line.endswith(" WARNING Words. [request=r1 job=j1]")
