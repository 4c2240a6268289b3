"""Tests of direct.py and purchase.py: requests are billed only once and can become jobs."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import openai
import pytest

from handler.billing.budget import Budget
from handler.errors import error_from_code
from handler.jobs.store import Jobs
from tests.callers import Caller
from tests.conftest import serving, settings
from tests.fake_upstream import FakeUpstream, error_response, transcript_response
from tests.harness import Clock, Server, is_part_request
from tests.samples import asset, long_recording, recording, silent_video, wav

WORDS = "Ever tried."


# Billing once


def test_the_same_recording_in_ten_requests_is_billed_once(server):
    together, content = threading.Barrier(5), long_recording("wav", 11)
    assert len(content) > 1_000_000
    pause = threading.Event()

    def respond_slowly(_):
        pause.wait(1)  # so that the other requests arrive while the first is in flight
        return transcript_response(WORDS)

    upstream = FakeUpstream(respond_slowly)
    harness = server(upstream, idle=True)

    def send(_):
        together.wait()
        return harness.send(content)

    with ThreadPoolExecutor(5) as pool:
        at_once = list(pool.map(send, range(5)))
    after = [harness.send(content) for _ in range(5)]
    assert [response.json() for response in at_once + after] == [{"transcript": WORDS}] * 10
    assert len(upstream.calls) == 1


def test_another_model_language_recording_or_upstream_is_billed_again(server):
    upstream, content = FakeUpstream(), recording("webm")
    harness = server(upstream, idle=True)
    for fields in ({}, {"model": "whisper-1"}, {"language": "en"}, {"response_format": "text"}):
        assert harness.send(content, **fields).status_code == 200
    harness.send(recording("ogg"))
    assert len(upstream.calls) == 4  # `json` and `text` share one upstream request
    server(upstream, idle=True, openai_base_url="http://another.example/v1").send(content)
    assert len(upstream.calls) == 5


def test_a_paid_result_is_shared_by_requests_and_jobs(server):
    upstream = FakeUpstream()
    harness = server(upstream, idle=True)
    first, second = recording("webm"), recording("ogg")
    assert harness.send(first).json() == {"transcript": WORDS}
    job_id = harness.upload(first)
    harness.run_worker(harness.upload_record(job_id))
    assert (harness.job(job_id)["transcript"], harness.job(job_id)["seconds_paid"]) == (WORDS, 0)
    job_id = harness.upload(second)
    harness.run_worker(harness.upload_record(job_id))
    assert harness.job(job_id)["seconds_paid"] == 3
    assert harness.send(second).json() == {"transcript": WORDS}
    assert harness.send(second, "/v1/audio/transcriptions").json()["text"] == WORDS
    assert len(upstream.calls) == 2


def test_a_request_that_failed_without_being_billed_can_be_repeated(server):
    upstream = FakeUpstream(error_response(401), transcript_response(WORDS))
    harness = server(upstream, idle=True)
    assert harness.send(recording("webm")).status_code == 502
    assert harness.send(recording("webm")).json() == {"transcript": WORDS}


def test_the_complete_upstream_response_is_stored(server):
    harness = server(
        FakeUpstream(transcript_response(WORDS, languages=[{"code": "en"}])), idle=True
    )
    content = recording("webm")
    first, second = (harness.send(content, "/v1/audio/transcriptions") for _ in range(2))
    assert first.json() == second.json()
    assert first.json()["languages"] == [{"code": "en"}]


# Requests that become jobs


@pytest.mark.parametrize("kind", ["aac", "aiff", "asf", "avi", "caf", "mpeg-ts"])
def test_a_format_that_the_upstream_does_not_accept_is_converted(server, kind):
    upstream = FakeUpstream()
    response = server(upstream).send(recording(kind))
    assert (response.status_code, response.json()) == (200, {"transcript": WORDS})
    assert response.headers["Steno-Model"] == "gpt-transcribe"
    assert all(map(is_part_request, upstream.calls))


def test_an_amr_without_speech_is_not_billed(server):
    upstream = FakeUpstream()
    response = server(upstream).send(
        recording("amr"), model="whisper-1", response_format="verbose_json"
    )
    assert (response.json()["transcript"], response.json()["no_speech"], upstream.calls) == (
        "",
        True,
        [],
    )


def test_a_recording_that_the_upstream_cannot_read_is_converted(server):
    """OpenAI rejects some recordings made with Safari."""
    upstream = FakeUpstream(error_response(400))
    response = server(upstream).send(recording("fragmented mp4"), response_format="text")
    assert (response.status_code, response.text) == (200, f"{WORDS}\n")
    assert [is_part_request(call) for call in upstream.calls] == [False, True]


def test_a_response_for_a_fraction_of_the_recording_is_not_accepted(server):
    """OpenAI transcribes only the first second of some Safari recordings, and still returns 200."""
    first_second = httpx2.Response(
        200, json={"text": "Ever", "usage": {"type": "duration", "seconds": 1}}
    )
    upstream = FakeUpstream(first_second)
    harness = server(upstream)
    for _ in range(2):
        assert harness.send(recording("fragmented mp4", seconds=10)).json() == {"transcript": WORDS}
    assert [is_part_request(call) for call in upstream.calls] == [False, True]


@pytest.mark.parametrize("kind", ["mp4", "webm", "mp3"])
def test_a_short_response_to_a_valid_recording_is_accepted(server, kind):
    upstream = FakeUpstream(
        httpx2.Response(200, json={"text": "", "usage": {"type": "duration", "seconds": 1}})
    )
    assert server(upstream, idle=True).send(recording(kind, seconds=10)).status_code == 200
    assert len(upstream.calls) == 1


def test_a_recording_too_long_for_the_deadline_becomes_a_job_before_anything_is_billed(server):
    upstream = FakeUpstream()
    harness = server(upstream, idle=True, request_deadline_seconds=2)
    response = harness.send(long_recording("webm", 120))
    assert response.status_code == 202
    assert response.json()["status"] == "queued"
    assert response.headers["Location"] == f"/api/transcriptions/{response.json()['id']}"
    assert response.headers["Retry-After"]
    assert upstream.calls == []
    with harness.running_worker():
        done = harness.send(long_recording("webm", 120), "/v1/audio/transcriptions")
        assert done.status_code in (200, 503)
        assert WORDS in Caller(harness).wait_for_transcript(response.json()["id"])
    assert all(map(is_part_request, upstream.calls))


def test_a_recording_is_transcribed_although_the_upstream_hangs_once(server):
    release = threading.Event()

    def hang(_):
        release.wait(20)
        return transcript_response("too late")

    harness = server(FakeUpstream(hang), request_deadline_seconds=6)
    response = harness.send(recording("webm"))
    release.set()
    assert response.status_code in (200, 202)
    if response.status_code == 202:
        response = harness.send(recording("webm"))
    assert response.json() == {"transcript": WORDS}


def test_a_repeated_request_after_a_possibly_billed_one_joins_its_job(server):
    """The first request hangs and becomes a job. Later requests for its recording get that job."""
    release = threading.Event()

    def hang(_):
        release.wait(20)
        return transcript_response("too late")

    upstream, content = FakeUpstream(hang), recording("webm")
    harness = server(upstream, idle=True, request_deadline_seconds=4)
    responses = [harness.send(content) for _ in range(3)]
    release.set()
    assert [response.status_code for response in responses] == [202] * 3
    assert len({response.headers["Location"] for response in responses}) == 1
    assert len(upstream.calls) == 1
    harness.run_worker(harness.upload_record(responses[0].json()["id"]))
    assert harness.send(content).json() == {"transcript": WORDS}
    assert [is_part_request(call) for call in upstream.calls] == [False, True]


def test_the_recording_in_the_bucket_is_complete_while_an_abandoned_call_reads_it(server):
    """The abandoned call and the upload read the same file, so each needs its own file position."""
    abandoned, all_sent, sent = threading.Event(), threading.Event(), []

    class SlowReader(httpx2.BaseTransport):
        def handle_request(self, request):
            for chunk in request.stream:
                sent.append(chunk)
                if len(sent) == 3:
                    abandoned.wait(20)
            all_sent.set()
            return transcript_response("too late")

    content = recording("wav", "two_cities.wav", 5)
    harness = server(SlowReader(), idle=True, request_deadline_seconds=6)
    job_id = harness.send(content).json()["id"]
    abandoned.set()
    assert (
        harness.s3.get_object(Bucket="steno", Key=f"requests/{job_id}.wav")["Body"].read()
        == content
    )
    assert all_sent.wait(20)
    assert content in b"".join(sent)


def test_a_transcript_is_returned_although_the_ledger_cannot_be_written(server):
    harness = server(idle=True, daily_seconds=900)

    def fail(params, **_):
        is_reservation = ":max" in params.get("ExpressionAttributeValues", {})
        if "transcript" in params.get("Item", {}) or not is_reservation:
            raise ConnectionResetError

    events = harness.jobs.client.meta.events
    events.register("provide-client-params.dynamodb.PutItem", fail)
    assert harness.send(recording("webm")).json() == {"transcript": WORDS}


def test_a_busy_upstream_error_is_safe_to_retry():
    error = error_from_code("upstream_busy", "busy")
    assert (error.safe_to_retry, error.retry_after) == (True, 5)


@pytest.mark.parametrize(
    ("usage", "seconds"),
    [
        ({"type": "duration", "seconds": 3}, 3),
        (
            {
                "type": "tokens",
                "input_tokens": 31,
                "output_tokens": 4,
                "input_token_details": {"audio_tokens": 30},
            },
            3,
        ),
        ({"type": "duration", "seconds": "many"}, None),
        ({}, None),
    ],
)
def test_the_budget_counts_the_billed_seconds_of_every_kind_of_usage(server, usage, seconds):
    upstream = FakeUpstream(httpx2.Response(200, json={"text": WORDS, "usage": usage}))
    harness, content = server(upstream, idle=True, daily_seconds=900), recording("webm")
    harness.send(content)
    estimate = len(content) / 4000  # at a typical bit rate, used if the response reports no usage
    assert spent(harness)["all"] == pytest.approx(seconds or estimate, abs=0.01)


def test_the_worker_waits_for_a_busy_upstream(server):
    harness = server(FakeUpstream(error_response(429, retry_after="100"), words=WORDS))
    assert harness.send(recording("webm")).json() == {"transcript": WORDS}


@pytest.mark.parametrize(
    ("content", "upstream", "status", "code"),
    [
        (
            recording("webm"),
            lambda: FakeUpstream(*[error_response(400)] * 2),
            422,
            "unreadable_recording",
        ),
        (silent_video(), lambda: FakeUpstream(error_response(400)), 422, "no_audio"),
        (
            recording("aac"),
            lambda: FakeUpstream(error_response(429, "insufficient_quota")),
            502,
            "upstream_quota",
        ),
    ],
)
def test_a_job_that_fails_before_the_deadline_is_the_error_of_the_request(
    server, content, upstream, status, code
):
    response = server(upstream()).send(content)
    assert (response.status_code, response.json()["code"]) == (status, code)
    # With this URL, the caller can retry or delete the job.
    assert response.headers["Location"].startswith("/api/transcriptions/")


def test_a_request_for_logprobs_does_not_become_a_job(server):
    upstream = FakeUpstream(error_response(400))
    response = server(upstream, idle=True).send(
        recording("webm"), "/v1/audio/transcriptions", model="gpt-4o-transcribe", include="logprobs"
    )
    assert response.json()["error"]["code"] == "unreadable_recording"


def test_without_a_bucket_the_upstream_error_is_returned(client):
    response = client(FakeUpstream(error_response(400))).post(
        "/api/transcribe", files={"file": recording("webm")}
    )
    assert response.json()["code"] == "unreadable_recording"


def test_the_openai_sdk_gets_the_text_of_a_job_by_its_retries(server):
    """The first request creates a job. The SDK's retries send the same file and get its text."""
    harness = server(FakeUpstream(), idle=True, request_deadline_seconds=1)
    with (
        serving(harness.app) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as once,
    ):
        with pytest.raises(openai.InternalServerError) as busy:
            once.audio.transcriptions.create(
                model="gpt-transcribe", file=("a.aac", recording("aac"))
            )
        assert busy.value.response.headers["retry-after"]
        assert busy.value.response.headers["x-should-retry"] == "true"
        with harness.running_worker():
            response = once.with_options(max_retries=9).audio.transcriptions.create(
                model="gpt-transcribe", file=("a.aac", recording("aac"))
            )
    assert response.text == WORDS
    assert response.usage.seconds == pytest.approx(3, abs=1)


def test_a_failed_job_is_retried_by_the_same_recording(server):
    upstream = FakeUpstream(error_response(401))
    harness = server(upstream)
    assert harness.send(recording("aac")).json()["code"] == "upstream_credentials"
    assert harness.send(recording("aac")).json() == {"transcript": WORDS}


# The daily budget


def spent(harness):
    found = harness.jobs.client.scan(TableName="steno")["Items"]
    return {
        item["sk"].partition("#")[0]: float(item["seconds"])
        for item in found
        if item["pk"].startswith("spent#")
    }


def test_concurrent_requests_are_accepted_up_to_the_cap(server):
    upstream = FakeUpstream()
    harness = server(upstream, daily_seconds=13, request_deadline_seconds=60)
    recordings = [recording("ogg", "two_cities.wav", 3 + number / 10) for number in range(9)]
    with ThreadPoolExecutor(9) as pool:
        responses = list(pool.map(harness.send, recordings))
    bodies = [response.json() for response in responses]
    results = [body.get("code") or body.get("transcript") for body in bodies]
    assert set(results) == {WORDS, "budget_exhausted"}
    assert 3 <= results.count(WORDS) == len(upstream.calls) <= 4
    assert spent(harness)["all"] == 3 * len(upstream.calls) <= 13


def test_an_exhausted_budget_has_the_time_of_its_reset(server):
    harness = server(idle=True, daily_seconds_per_caller=3)
    harness.services.jobs.budget.reserve("testclient", 3)
    response = harness.request_upload()
    assert (response.status_code, response.json()["code"]) == (429, "budget_exhausted")
    assert 0 < int(response.headers["Retry-After"]) <= 86_400
    assert "00:00 UTC" in response.json()["detail"]


def test_openais_sdks_do_not_retry_if_the_budget_is_exhausted(server):
    harness = server(idle=True, daily_seconds_per_caller=3)
    harness.services.jobs.budget.reserve("testclient", 3)
    response = harness.send(recording("webm"), "/v1/audio/transcriptions", model="gpt-transcribe")
    assert (response.status_code, response.headers["x-should-retry"]) == (429, "false")


def test_each_caller_has_its_own_budget(server):
    budget = server(idle=True, daily_seconds=10, daily_seconds_per_caller=6).services.jobs.budget
    budget.reserve("ada", 6)
    for caller, seconds in (("ada", 1), ("bob", 5)):
        with pytest.raises(Exception, match="00:00 UTC"):
            budget.reserve(caller, seconds)
    budget.reserve("bob", 4)


def test_a_reservation_from_before_midnight_is_settled_on_its_day(server):
    harness = server(idle=True, daily_seconds=10)
    now = [1_800_000_000 // 86_400 * 86_400 - 1.0]
    budget = Budget(harness.jobs.client, "steno", 10, None, lambda: now[0])
    reservation = budget.reserve("ada", 8)
    now[0] += 2
    budget.settle(reservation, 3)
    found = harness.jobs.client.scan(TableName="steno")["Items"]
    assert [float(item["seconds"]) for item in found if item["pk"].startswith("spent#")] == [3]


def test_a_reservation_is_settled_with_the_billed_seconds(server):
    harness = server(
        FakeUpstream(error_response(401), transcript_response(WORDS), httpx2.Response(502)),
        idle=True,
        daily_seconds=900,
    )
    harness.send(recording("webm"))
    assert spent(harness) == {"all": 0}
    harness.send(recording("webm"))
    assert spent(harness) == {"all": 3}
    harness.send(recording("webm"))
    assert spent(harness)["all"] > 3  # the last request may have been billed


def test_a_job_over_the_cap_fails_before_anything_is_billed_and_can_be_retried_the_next_day(aws):
    upstream = FakeUpstream()
    clock = Clock()
    harness = Server(aws, upstream, Jobs(settings(**aws, daily_seconds=100), clock))
    harness.jobs.budget.reserve("another caller", 50)
    job_id = harness.upload(wav(asset("beckett.wav")[44:] * 8))
    harness.run_worker(harness.upload_record(job_id))
    job = harness.job(job_id)
    assert (job["status"], job["error"]["code"], upstream.calls) == (
        "failed",
        "budget_exhausted",
        [],
    )
    clock.now += 86_400
    assert harness.http.post(f"/api/transcriptions/{job_id}/retry").status_code == 202
    harness.run_worker(harness.upload_record(job_id))
    job = harness.job(job_id)
    assert (job["status"], job["seconds_paid"]) == ("completed", 3 * len(upstream.calls))
