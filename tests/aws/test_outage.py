"""Tests of AWS outages: callers get errors quickly, and nothing is lost or billed twice."""

import os
import time

import boto3
import pytest

from handler.jobs.store import Jobs
from tests.callers import Caller
from tests.conftest import settings
from tests.fake_upstream import FakeUpstream, error_response, transcript_response
from tests.faulty_aws import FaultyAWS
from tests.harness import Harness
from tests.samples import long_recording


@pytest.mark.parametrize("service", ["dynamodb", "s3", "sqs", "secretsmanager"])
def test_an_outage_is_reported_before_anything_is_billed(faulty_aws_server, webm, service):
    faulty, upstream = FaultyAWS(), FakeUpstream()
    server = faulty_aws_server(faulty, upstream, openai_api_key=None, openai_secret_arn="steno")
    needed = service in ("dynamodb", "secretsmanager")
    faulty.out = service
    response = server.send(webm)
    if needed:
        assert (response.status_code, response.json()["code"]) == (503, "storage_unavailable")
        assert response.headers["retry-after"]
        assert upstream.calls == []
    else:
        assert response.json() == {"transcript": "Ever tried."}
    assert server.send(b"nonsense").status_code in (415, 503)
    faulty.out = ""
    with server.running_worker():
        caller = Caller(server, "upstream_busy")
        assert caller.transcribe(webm) == "Ever tried."
        assert caller.transcribe_upload(webm, prompt="once more") == "Ever tried."
    assert len(upstream.calls) == 2


def test_the_cached_secret_is_used_if_it_cannot_be_read_again(faulty_aws_server, webm):
    faulty, upstream = FaultyAWS(), FakeUpstream()
    server = faulty_aws_server(faulty, upstream, openai_api_key=None, openai_secret_arn="steno")
    assert server.send(webm).is_success
    faulty.out = "secretsmanager"
    assert not server.services.clients[""].key.renew("offline")  # Secrets Manager returns an error
    assert server.send(webm, prompt="again").is_success
    assert [call.authorization for call in upstream.calls] == ["Bearer offline"] * 2


class _FullTable(FaultyAWS):
    """Rejects the first `times` PutItem requests that it receives while `full` is true.

    `times` must be greater than the number of attempts that an AWS client makes for one call.
    """

    def __init__(self, times):
        super().__init__()
        self.full = False
        self._times = times

    def _choose_fault(self, call, service):
        writes = call.headers.get("x-amz-target", "").endswith(".PutItem")
        fails = self.full and writes and self.faults[service, "error"] < self._times
        return "error" if fails else ""


def test_results_are_neither_lost_nor_billed_twice_while_table_writes_fail(faulty_aws_server):
    faulty = _FullTable(times=6)

    def fill_table(_request):
        faulty.full = True
        return transcript_response("First.")

    upstream = FakeUpstream(fill_table, words="And so on.")
    server = faulty_aws_server(faulty, upstream, max_concurrent_calls=1)
    job_id = server.upload(long_recording("ogg", 50))
    with server.running_worker():
        assert "First." in Caller(server).wait_for_transcript(job_id)
    assert faulty.faults["dynamodb", "error"] == 6
    assert len(upstream.calls) == server.job(job_id)["progress"]["total"]


def test_a_key_rotation_during_a_job_is_not_billed(faulty_aws_server):
    secrets = boto3.client("secretsmanager")
    keys = {"Bearer offline"}

    def rotate(_request):
        secrets.put_secret_value(SecretId="steno", SecretString="sk-new")
        keys.clear()
        keys.add("Bearer sk-new")
        return transcript_response("First.")

    def check_key(request):
        if request.headers["authorization"] in keys:
            return transcript_response("Later.")
        return error_response(401, "invalid_api_key")

    upstream = FakeUpstream(rotate, *[check_key] * 20)
    server = faulty_aws_server(
        FaultyAWS(),
        upstream,
        openai_api_key=None,
        openai_secret_arn="steno",
        max_concurrent_calls=1,
    )
    try:
        job_id = server.upload(long_recording("ogg", 50))
        with server.running_worker():
            assert Caller(server).wait_for_transcript(job_id).startswith("First. Later.")
        rejected = 1  # the request with the old key, which is not billed
        assert len(upstream.calls) == server.job(job_id)["progress"]["total"] + rejected
    finally:
        secrets.put_secret_value(SecretId="steno", SecretString="offline")


def test_a_worker_whose_clock_is_ahead_repeats_only_the_request_in_flight(
    aws,
):
    """If the clock is ahead, the claim on a request in flight seems to have expired.

    The request is then repeated, and the result that arrives later is ignored.
    """
    upstream, parts = FakeUpstream(), []
    ahead = Harness(aws, upstream, jobs=Jobs(settings(**aws), clock=lambda: time.time() + 3600))

    def overtaken(_request):
        """Complete the job in the other worker while the first one waits for the upstream."""
        assert ahead.handle(*parts) == []
        return transcript_response("Too late.")

    first = Harness(aws, upstream)
    job_id = first.upload(long_recording("ogg", 50))
    parts.extend(first.cut(job_id))
    upstream.replies.append(overtaken)
    assert first.handle(parts[0]) == []
    job = ahead.job(job_id)
    assert (job["status"], set(job["transcript"].split(". "))) == (
        "completed",
        {"Ever tried", "Ever tried."},
    )
    assert len(upstream.calls) == job["progress"]["total"] + 1 == len(parts) + 1
    assert first.objects() == [f"transcripts/{job_id}.json"]
    assert not [item for item in first.items() if item["sk"].startswith("part")]


def test_the_longest_options_and_names_fit_the_table(faulty_aws_server, webm):
    server = faulty_aws_server(FaultyAWS(), FakeUpstream())
    longest_options = {
        "prompt": "🎙" * 20_000,
        "keywords": ["🎙" * 100] * 200,
        "filename": "🎙" * 1000,
    }
    created = server.request_upload(len(webm), **longest_options)
    assert created.status_code == 201, created.text
    with server.running_worker():
        server.post(created.json()["upload"], webm)
        assert Caller(server).wait_for_transcript(created.json()["id"]) == "Ever tried."


@pytest.mark.parametrize("more", [{"keywords": ["word" * 25] * 201}, {"languages": ["en"] * 101}])
def test_options_that_are_too_large_for_the_table_are_rejected(faulty_aws_server, more):
    response = faulty_aws_server(FaultyAWS(), FakeUpstream()).request_upload(**more)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_option")


def test_a_part_whose_text_is_too_large_fails_its_job_and_is_billed_once(aws):
    # The text is compressed to about 210 kB and stored twice. DynamoDB items are limited to 400 kB.
    text = os.urandom(210_000).hex()
    upstream = FakeUpstream(transcript_response(text))
    harness = Harness(aws, upstream)
    job_id = harness.upload(long_recording("ogg", 15))
    harness.run_worker(harness.upload_record(job_id))
    job = harness.job(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "internal_error")
    assert "too large to be stored" in job["error"]["detail"]
    assert len(upstream.calls) == 1
