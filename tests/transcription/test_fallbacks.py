"""Tests of fallbacks: another upstream is called only if nothing can have been billed yet."""

import json

import httpx2
import pytest

from tests.fake_upstream import FakeUpstream, error_response, transcript_response
from tests.harness import Harness
from tests.samples import asset

UPSTREAMS = json.dumps(
    [
        {"name": "first", "base_url": "http://first.example/v1", "api_key": "one"},
        {"name": "second", "base_url": "http://second.example/v1", "api_key": "two"},
    ]
)
SETTINGS = {
    "upstreams": UPSTREAMS,
    "whisper_model": "first/model",
    "fallback_models": "second/other",
}
UNBILLED = {
    "connection refused": httpx2.ConnectError("refused"),
    "rejected key": error_response(401),
    "no credit": error_response(429, "insufficient_quota"),
    "unknown model": error_response(404, "model_not_found"),
    "busy for an hour": error_response(429, retry_after="3600"),
}
POSSIBLY_BILLED = {
    "timeout": httpx2.ReadTimeout("timeout"),
    "broken connection": httpx2.ReadError("reset"),
    "gateway": error_response(502),
}


def upstream_with(failure):
    """Return a fake upstream with two hosts: the first always fails, and the second transcribes."""

    def reply(request):
        if request.url.host == "second.example":
            return transcript_response("From the second.")
        if isinstance(failure, Exception):
            raise failure
        return failure

    upstream = FakeUpstream()
    upstream.replies = _Forever(reply)
    return upstream


class _Forever:
    def __init__(self, reply):
        self._reply = reply

    def __bool__(self):
        return True

    def popleft(self):
        return self._reply


def hosts(upstream):
    return [call.host.removesuffix(".example") for call in upstream.calls]


@pytest.mark.parametrize("failure", UNBILLED.values(), ids=UNBILLED)
def test_a_request_falls_back_if_nothing_can_have_been_billed(server, webm, failure):
    upstream = upstream_with(failure)
    response = server(upstream, **SETTINGS).send(webm)
    assert response.json() == {"transcript": "From the second."}
    assert response.headers["Steno-Model"] == "second/other"
    assert hosts(upstream).count("second") == 1


@pytest.mark.parametrize("failure", POSSIBLY_BILLED.values(), ids=POSSIBLY_BILLED)
def test_a_request_that_may_have_been_billed_does_not_fall_back(client, webm, failure):
    upstream = upstream_with(failure)
    http = client(upstream, **SETTINGS)
    assert http.post("/api/transcribe", files={"file": webm}).status_code >= 500
    assert "second" not in hosts(upstream)


def test_without_the_setting_nothing_falls_back(client, webm):
    upstream = upstream_with(UNBILLED["rejected key"])
    http = client(upstream, **{**SETTINGS, "fallback_models": ""})
    response = http.post("/api/transcribe", files={"file": webm})
    assert response.json()["code"] == "upstream_credentials"
    assert set(hosts(upstream)) == {"first"}


def test_a_fallback_that_does_not_support_an_option_is_left_out(client, webm):
    upstream = upstream_with(UNBILLED["rejected key"])
    models = json.dumps({"model": {"temperature": True}})
    http = client(upstream, **SETTINGS, models=models)
    response = http.post("/api/transcribe", files={"file": webm}, data={"temperature": "0"})
    assert response.json()["code"] == "upstream_credentials"
    assert set(hosts(upstream)) == {"first"}


def test_an_upstream_that_failed_rests_for_a_minute(server, webm):
    upstream = upstream_with(UNBILLED["rejected key"])
    harness = server(upstream, **SETTINGS)
    harness.send(webm)
    calls = len(upstream.calls)
    assert harness.send(webm, prompt="again").headers["Steno-Model"] == "second/other"
    assert hosts(upstream)[calls:] == ["second"]


def test_the_result_of_a_fallback_is_paid_once(server, webm):
    upstream = upstream_with(UNBILLED["rejected key"])
    harness = server(upstream, **SETTINGS)
    harness.send(webm)
    harness.send(webm)
    assert hosts(upstream).count("second") == 1


@pytest.mark.parametrize("failure", UNBILLED.values(), ids=UNBILLED)
def test_a_job_falls_back_and_names_the_model(aws, failure):
    upstream = upstream_with(failure)
    harness = Harness(aws, upstream, **SETTINGS)
    job_id = harness.upload(asset("beckett.wav"))
    harness.run_worker()
    job = harness.job(job_id)
    assert job["status"] == "completed", job
    assert job["model"] == "second/other"
    assert "From the second." in job["transcript"]


def test_a_job_does_not_fall_back_after_a_timeout(aws):
    upstream = upstream_with(POSSIBLY_BILLED["timeout"])
    harness = Harness(aws, upstream, **SETTINGS)
    job_id = harness.upload(asset("beckett.wav"))
    harness.run_worker()
    assert harness.job(job_id)["error"]["code"] == "upstream_timeout"
    assert set(hosts(upstream)) == {"first"}


def test_a_job_that_takes_over_a_request_after_a_timeout_does_not_fall_back(server, webm):
    calls = []

    def reply(request):
        calls.append(request.url.host)
        if len(calls) == 1:
            raise httpx2.ReadTimeout("timeout")
        if request.url.host == "first.example":
            return error_response(401)
        return transcript_response("From the second.")

    upstream = FakeUpstream()
    upstream.replies = _Forever(reply)
    response = server(upstream, **SETTINGS).send(webm)
    assert response.json()["code"] == "upstream_credentials"
    assert set(hosts(upstream)) == {"first"}
