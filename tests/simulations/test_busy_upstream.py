"""Simulate a rate limit of the upstream: jobs use most of it, but do not delay other callers.

`python -m benchmarks.limiter` simulates more limits.
"""

from io import BytesIO
from uuid import uuid4

import pytest

from handler.recordings.container import identify
from tests.fake_queues import FixedWindow, Simulated, TokenBucket, aws_in_process, new_caller
from tests.samples import asset, wav

HOUR = 12  # the number of parts of a one-hour recording
REQUESTS_PER_MINUTE = 60  # the limit of the upstream


@pytest.fixture(scope="module", autouse=True)
def _aws():
    with aws_in_process():
        yield


@pytest.mark.parametrize(
    "limiter", [FixedWindow(REQUESTS_PER_MINUTE), TokenBucket(REQUESTS_PER_MINUTE, size=10)]
)
def test_jobs_use_the_rate_limit_with_few_rejected_requests(limiter, request):
    simulated = Simulated(seconds=10, limiter=limiter)
    jobs = [simulated.cut(HOUR) for _ in range(20 if request.config.getoption("--soak") else 10)]
    simulated.run()
    assert simulated.completed == {job.id: 1 for job in jobs}
    answered, rejected = simulated.upstream.after(60)
    seconds = simulated.upstream.answered[-1] - simulated.simulation.began - 60
    assert answered / seconds >= 0.85 * REQUESTS_PER_MINUTE / 60
    assert rejected <= 0.2 * (answered + rejected)
    # A message becomes a dead letter after 200 deliveries.
    assert simulated.sqs.most_deliveries <= 10


def test_a_slow_upstream_causes_no_dead_letters():
    """The upstream accepts one request every 12 hours, and sends no Retry-After header."""
    simulated = Simulated(limiter=TokenBucket(1 / 720, size=1), retry_after=False, aws_seconds=0)
    job = simulated.cut(2)
    assert simulated.seconds_until_completed(job) >= 12 * 3600
    assert simulated.sqs.dead == []


def test_the_request_rate_recovers_after_the_upstream_was_busy():
    limiter = TokenBucket(6, size=1)
    simulated = Simulated(limiter=limiter, aws_seconds=0)
    simulated.seconds_until_completed(simulated.cut(HOUR))
    limiter.limit = 600
    assert simulated.seconds_until_completed(simulated.cut(4 * HOUR)) <= 4 * HOUR * 10 / 2


# After 31 s, parts of the long job have just started. After 36 s, they are about to finish.
@pytest.mark.parametrize("delay_seconds", [31, 36])
def test_ten_hours_of_one_caller_do_not_delay_another_caller(delay_seconds):
    alone = Simulated(seconds=10)
    simulated = Simulated(seconds=10)
    long_job = simulated.cut(10 * HOUR)
    simulated.run(delay_seconds)
    assert simulated.seconds_until_completed(
        simulated.cut(HOUR)
    ) <= 2 * alone.seconds_until_completed(alone.cut(HOUR))
    assert simulated.status(long_job) == "processing"


def test_a_voice_note_does_not_wait_for_ten_hours_of_the_same_caller():
    simulated, caller = Simulated(seconds=10), new_caller()
    long_job = simulated.cut(10 * HOUR, caller)
    simulated.run(31)
    voice_note = BytesIO(wav(asset("beckett.wav")[44:][:64_000]))
    job = simulated.caller.create_from_request(
        uuid4().hex, voice_note, identify(voice_note), {}, caller
    )
    assert simulated.seconds_until_completed(job) <= 25
    assert simulated.status(long_job) == "processing"
