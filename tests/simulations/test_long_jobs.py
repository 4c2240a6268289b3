"""Jobs that take hours: a slow upstream, an outage of AWS, and chains of messages that do not become long."""

import random

import httpx2
import pytest

from tests.fake_queues import Simulated, TokenBucket, aws_in_process
from tests.false_upstream import heard
from tests.samples import asset, wav

SPEECH = asset("beckett.wav")[44:]
HOUR = 3600
MOST_RUNS = 6  # of a function in one chain of messages; AWS ends chains after 16


@pytest.fixture(scope="module", autouse=True)
def _aws():
    with aws_in_process():
        yield


def test_a_recording_of_twelve_hours_is_cut_once_and_paid_once_by_a_slow_upstream():
    """144 parts, of which the upstream admits 1.3 a minute."""
    place = Simulated(concurrency=2, seconds=40, limiter=TokenBucket(1.3, size=1), aws_seconds=0)
    job = place.cut(144)
    for _ in range(3):
        place.announce(job)  # what is in the bucket cannot be cut: that would end the job
        place.run(0.5 * HOUR)
        assert place.status(job) == "processing"
    place.run()
    assert place.completed == {job.id: 1}
    assert place.upstream.answered[-1] - place.simulation.began >= 143 / 1.3 * 60
    assert (len(place.upstream.recordings), len(place.upstream.answered)) == (144, 144)
    assert place.sqs.longest_chain == 1
    assert place.sqs.dead == []


def cut_off():
    usage = {"type": "tokens", "input_tokens": 1, "output_tokens": 1990, "total_tokens": 1991}
    return httpx2.Response(200, json={"text": "Ever", "usage": usage})


def test_no_function_runs_often_in_one_chain_however_many_answers_are_cut_off():
    """The answer about the longest part is always cut off, so that it is halved."""
    place, longest = Simulated(aws_seconds=0), [0]

    def reply(content):
        if len(content) < longest[-1] / 2:
            return heard("tried.")
        longest.append(len(content))
        return cut_off()

    place.upstream.reply = reply
    gaps = random.Random(1)
    speech = b"".join(SPEECH + bytes(2 * gaps.randrange(30_000)) for _ in range(28))
    job = place.upload(wav(speech[: 290 * 32_000]))
    place.run()
    assert place.completed == {job.id: 1}
    assert place.sqs.longest_chain == MOST_RUNS


class Closed:
    """A limiter that admits no request while it `is_closed`."""

    def __init__(self):
        self.is_closed = False

    def wait(self, _now):
        return 60 if self.is_closed else 0


@pytest.mark.parametrize("service", ["dynamodb", "s3"])
def test_every_job_completes_after_an_hour_without_a_service_of_aws(service):
    limiter = Closed()
    place = Simulated(concurrency=4, seconds=5, limiter=limiter)
    half_done, cut = place.cut(8), place.cut(8)
    place.run(done=lambda: len(place.upstream.answered) == 8)
    limiter.is_closed = True  # so that no request is under way
    place.run(120)
    place.out.add(service)
    uploaded = [place.upload(wav(SPEECH[: 64_000 + count])) for count in (0, 2)]
    limiter.is_closed = False
    place.run(HOUR)
    assert place.failures[service] > 0
    assert not place.completed
    assert {place.status(job) for job in (half_done, cut)} == {"processing"}
    place.out.clear()
    ended = place.simulation.now
    place.run()
    assert place.completed == {job.id: 1 for job in (half_done, cut, *uploaded)}
    assert max(place.completed_at.values()) - ended <= 0.5 * HOUR
    assert (len(place.upstream.recordings), len(place.upstream.answered)) == (18, 18)
    assert place.sqs.dead == []
