"""logs.py and request_id.py: one id leads from a response to the lines of the log, and to the job and its end."""

import io
import logging
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from handler import logs
from tests.conftest import app
from tests.false_upstream import FalseUpstream, heard, refused
from tests.place import Place
from tests.samples import long_recording

ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"


@pytest.fixture
def lines(caplog):
    """The records of the log, with the ids that an entry point makes them carry."""
    logs.configure(on_lambda=True)
    with caplog.at_level(logging.INFO, "steno"):
        yield lambda: caplog.records


class Lambda:
    """The app as Mangum calls it."""

    def __init__(self, wrapped):
        self._wrapped = wrapped

    async def __call__(self, scope, receive, send):
        context = SimpleNamespace(aws_request_id=ID, get_remaining_time_in_millis=lambda: 20_000)
        await self._wrapped({**scope, "aws.context": context}, receive, send)


def test_the_id_of_a_request_is_lambdas_own_and_in_its_response_and_its_lines(lines, webm):
    http = TestClient(Lambda(app(FalseUpstream(refused(500), refused(500), refused(500)))))
    answer = http.post("/api/transcribe", files={"file": webm})
    assert (answer.headers["x-request-id"], answer.json()["request_id"]) == (ID, ID)
    assert {(line.levelname, line.request) for line in lines() if "upstream" in line.message} == {
        ("WARNING", ID)
    }


def test_requests_elsewhere_have_an_id_of_their_own_each(client, webm):
    http = client()
    ids = {
        http.post("/v1/audio/transcriptions", files={"file": webm}).headers["x-request-id"]
        for _ in range(2)
    }
    assert len(ids) == 2


def test_a_bug_is_answered_with_the_id_under_which_the_log_has_it(client, lines, webm):
    def bug(_):
        raise RuntimeError("a bug")

    answer = client(FalseUpstream(bug)).post("/api/transcribe", files={"file": webm})
    assert answer.status_code == 500
    assert (
        answer.json()["detail"]
        == f"Internal error. See the server's log (request {answer.json()['request_id']})."
    )
    assert [line.request for line in lines() if line.exc_info] == [answer.headers["x-request-id"]]


def test_one_id_leads_from_a_request_to_its_job_its_parts_the_upstreams_requests_and_the_reason(
    aws, lines
):
    upstream = FalseUpstream(heard("One."), refused(400))
    place = Place(aws, upstream)
    asked = place.ask()
    request = asked.headers["x-request-id"]
    place.post(asked.json()["upload"], long_recording("ogg", 40))
    place.work()
    (created,) = (
        line
        for line in lines()
        if getattr(line, "request", "") == request and "awaits" in line.message
    )
    job = created.job
    assert job == asked.json()["id"]
    of_job = [line for line in lines() if getattr(line, "job", "") == job]
    assert {line.part for line in of_job if hasattr(line, "part")} == {0, 1}
    assert any("cut into 2 parts" in line.message for line in of_job)
    assert any("answered the request" in line.message and line.part == 0 for line in of_job)
    (failure,) = (line for line in of_job if line.levelname == "WARNING")
    assert failure.request == request
    assert "request req_1" in failure.message


def test_the_log_of_a_machine_has_time_level_and_ids(monkeypatch):
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
