"""Simulate jobs that take hours, because of a slow upstream, AWS outages or truncated responses."""

import random

import httpx2
import pytest

from tests.fake_queues import Simulated, TokenBucket, aws_in_process
from tests.fake_upstream import transcript_response
from tests.samples import asset, wav

SPEECH = asset("beckett.wav")[44:]
HOUR = 3600
MAX_RUNS = 6  # invocations in one chain of messages; AWS stops recursive chains at 16


@pytest.fixture(scope="module", autouse=True)
def _aws():
    with aws_in_process():
        yield


def test_twelve_hours_are_cut_once_and_billed_once_with_a_slow_upstream():
    """The job has 144 parts, and the upstream accepts 1.3 of them per minute."""
    simulated = Simulated(
        concurrency=2, seconds=40, limiter=TokenBucket(1.3, size=1), aws_seconds=0
    )
    job = simulated.cut(144)
    for _ in range(3):
        # The object is not a recording, so the job would fail if it were cut again.
        simulated.announce(job)
        simulated.run(0.5 * HOUR)
        assert simulated.status(job) == "processing"
    simulated.run()
    assert simulated.completed == {job.id: 1}
    assert simulated.upstream.answered[-1] - simulated.simulation.began >= 143 / 1.3 * 60
    assert (len(simulated.upstream.recordings), len(simulated.upstream.answered)) == (144, 144)
    assert simulated.sqs.longest_chain == 1
    assert simulated.sqs.dead == []


def truncated_response():
    usage = {"type": "tokens", "input_tokens": 1, "output_tokens": 1990, "total_tokens": 1991}
    return httpx2.Response(200, json={"text": "Ever", "usage": usage})


def test_truncated_responses_do_not_cause_long_message_chains():
    """The response for the longest part is always truncated, so the part is split in half."""
    simulated, longest = Simulated(aws_seconds=0), [0]

    def reply(content):
        if len(content) < longest[-1] / 2:
            return transcript_response("tried.")
        longest.append(len(content))
        return truncated_response()

    simulated.upstream.reply = reply
    rng = random.Random(1)
    speech = b"".join(SPEECH + bytes(2 * rng.randrange(30_000)) for _ in range(28))
    job = simulated.upload(wav(speech[: 290 * 32_000]))
    simulated.run()
    assert simulated.completed == {job.id: 1}
    assert simulated.sqs.longest_chain == MAX_RUNS


class SwitchableLimiter:
    """A limiter that accepts no requests while `is_closed` is true."""

    def __init__(self):
        self.is_closed = False

    def wait(self, _now):
        return 60 if self.is_closed else 0


@pytest.mark.parametrize("service", ["dynamodb", "s3"])
def test_every_job_completes_after_an_aws_outage_of_an_hour(service):
    limiter = SwitchableLimiter()
    simulated = Simulated(concurrency=4, seconds=5, limiter=limiter)
    half_done, cut = simulated.cut(8), simulated.cut(8)
    simulated.run(done=lambda: len(simulated.upstream.answered) == 8)
    limiter.is_closed = True  # so that no request is in flight
    simulated.run(120)
    simulated.out.add(service)
    uploaded = [simulated.upload(wav(SPEECH[: 64_000 + count])) for count in (0, 2)]
    limiter.is_closed = False
    simulated.run(HOUR)
    assert simulated.failures[service] > 0
    assert not simulated.completed
    assert {simulated.status(job) for job in (half_done, cut)} == {"processing"}
    simulated.out.clear()
    outage_end = simulated.simulation.now
    simulated.run()
    assert simulated.completed == {job.id: 1 for job in (half_done, cut, *uploaded)}
    assert max(simulated.completed_at.values()) - outage_end <= 0.5 * HOUR
    assert (len(simulated.upstream.recordings), len(simulated.upstream.answered)) == (18, 18)
    assert simulated.sqs.dead == []
