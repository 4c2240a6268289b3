"""Tests of transcribe_part.py: a part is sent only once, even if its message is delivered again."""

import threading
from dataclasses import replace

import httpx2
import pytest

from handler.jobs.store import Jobs
from tests.conftest import settings
from tests.fake_upstream import FakeUpstream, error_response, transcript_response
from tests.harness import (
    PACING,
    Clock,
    Harness,
    before_call,
    failing_calls,
    outage,
    run_concurrently,
    visibility_timeouts,
)
from tests.samples import long_recording, recording

CONNECTION_LOST = httpx2.ReadError("reset")


@pytest.fixture
def harness(aws):
    return Harness(aws)


@pytest.fixture
def clock():
    return Clock()


class Crash(BaseException):
    """A simulated worker crash: a BaseException, which `except Exception` does not catch."""


# Claims


def test_two_concurrent_deliveries_of_a_part_are_billed_once(aws):
    """The message is delivered again while the upstream is still processing the first request."""
    called, returned = threading.Event(), threading.Event()

    def wait_for_the_second(_):
        called.set()
        assert returned.wait(60)
        return transcript_response("Ever tried.")

    upstream = FakeUpstream(wait_for_the_second)
    harness = Harness(aws, upstream)
    job_id = harness.upload(recording("webm"))
    (part,) = harness.cut(job_id)

    def second():
        assert called.wait(60)
        try:
            return harness.handle(part)
        finally:
            returned.set()

    assert run_concurrently(lambda: harness.handle(part), second) == [[], [part["messageId"]]]
    assert harness.job(job_id)["seconds_paid"] == 3
    assert harness.handle(part) == []
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(("deliveries", "seconds"), [(1, 5), (3, 20), (9, PACING.claim_seconds)])
def test_the_visibility_timeout_increases_with_each_delivery_that_finds_a_claim(
    harness, deliveries, seconds
):
    (part,) = harness.cut(harness.upload(recording("webm")))
    with failing_calls(harness, "s3.HeadObject", Crash()), pytest.raises(Crash):
        harness.handle(part)
    again = part | {"attributes": {"ApproximateReceiveCount": str(deliveries)}}
    with visibility_timeouts(harness) as timeouts:
        assert harness.handle(again) == [part["messageId"]]
    assert timeouts == [PACING.claim_seconds, seconds]


def test_the_claim_and_the_message_are_renewed_while_a_part_is_transcribed(aws, clock):
    renewed = threading.Semaphore(0)
    claim_seconds = 0.06

    def take_long(_):
        for _ in range(3):
            while renewed.acquire(blocking=False):
                pass
            clock.now += claim_seconds * 0.9
            for _ in range(2):  # the first renewal may have begun before the clock was changed
                assert renewed.acquire(timeout=60)
            assert other.handle(part) == [part["messageId"]]
        return transcript_response("Ever tried.")

    upstream = FakeUpstream(take_long)
    jobs = Jobs(settings(**aws), clock)
    harness = Harness(aws, upstream, jobs=jobs, pacing=replace(PACING, claim_seconds=claim_seconds))
    other = Harness(aws, upstream, jobs=Jobs(settings(**aws), clock))
    job_id = harness.upload(recording("webm"))
    (part,) = harness.cut(job_id)
    jobs.queues.sqs.meta.events.register(
        "after-call.sqs.ChangeMessageVisibility", lambda **_: renewed.release()
    )
    assert harness.handle(part) == []
    assert harness.job(job_id)["status"] == "completed"
    assert len(upstream.calls) == 1


def test_the_claim_of_a_crashed_worker_expires(aws, clock):
    harness = Harness(aws, jobs=Jobs(settings(**aws), clock))
    job_id = harness.upload(recording("webm"))
    (part,) = harness.cut(job_id)
    with failing_calls(harness, "s3.HeadObject", Crash()), pytest.raises(Crash):
        harness.handle(part)
    clock.now += PACING.claim_seconds - 1
    assert harness.handle(part) == [part["messageId"]]
    clock.now += 2
    assert harness.handle(part) == []
    assert harness.job(job_id)["status"] == "completed"


def test_the_same_recording_in_two_jobs_is_billed_once(aws):
    """The worker crashes after storing the first job's result, which the second job then uses."""
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    identities = [harness.upload(recording("webm")) for _ in range(2)]
    assert harness.handle(*harness.messages()) == []
    parts = harness.part_messages()
    with failing_calls(harness, "dynamodb.UpdateItem", Crash(), "ADD saved"), pytest.raises(Crash):
        harness.handle(parts[0])
    assert harness.handle(parts[1]) == []
    assert harness.handle(parts[0]) == []
    assert sorted(harness.job(job_id)["seconds_paid"] for job_id in identities) == [0, 3]
    assert len(upstream.calls) == 1


def test_parts_are_sent_concurrently(aws):
    together = threading.Barrier(3)

    def wait_for_all(request):
        together.wait(timeout=60)
        return transcript_response(f"Part of {len(request.read())} bytes.")

    harness = Harness(aws, httpx2.MockTransport(wait_for_all))
    job_id = harness.upload(long_recording("ogg", 80))
    run_concurrently(*[lambda part=part: harness.handle(part) for part in harness.cut(job_id)])
    job = harness.job(job_id)
    assert (job["status"], job["progress"]) == ("completed", {"done": 3, "total": 3})


# Repeated, late and outdated messages


def test_a_message_that_is_delivered_again_changes_nothing(aws):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    job_id = harness.upload(long_recording("ogg", 40))
    first, second = harness.cut(job_id)
    for _ in range(2):
        assert harness.handle(first) == []
        assert harness.job(job_id)["progress"] == {"done": 1, "total": 2}
    assert harness.handle(second) == []
    completed = harness.job(job_id)
    assert completed["status"] == "completed"
    for part in (first, second):
        assert harness.handle(part) == []
    assert harness.job(job_id) == completed
    assert harness.objects() == [f"transcripts/{job_id}.json"]
    assert len(upstream.calls) == 2


def test_a_message_of_a_deleted_job_leaves_nothing(aws):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    job_id = harness.upload(recording("webm"))
    (part,) = harness.cut(job_id)
    harness.jobs.delete(job_id)
    assert harness.handle(part) == []
    assert (harness.objects(), harness.items(), upstream.calls) == ([], [], [])


def test_a_message_of_a_failed_job_is_deleted(aws):
    upstream = FakeUpstream(error_response(400))
    harness = Harness(aws, upstream)
    job_id = harness.upload(long_recording("ogg", 40))
    first, second = harness.cut(job_id)
    assert harness.handle(first) == []
    failed = harness.job(job_id)
    assert harness.handle(second) == []
    assert harness.job(job_id) == failed
    assert len(upstream.calls) == 1


def test_a_message_of_an_older_generation_changes_nothing(aws):
    upstream = FakeUpstream(error_response(400))
    harness = Harness(aws, upstream)
    job_id = harness.upload(long_recording("ogg", 40))
    first, second = harness.cut(job_id)
    assert harness.handle(first) == []
    assert harness.http.post(f"/api/transcriptions/{job_id}/retry").status_code == 202
    assert harness.handle(second) == []  # before the recording is cut again
    parts = harness.cut(job_id)
    job = harness.job(job_id)
    assert (job["status"], job["progress"]) == ("processing", {"done": 0, "total": 2})
    assert harness.handle(second) == []
    assert harness.job(job_id) == job
    assert len(upstream.calls) == 1
    for part in parts:
        assert harness.handle(part) == []
    assert harness.job(job_id)["status"] == "completed"


def test_a_message_of_an_older_generation_changes_nothing_during_the_next_cut(aws):
    upstream = FakeUpstream(error_response(400))
    harness, other = Harness(aws, upstream), Harness(aws, upstream)
    job_id = harness.upload(long_recording("ogg", 40))
    first, second = harness.cut(job_id)
    assert harness.handle(first) == []
    assert harness.http.post(f"/api/transcriptions/{job_id}/retry").status_code == 202
    with before_call(harness, "s3.HeadObject", lambda _: other.handle(second)):
        assert harness.handle(harness.upload_record(job_id)) == []
    assert harness.job(job_id)["status"] == "processing"
    while harness.handle_part_records():
        pass
    assert harness.job(job_id)["status"] == "completed"


@pytest.mark.parametrize(
    "reply",
    [error_response(400), transcript_response("Ever tried.")],
    ids=["refused", "transcribed"],
)
def test_a_part_in_flight_while_its_job_is_retried_changes_nothing(aws, reply):
    """Another part makes the job fail, and the job is retried before the upstream responds."""

    def fail_and_retry(_):
        assert other.handle(second) == []
        assert other.job(job_id)["status"] == "failed"
        assert other.http.post(f"/api/transcriptions/{job_id}/retry").status_code == 202
        parts.extend(other.cut(job_id))
        return reply

    parts = []
    upstream = FakeUpstream(fail_and_retry, error_response(401))
    harness, other = Harness(aws, upstream), Harness(aws, upstream)
    job_id = harness.upload(long_recording("ogg", 40))
    first, second = harness.cut(job_id)
    assert harness.handle(first) == []
    assert (harness.job(job_id)["status"], harness.job(job_id)["progress"]["done"]) == (
        "processing",
        0,
    )
    assert len(parts) == 2
    for part in parts:
        assert harness.handle(part) == []
    assert harness.job(job_id)["status"] == "completed"
    assert len(upstream.calls) == 3 + (reply.status_code == 400)


def test_a_job_that_is_deleted_while_a_part_is_sent_leaves_nothing(aws):
    def delete_then_respond(_):
        harness.jobs.delete(job_id)
        return transcript_response("Ever tried.")

    harness = Harness(aws, FakeUpstream(delete_then_respond))
    job_id = harness.upload(recording("webm"))
    (part,) = harness.cut(job_id)
    assert harness.handle(part) == []
    assert (harness.job(job_id)["code"], harness.objects(), harness.items()) == (
        "not_found",
        [],
        [],
    )


# Attempts


def test_a_busy_upstream_is_retried_until_it_accepts_the_part(aws):
    upstream = FakeUpstream(*[error_response(429, retry_after="0")] * 12)
    harness = Harness(aws, upstream)
    job_id = harness.upload(recording("webm"))
    (part,) = harness.cut(job_id)
    for _ in range(12):
        assert harness.handle(part) == [part["messageId"]]
        assert harness.job(job_id)["status"] == "processing"
    assert harness.handle(part) == []
    assert (harness.job(job_id)["status"], harness.job(job_id)["seconds_paid"]) == ("completed", 3)


def test_while_the_upstream_is_busy_no_part_is_sent(aws, clock):
    upstream = FakeUpstream(error_response(429, retry_after="7"))
    harness = Harness(aws, upstream, jobs=Jobs(settings(**aws), clock))
    job_id = harness.upload(long_recording("ogg", 40))
    first, second = harness.cut(job_id)
    with visibility_timeouts(harness) as timeouts:
        for part in (first, second, first):
            assert harness.handle(part) == [part["messageId"]]
    assert len(upstream.calls) == 1
    assert all(7 <= seconds <= 9 for seconds in timeouts[1::2])  # 7 s plus a random delay
    for part in (first, second):
        clock.now += 7.1
        assert harness.handle(part) == []
    assert harness.job(job_id)["status"] == "completed"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (error_response(429, "insufficient_quota"), "upstream_quota"),
        (error_response(401), "upstream_credentials"),
        (error_response(404), "upstream_model"),
        (error_response(400), "unreadable_recording"),
    ],
)
def test_a_permanent_error_fails_the_job_at_once_and_keeps_the_recording(aws, reply, code):
    upstream = FakeUpstream(reply)
    harness = Harness(aws, upstream)
    job_id = harness.upload(recording("webm"))
    assert harness.run_worker() == []
    assert (harness.job(job_id)["status"], harness.job(job_id)["error"]["code"]) == ("failed", code)
    assert len(upstream.calls) == 1
    assert harness.objects() == [f"uploads/{job_id}.webm"]


@pytest.mark.parametrize(
    ("failure", "times", "code"),
    [
        (CONNECTION_LOST, 3, "upstream_failed"),  # each attempt may have been billed
        (httpx2.ReadTimeout("late"), 3, "upstream_timeout"),
        (httpx2.Response(502), 3, "upstream_failed"),
        (error_response(500), 10, "upstream_failed"),
        (httpx2.ConnectError("connection refused"), 10, "upstream_failed"),
    ],
)
def test_attempts_at_a_failing_upstream_are_limited(aws, failure, times, code):
    upstream = FakeUpstream(*[failure] * 20)
    harness = Harness(aws, upstream)
    job_id = harness.upload(recording("webm"))
    (part,) = harness.cut(job_id)
    for _ in range(times - 1):
        assert harness.handle(part) == [part["messageId"]]
        assert harness.job(job_id)["status"] == "processing"
    assert harness.handle(part) == []
    assert (harness.job(job_id)["status"], harness.job(job_id)["error"]["code"]) == ("failed", code)
    assert len(upstream.calls) == times
    assert harness.objects() == [f"uploads/{job_id}.webm"]


def test_a_retry_resets_the_attempts(aws):
    upstream = FakeUpstream(*[CONNECTION_LOST] * 5)
    harness = Harness(aws, upstream)
    job_id = harness.upload(recording("webm"))
    harness.run_worker()
    assert harness.job(job_id)["status"] == "failed"
    assert harness.http.post(f"/api/transcriptions/{job_id}/retry").status_code == 202
    harness.run_worker()
    assert harness.job(job_id)["status"] == "completed"
    assert len(upstream.calls) == 6


def test_a_busy_upstream_and_a_broken_connection_do_not_fail_a_job(aws):
    busy = [error_response(429, retry_after="0")] * 3
    harness = Harness(aws, FakeUpstream(*busy, httpx2.Response(502), CONNECTION_LOST))
    job_id = harness.upload(recording("webm"))
    harness.run_worker()
    assert harness.job(job_id)["status"] == "completed"


@pytest.mark.parametrize(("deliveries", "seconds"), [(1, 2), (3, 8), (9, 60)])
def test_the_pauses_after_failures_increase(aws, deliveries, seconds):
    harness = Harness(
        aws, FakeUpstream(CONNECTION_LOST), pacing=replace(PACING, first_backoff_seconds=2)
    )
    (part,) = harness.cut(harness.upload(recording("webm")))
    again = part | {"attributes": {"ApproximateReceiveCount": str(deliveries)}}
    with visibility_timeouts(harness) as timeouts:
        assert harness.handle(again) == [part["messageId"]]
    assert seconds <= timeouts[-1] <= seconds * 1.25 + 1


def test_a_function_near_its_timeout_sends_nothing(aws):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    job_id = harness.upload(recording("webm"))
    (part,) = harness.cut(job_id)

    class EndingContext:
        def get_remaining_time_in_millis(self):
            return 30_000

    assert harness.handle(part, context=EndingContext()) == [part["messageId"]]
    assert (harness.job(job_id)["status"], upstream.calls) == ("processing", [])


# Billed requests


@pytest.mark.parametrize(
    ("failure", "paid"),
    [(CONNECTION_LOST, 6), (error_response(500), 3), (error_response(429, retry_after="0"), 3)],
)
def test_only_a_request_that_may_have_been_billed_counts_as_billed(aws, failure, paid):
    harness = Harness(aws, FakeUpstream(failure))
    job_id = harness.upload(recording("ogg"))
    harness.run_worker()
    assert harness.job(job_id)["seconds_paid"] == pytest.approx(paid, abs=0.1)


def test_a_part_whose_worker_always_crashes_fails_its_job(aws, clock):
    def crash(_):
        raise Crash

    upstream = FakeUpstream(*[crash] * 9)
    harness = Harness(aws, upstream, jobs=Jobs(settings(**aws), clock))
    job_id = harness.upload(recording("webm"))
    (part,) = harness.cut(job_id)
    for _ in range(5):
        with pytest.raises(Crash):
            harness.handle(part)
        clock.now += PACING.claim_seconds + 1
    assert harness.handle(part) == []
    assert (harness.job(job_id)["status"], harness.job(job_id)["error"]["code"]) == (
        "failed",
        "internal_error",
    )
    assert len(upstream.calls) == 5


def test_a_response_that_was_lost_in_a_crash_counts_as_billed(aws, clock):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream, jobs=Jobs(settings(**aws), clock))
    job_id = harness.upload(recording("ogg"))
    (part,) = harness.cut(job_id)
    with failing_calls(harness, "dynamodb.PutItem", Crash(), "'paid'"), pytest.raises(Crash):
        harness.handle(part)
    clock.now += PACING.claim_seconds + 1
    assert harness.handle(part) == []
    assert harness.job(job_id)["seconds_paid"] == pytest.approx(6, abs=0.1)
    assert len(upstream.calls) == 2


@pytest.mark.parametrize(
    ("operation", "write"), [("PutItem", "'heard'"), ("UpdateItem", "ADD saved")]
)
def test_a_response_that_was_stored_before_a_crash_is_used_and_counts_as_billed(
    aws, operation, write
):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    job_id = harness.upload(recording("webm"))
    (part,) = harness.cut(job_id)
    with failing_calls(harness, f"dynamodb.{operation}", ConnectionResetError(), write):
        assert harness.handle(part) == [part["messageId"]]
    assert harness.handle(part) == []
    assert (harness.job(job_id)["status"], harness.job(job_id)["seconds_paid"]) == ("completed", 3)
    assert len(upstream.calls) == 1


def test_parts_in_flight_when_another_fails_are_billed_and_kept(aws):
    """The upstream rejects the third part while it is still transcribing the first two."""
    both_called, failed = threading.Barrier(3), threading.Event()

    def wait_for_the_third(_):
        both_called.wait(60)
        assert failed.wait(60)
        return transcript_response("Ever tried.")

    harness = Harness(aws, FakeUpstream(*[wait_for_the_third] * 2, error_response(400)))
    job_id = harness.upload(long_recording("ogg", 80))
    first, second, third = harness.cut(job_id)

    def fail():
        both_called.wait(60)
        assert harness.handle(third) == []
        failed.set()

    run_concurrently(lambda: harness.handle(first), lambda: harness.handle(second), fail)
    job = harness.job(job_id)
    assert (job["status"], job["progress"]["done"], job["seconds_paid"]) == ("failed", 2, 6)


# AWS outages


@pytest.mark.parametrize(("deliveries", "seconds"), [(1, 60), (4, 480), (200, 900)])
@pytest.mark.parametrize("call", ["dynamodb.GetItem", "s3.HeadObject"])
def test_in_an_outage_the_visibility_timeout_increases_with_each_delivery(
    harness, call, deliveries, seconds
):
    (part,) = harness.cut(harness.upload(recording("webm")))
    again = part | {"attributes": {"ApproximateReceiveCount": str(deliveries)}}
    with outage(harness, call), visibility_timeouts(harness) as timeouts:
        assert harness.handle(again) == [part["messageId"]]
    assert timeouts == [PACING.claim_seconds, seconds]


@pytest.mark.parametrize("call", ["s3.HeadObject", "secretsmanager.GetSecretValue"])
def test_an_outage_does_not_count_as_an_attempt(aws, call):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream, openai_api_key=None, openai_secret_arn="steno")
    job_id = harness.upload(recording("webm"))
    (part,) = harness.cut(job_id)
    with outage(harness, call), visibility_timeouts(harness) as timeouts:
        for _ in range(6):
            assert harness.handle(part) == [part["messageId"]]
            assert harness.job(job_id)["status"] == "processing"
    assert timeouts == [PACING.claim_seconds, 60] * 6
    assert harness.handle(part) == []
    assert (harness.job(job_id)["seconds_paid"], len(upstream.calls)) == (3, 1)
