"""Messages that come twice, in any order, late, and after the end of their job."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from handler.jobs.job import Caller
from handler.steps.pacing import DEFAULT_PACING
from tests.fake_queues import Simulated, aws_in_process
from tests.false_upstream import heard, refused
from tests.samples import asset, wav

SPEECH = asset("beckett.wav")[44:] * 3
# By number of parts. Silence is not sent.
RECORDINGS = {0: bytes(128_000), 1: SPEECH[:128_000], 2: SPEECH[: 26 * 32_000]}
BILLED_SECONDS = 3  # of every answer
TWICE = {"copies": 2, "late": 300, "disorder": True}


@pytest.fixture(scope="module", autouse=True)
def _aws():
    with aws_in_process():
        yield


class Crowd:
    """Jobs of many callers, with a recording for each. Every fifth job is deleted, and some fail and are retried."""

    def __init__(self, size, seed):
        self.place = Simulated(
            seconds=4.8,  # a delivery that has met another's claim comes again when that one finishes the job
            aws_seconds=0.05,
            pacing=replace(DEFAULT_PACING, part_seconds=13),
            queues={**TWICE, "seed": seed},
            caps={"daily_seconds": 10**6},
        )
        self.place.upstream.reply = self._reply
        self.parts, self.kept, self.deleted, self.retries, self.refused = (
            {},
            {},
            {},
            Counter(),
            Counter(),
        )
        self._chance = random.Random(seed)
        for number in range(size):
            self._later(60, self._upload, number)

    def _later(self, most, act, *details):
        """Something happens within so many seconds."""
        self.place.simulation.after(self._chance.uniform(0, most), lambda: act(*details))

    def _upload(self, number):
        parts = number % 3
        job = self.place.upload(wav(RECORDINGS[parts] + bytes(2 * number)))
        self.parts[job.id] = parts
        if number % 5 == 1:
            self._later(10, self._delete, job)
        else:
            self.kept[job.id] = job
            self._look_after(job)

    def _delete(self, job):
        self.place.caller.delete(job.id)
        self.deleted[job.id] = job

    def _look_after(self, job):
        """Retry the job whenever it has failed."""
        status = self.place.status(job)
        if status == "failed":
            self.place.caller.retry(job.id, Caller(job.owner, job.account))
            self.retries[job.id] += 1
        if status != "completed":
            self._later(20, self._look_after, job)

    def _reply(self, content):
        """Every fourth part is refused at first."""
        if len(content) % 4 == 0 and not self.refused[content]:
            self.refused[content] += 1
            return refused(400)
        return heard("Ever tried.")


def test_every_job_is_completed_once_and_every_part_is_paid_once(request):
    crowd = Crowd(*(100, 2) if request.config.getoption("--soak") else (10, 1))
    place = crowd.place
    place.run()
    assert {identity: place.completed[identity] for identity in crowd.kept} == dict.fromkeys(
        crowd.kept, 1
    )
    assert set(place.upstream.recordings.values()) == {1}
    for identity, job in crowd.kept.items():
        parts, paid = crowd.parts[identity], place.caller.get(identity).seconds_paid
        assert place.text(job) == " ".join(["Ever tried."] * parts)
        if (
            identity in crowd.retries
        ):  # a part under way when its job fails counts with its length: it may be billed
            assert paid >= BILLED_SECONDS * parts
        else:
            assert paid == BILLED_SECONDS * parts
        assert place.objects(job) == [f"transcripts/{identity}.json"]
        assert place.items(job) == ["job"]
    for job in crowd.deleted.values():
        assert place.objects(job) == place.items(job) == []
    assert "unsettled" not in place.spent()
    assert crowd.retries
    assert crowd.deleted
    assert place.sqs.dead == []
