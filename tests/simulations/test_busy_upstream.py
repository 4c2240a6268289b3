"""A limit of the upstream is used well, and callers share the functions.

`python -m benchmarks.limiter` has the figures for more limits.
"""

from io import BytesIO
from uuid import uuid4

import pytest

from handler.recordings.container import identify
from tests.fake_queues import FixedWindow, Simulated, TokenBucket, aws_in_process, new_caller
from tests.samples import asset, wav

HOUR = 12  # parts
A_MINUTE = 60  # requests that the upstream admits


@pytest.fixture(scope="module", autouse=True)
def _aws():
    with aws_in_process():
        yield


@pytest.mark.parametrize("limiter", [FixedWindow(A_MINUTE), TokenBucket(A_MINUTE, size=10)])
def test_the_limit_of_the_upstream_is_used_and_few_requests_are_refused(limiter, request):
    place = Simulated(seconds=10, limiter=limiter)
    jobs = [place.cut(HOUR) for _ in range(20 if request.config.getoption("--soak") else 10)]
    place.run()
    assert place.completed == {job.id: 1 for job in jobs}
    answered, refused = place.upstream.after(60)
    seconds = place.upstream.answered[-1] - place.simulation.began - 60
    assert answered / seconds >= 0.85 * A_MINUTE / 60
    assert refused <= 0.2 * (answered + refused)
    assert place.sqs.most_deliveries <= 10  # after 200, a message is given up


def test_no_message_is_given_up_because_the_upstream_is_slow():
    """It admits a request in twelve hours, and does not tell how long to wait."""
    place = Simulated(limiter=TokenBucket(1 / 720, size=1), retry_after=False, aws_seconds=0)
    job = place.cut(2)
    assert place.seconds_until_completed(job) >= 12 * 3600
    assert place.sqs.dead == []


def test_an_upstream_that_was_busy_for_a_while_is_asked_often_again():
    limiter = TokenBucket(6, size=1)
    place = Simulated(limiter=limiter, aws_seconds=0)
    place.seconds_until_completed(place.cut(HOUR))
    limiter.limit = 600
    assert place.seconds_until_completed(place.cut(4 * HOUR)) <= 4 * HOUR * 10 / 2


@pytest.mark.parametrize("later", [31, 36])  # others' parts have just begun, or will end soon
def test_a_caller_with_ten_hours_does_not_keep_another_waiting(later):
    alone = Simulated(seconds=10)
    place = Simulated(seconds=10)
    long = place.cut(10 * HOUR)
    place.run(later)
    assert place.seconds_until_completed(place.cut(HOUR)) <= 2 * alone.seconds_until_completed(
        alone.cut(HOUR)
    )
    assert place.status(long) == "processing"


def test_a_voice_note_does_not_wait_for_ten_hours_of_the_same_caller():
    place, caller = Simulated(seconds=10), new_caller()
    long = place.cut(10 * HOUR, caller)
    place.run(31)
    note = BytesIO(wav(asset("beckett.wav")[44:][:64_000]))
    job = place.caller.create_from_request(uuid4().hex, note, identify(note), {}, caller)
    assert place.seconds_until_completed(job) <= 25
    assert place.status(long) == "processing"
