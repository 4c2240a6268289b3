"""transcribe_part.py: each part is sent once, however often its message is delivered."""

import threading
from dataclasses import replace

import httpx2
import pytest

from handler.jobs.store import Jobs
from tests.conftest import settings
from tests.false_upstream import FalseUpstream, heard, refused
from tests.place import PACING, Clock, Place, at_once, before, failing, outage, visibilities
from tests.samples import long_recording, recording

UNPLUGGED = httpx2.ReadError("unplugged")


@pytest.fixture
def place(aws):
    return Place(aws)


@pytest.fixture
def clock():
    return Clock()


class Death(BaseException):
    """Ends a worker as a signal does: none of its code handles it."""


# Claims


def test_two_deliveries_of_a_part_at_the_same_moment_pay_once(aws):
    """The second meets the claim of the first while the upstream works."""
    asked, given_back = threading.Event(), threading.Event()

    def wait_for_the_second(_):
        asked.set()
        assert given_back.wait(60)
        return heard("Ever tried.")

    upstream = FalseUpstream(wait_for_the_second)
    place = Place(aws, upstream)
    identity = place.upload(recording("webm"))
    (part,) = place.cut(identity)

    def second():
        assert asked.wait(60)
        try:
            return place.handle(part)
        finally:
            given_back.set()

    assert at_once(lambda: place.handle(part), second) == [[], [part["messageId"]]]
    assert place.job(identity)["seconds_paid"] == 3
    assert place.handle(part) == []
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(("deliveries", "seconds"), [(1, 5), (3, 20), (9, PACING.claim_seconds)])
def test_a_delivery_that_meets_a_claim_comes_again_later_each_time(place, deliveries, seconds):
    (part,) = place.cut(place.upload(recording("webm")))
    with failing(place, "s3.HeadObject", Death()), pytest.raises(Death):
        place.handle(part)
    again = part | {"attributes": {"ApproximateReceiveCount": str(deliveries)}}
    with visibilities(place) as kept:
        assert place.handle(again) == [part["messageId"]]
    assert kept == [PACING.claim_seconds, seconds]


def test_a_part_that_takes_long_keeps_its_claim_and_its_message(aws, clock):
    renewed = threading.Semaphore(0)
    hold = 0.06

    def take_long(_):
        for _ in range(3):
            while renewed.acquire(blocking=False):
                pass
            clock.now += hold * 0.9
            for _ in range(2):  # the first may have begun before the clock was moved
                assert renewed.acquire(timeout=60)
            assert other.handle(part) == [part["messageId"]]
        return heard("Ever tried.")

    upstream = FalseUpstream(take_long)
    jobs = Jobs(settings(**aws), clock)
    place = Place(aws, upstream, jobs=jobs, pacing=replace(PACING, claim_seconds=hold))
    other = Place(aws, upstream, jobs=Jobs(settings(**aws), clock))
    identity = place.upload(recording("webm"))
    (part,) = place.cut(identity)
    jobs.queues.sqs.meta.events.register(
        "after-call.sqs.ChangeMessageVisibility", lambda **_: renewed.release()
    )
    assert place.handle(part) == []
    assert place.job(identity)["status"] == "completed"
    assert len(upstream.calls) == 1


def test_a_claim_of_a_worker_that_died_ends_soon(aws, clock):
    place = Place(aws, jobs=Jobs(settings(**aws), clock))
    identity = place.upload(recording("webm"))
    (part,) = place.cut(identity)
    with failing(place, "s3.HeadObject", Death()), pytest.raises(Death):
        place.handle(part)
    clock.now += PACING.claim_seconds - 1
    assert place.handle(part) == [part["messageId"]]
    clock.now += 2
    assert place.handle(part) == []
    assert place.job(identity)["status"] == "completed"


def test_the_same_recording_in_two_jobs_is_paid_once(aws):
    """The second job's part meets the claim of the first job's, and then its answer."""
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    identities = [place.upload(recording("webm")) for _ in range(2)]
    assert place.handle(*place.messages()) == []
    parts = place.part_messages()
    with failing(place, "dynamodb.UpdateItem", Death(), "ADD saved"), pytest.raises(Death):
        place.handle(parts[0])
    assert place.handle(parts[1]) == []
    assert place.handle(parts[0]) == []
    assert sorted(place.job(identity)["seconds_paid"] for identity in identities) == [0, 3]
    assert len(upstream.calls) == 1


def test_parts_are_sent_at_the_same_time(aws):
    together = threading.Barrier(3)

    def wait_for_all(request):
        together.wait(timeout=60)
        return heard(f"Part of {len(request.read())} bytes.")

    place = Place(aws, httpx2.MockTransport(wait_for_all))
    identity = place.upload(long_recording("ogg", 80))
    at_once(*[lambda part=part: place.handle(part) for part in place.cut(identity)])
    job = place.job(identity)
    assert (job["status"], job["progress"]) == ("completed", {"done": 3, "total": 3})


# Messages that come twice, late or in vain


def test_a_message_that_is_delivered_again_changes_nothing(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    identity = place.upload(long_recording("ogg", 40))
    first, second = place.cut(identity)
    for _ in range(2):
        assert place.handle(first) == []
        assert place.job(identity)["progress"] == {"done": 1, "total": 2}
    assert place.handle(second) == []
    completed = place.job(identity)
    assert completed["status"] == "completed"
    for part in (first, second):
        assert place.handle(part) == []
    assert place.job(identity) == completed
    assert place.objects() == [f"transcripts/{identity}.json"]
    assert len(upstream.calls) == 2


def test_a_message_that_comes_after_the_job_was_deleted_leaves_nothing(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    identity = place.upload(recording("webm"))
    (part,) = place.cut(identity)
    place.jobs.delete(identity)
    assert place.handle(part) == []
    assert (place.objects(), place.items(), upstream.calls) == ([], [], [])


def test_a_message_that_comes_after_the_job_failed_is_dropped(aws):
    upstream = FalseUpstream(refused(400))
    place = Place(aws, upstream)
    identity = place.upload(long_recording("ogg", 40))
    first, second = place.cut(identity)
    assert place.handle(first) == []
    failed = place.job(identity)
    assert place.handle(second) == []
    assert place.job(identity) == failed
    assert len(upstream.calls) == 1


def test_a_message_of_an_older_generation_changes_nothing(aws):
    upstream = FalseUpstream(refused(400))
    place = Place(aws, upstream)
    identity = place.upload(long_recording("ogg", 40))
    first, second = place.cut(identity)
    assert place.handle(first) == []
    assert place.http.post(f"/api/transcriptions/{identity}/retry").status_code == 202
    assert place.handle(second) == []  # before the recording is cut again
    parts = place.cut(identity)
    before = place.job(identity)
    assert (before["status"], before["progress"]) == ("processing", {"done": 0, "total": 2})
    assert place.handle(second) == []
    assert place.job(identity) == before
    assert len(upstream.calls) == 1
    for part in parts:
        assert place.handle(part) == []
    assert place.job(identity)["status"] == "completed"


def test_a_message_of_an_older_generation_changes_nothing_while_the_recording_is_cut_again(aws):
    upstream = FalseUpstream(refused(400))
    place, other = Place(aws, upstream), Place(aws, upstream)
    identity = place.upload(long_recording("ogg", 40))
    first, second = place.cut(identity)
    assert place.handle(first) == []
    assert place.http.post(f"/api/transcriptions/{identity}/retry").status_code == 202
    with before(place, "s3.HeadObject", lambda _: other.handle(second)):
        assert place.handle(place.about(identity)) == []
    assert place.job(identity)["status"] == "processing"
    while place.work_on_parts():
        pass
    assert place.job(identity)["status"] == "completed"


@pytest.mark.parametrize(
    "reply", [refused(400), heard("Ever tried.")], ids=["refused", "transcribed"]
)
def test_a_part_that_is_under_way_while_its_job_is_retried_changes_nothing(aws, reply):
    """Its job fails because of another part, and is retried before the upstream answers."""

    def fail_and_retry(_):
        assert other.handle(second) == []
        assert other.job(identity)["status"] == "failed"
        assert other.http.post(f"/api/transcriptions/{identity}/retry").status_code == 202
        parts.extend(other.cut(identity))
        return reply

    parts = []
    upstream = FalseUpstream(fail_and_retry, refused(401))
    place, other = Place(aws, upstream), Place(aws, upstream)
    identity = place.upload(long_recording("ogg", 40))
    first, second = place.cut(identity)
    assert place.handle(first) == []
    assert (place.job(identity)["status"], place.job(identity)["progress"]["done"]) == (
        "processing",
        0,
    )
    assert len(parts) == 2
    for part in parts:
        assert place.handle(part) == []
    assert place.job(identity)["status"] == "completed"
    assert len(upstream.calls) == 3 + (reply.status_code == 400)


def test_a_job_that_is_deleted_while_a_part_is_sent_leaves_nothing(aws):
    def delete_then_answer(_):
        place.jobs.delete(identity)
        return heard("Ever tried.")

    place = Place(aws, FalseUpstream(delete_then_answer))
    identity = place.upload(recording("webm"))
    (part,) = place.cut(identity)
    assert place.handle(part) == []
    assert (place.job(identity)["code"], place.objects(), place.items()) == ("not_found", [], [])


# Tries


def test_a_busy_upstream_is_asked_again_until_it_answers_and_costs_nothing(aws):
    upstream = FalseUpstream(*[refused(429, retry_after="0")] * 12)
    place = Place(aws, upstream)
    identity = place.upload(recording("webm"))
    (part,) = place.cut(identity)
    for _ in range(12):
        assert place.handle(part) == [part["messageId"]]
        assert place.job(identity)["status"] == "processing"
    assert place.handle(part) == []
    assert (place.job(identity)["status"], place.job(identity)["seconds_paid"]) == ("completed", 3)


def test_while_the_upstream_is_busy_no_part_is_sent(aws, clock):
    upstream = FalseUpstream(refused(429, retry_after="7"))
    place = Place(aws, upstream, jobs=Jobs(settings(**aws), clock))
    identity = place.upload(long_recording("ogg", 40))
    first, second = place.cut(identity)
    with visibilities(place) as kept:
        for part in (first, second, first):
            assert place.handle(part) == [part["messageId"]]
    assert len(upstream.calls) == 1
    assert all(7 <= seconds <= 9 for seconds in kept[1::2])  # each a little longer, at random
    for part in (first, second):
        clock.now += 7.1
        assert place.handle(part) == []
    assert place.job(identity)["status"] == "completed"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (refused(429, "insufficient_quota"), "upstream_quota"),
        (refused(401), "upstream_credentials"),
        (refused(404), "upstream_model"),
        (refused(400), "unreadable_recording"),
    ],
)
def test_an_error_that_never_gets_better_ends_the_job_at_once_and_keeps_the_recording(
    aws, reply, code
):
    upstream = FalseUpstream(reply)
    place = Place(aws, upstream)
    identity = place.upload(recording("webm"))
    assert place.work() == []
    assert (place.job(identity)["status"], place.job(identity)["error"]["code"]) == ("failed", code)
    assert len(upstream.calls) == 1
    assert place.objects() == [f"uploads/{identity}.webm"]


@pytest.mark.parametrize(
    ("failure", "times", "code"),
    [
        (UNPLUGGED, 3, "upstream_failed"),  # each may have been billed
        (httpx2.ReadTimeout("late"), 3, "upstream_timeout"),
        (httpx2.Response(502), 3, "upstream_failed"),
        (refused(500), 10, "upstream_failed"),
        (httpx2.ConnectError("nobody there"), 10, "upstream_failed"),
    ],
)
def test_a_failing_upstream_is_asked_a_limited_number_of_times(aws, failure, times, code):
    upstream = FalseUpstream(*[failure] * 20)
    place = Place(aws, upstream)
    identity = place.upload(recording("webm"))
    (part,) = place.cut(identity)
    for _ in range(times - 1):
        assert place.handle(part) == [part["messageId"]]
        assert place.job(identity)["status"] == "processing"
    assert place.handle(part) == []
    assert (place.job(identity)["status"], place.job(identity)["error"]["code"]) == ("failed", code)
    assert len(upstream.calls) == times
    assert place.objects() == [f"uploads/{identity}.webm"]


def test_a_retry_begins_to_count_anew(aws):
    upstream = FalseUpstream(*[UNPLUGGED] * 5)
    place = Place(aws, upstream)
    identity = place.upload(recording("webm"))
    place.work()
    assert place.job(identity)["status"] == "failed"
    assert place.http.post(f"/api/transcriptions/{identity}/retry").status_code == 202
    place.work()
    assert place.job(identity)["status"] == "completed"
    assert len(upstream.calls) == 6


def test_a_busy_minute_and_a_broken_connection_do_not_end_a_job(aws):
    busy = [refused(429, retry_after="0")] * 3
    place = Place(aws, FalseUpstream(*busy, httpx2.Response(502), UNPLUGGED))
    identity = place.upload(recording("webm"))
    place.work()
    assert place.job(identity)["status"] == "completed"


@pytest.mark.parametrize(("deliveries", "seconds"), [(1, 2), (3, 8), (9, 60)])
def test_the_pauses_after_failures_become_longer(aws, deliveries, seconds):
    place = Place(aws, FalseUpstream(UNPLUGGED), pacing=replace(PACING, first_backoff_seconds=2))
    (part,) = place.cut(place.upload(recording("webm")))
    again = part | {"attributes": {"ApproximateReceiveCount": str(deliveries)}}
    with visibilities(place) as kept:
        assert place.handle(again) == [part["messageId"]]
    assert seconds <= kept[-1] <= seconds * 1.25 + 1


def test_a_function_without_time_sends_nothing(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    identity = place.upload(recording("webm"))
    (part,) = place.cut(identity)

    class Ending:
        def get_remaining_time_in_millis(self):
            return 30_000

    assert place.handle(part, context=Ending()) == [part["messageId"]]
    assert (place.job(identity)["status"], upstream.calls) == ("processing", [])


# What is paid


@pytest.mark.parametrize(
    ("failure", "paid"), [(UNPLUGGED, 6), (refused(500), 3), (refused(429, retry_after="0"), 3)]
)
def test_a_request_that_may_have_been_billed_counts_as_paid_and_one_that_cannot_does_not(
    aws, failure, paid
):
    place = Place(aws, FalseUpstream(failure))
    identity = place.upload(recording("ogg"))
    place.work()
    assert place.job(identity)["seconds_paid"] == pytest.approx(paid, abs=0.1)


def test_a_part_whose_worker_dies_each_time_fails_its_job(aws, clock):
    def die(_):
        raise Death

    upstream = FalseUpstream(*[die] * 9)
    place = Place(aws, upstream, jobs=Jobs(settings(**aws), clock))
    identity = place.upload(recording("webm"))
    (part,) = place.cut(identity)
    for _ in range(5):
        with pytest.raises(Death):
            place.handle(part)
        clock.now += PACING.claim_seconds + 1
    assert place.handle(part) == []
    assert (place.job(identity)["status"], place.job(identity)["error"]["code"]) == (
        "failed",
        "internal_error",
    )
    assert len(upstream.calls) == 5


def test_an_answer_that_was_lost_in_a_crash_counts_as_paid(aws, clock):
    upstream = FalseUpstream()
    place = Place(aws, upstream, jobs=Jobs(settings(**aws), clock))
    identity = place.upload(recording("ogg"))
    (part,) = place.cut(identity)
    with failing(place, "dynamodb.PutItem", Death(), "'paid'"), pytest.raises(Death):
        place.handle(part)
    clock.now += PACING.claim_seconds + 1
    assert place.handle(part) == []
    assert place.job(identity)["seconds_paid"] == pytest.approx(6, abs=0.1)
    assert len(upstream.calls) == 2


@pytest.mark.parametrize(
    ("operation", "write"), [("PutItem", "'heard'"), ("UpdateItem", "ADD saved")]
)
def test_an_answer_that_was_kept_before_a_crash_is_used_and_counts_as_paid(aws, operation, write):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    identity = place.upload(recording("webm"))
    (part,) = place.cut(identity)
    with failing(place, f"dynamodb.{operation}", ConnectionResetError(), write):
        assert place.handle(part) == [part["messageId"]]
    assert place.handle(part) == []
    assert (place.job(identity)["status"], place.job(identity)["seconds_paid"]) == ("completed", 3)
    assert len(upstream.calls) == 1


def test_parts_that_are_under_way_when_another_fails_are_paid_and_kept(aws):
    """The third part is refused while the first two are transcribed."""
    both_asked, failed = threading.Barrier(3), threading.Event()

    def wait_for_the_third(_):
        both_asked.wait(60)
        assert failed.wait(60)
        return heard("Ever tried.")

    place = Place(aws, FalseUpstream(*[wait_for_the_third] * 2, refused(400)))
    identity = place.upload(long_recording("ogg", 80))
    first, second, third = place.cut(identity)

    def fail():
        both_asked.wait(60)
        assert place.handle(third) == []
        failed.set()

    at_once(lambda: place.handle(first), lambda: place.handle(second), fail)
    job = place.job(identity)
    assert (job["status"], job["progress"]["done"], job["seconds_paid"]) == ("failed", 2, 6)


# Outages of AWS


@pytest.mark.parametrize(("deliveries", "seconds"), [(1, 60), (4, 480), (200, 900)])
@pytest.mark.parametrize("call", ["dynamodb.GetItem", "s3.HeadObject"])
def test_in_an_outage_a_message_is_kept_back_longer_each_time(place, call, deliveries, seconds):
    (part,) = place.cut(place.upload(recording("webm")))
    again = part | {"attributes": {"ApproximateReceiveCount": str(deliveries)}}
    with outage(place, call), visibilities(place) as kept:
        assert place.handle(again) == [part["messageId"]]
    assert kept == [PACING.claim_seconds, seconds]


@pytest.mark.parametrize("call", ["s3.HeadObject", "secretsmanager.GetSecretValue"])
def test_an_outage_costs_a_part_none_of_its_tries(aws, call):
    upstream = FalseUpstream()
    place = Place(aws, upstream, openai_api_key=None, openai_secret_arn="steno")
    identity = place.upload(recording("webm"))
    (part,) = place.cut(identity)
    with outage(place, call), visibilities(place) as kept:
        for _ in range(6):
            assert place.handle(part) == [part["messageId"]]
            assert place.job(identity)["status"] == "processing"
    assert kept == [PACING.claim_seconds, 60] * 6
    assert place.handle(part) == []
    assert (place.job(identity)["seconds_paid"], len(upstream.calls)) == (3, 1)
