"""Simulate duplicate, reordered and late messages. Some arrive after their job has ended."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from handler.jobs.job import Caller
from handler.steps.pacing import DEFAULT_PACING
from tests.fake_queues import Simulated, aws_in_process
from tests.fake_upstream import error_response, transcript_response
from tests.samples import asset, wav

SPEECH = asset("beckett.wav")[44:] * 3
# Each key is the number of parts. Silence has no parts, because it is not sent to the upstream.
RECORDINGS = {0: bytes(128_000), 1: SPEECH[:128_000], 2: SPEECH[: 26 * 32_000]}
BILLED_SECONDS = 3  # per response
DUPLICATED = {"copies": 2, "late": 300, "disorder": True}


@pytest.fixture(scope="module", autouse=True)
def _aws():
    with aws_in_process():
        yield


class ManyJobs:
    """Jobs of many callers. Each job has its own recording.

    Every fifth job is deleted. Some jobs fail and are retried.
    """

    def __init__(self, size, seed):
        self.simulated = Simulated(
            # A message for a claimed part is redelivered after 5 s, about when the claim ends.
            seconds=4.8,
            aws_seconds=0.05,
            pacing=replace(DEFAULT_PACING, part_seconds=13),
            queues={**DUPLICATED, "seed": seed},
            caps={"daily_seconds": 10**6},
        )
        self.simulated.upstream.reply = self._reply
        self.parts, self.kept, self.deleted, self.retries, self.rejected = (
            {},
            {},
            {},
            Counter(),
            Counter(),
        )
        self._rng = random.Random(seed)
        for number in range(size):
            self._later(60, self._upload, number)

    def _later(self, max_seconds, action, *arguments):
        """Run `action` at a random time within the next `max_seconds`."""
        self.simulated.simulation.after(
            self._rng.uniform(0, max_seconds), lambda: action(*arguments)
        )

    def _upload(self, number):
        parts = number % 3
        job = self.simulated.upload(wav(RECORDINGS[parts] + bytes(2 * number)))
        self.parts[job.id] = parts
        if number % 5 == 1:
            self._later(10, self._delete, job)
        else:
            self.kept[job.id] = job
            self._retry_until_completed(job)

    def _delete(self, job):
        self.simulated.caller.delete(job.id)
        self.deleted[job.id] = job

    def _retry_until_completed(self, job):
        """Retry the job each time it fails, until it is completed."""
        status = self.simulated.status(job)
        if status == "failed":
            self.simulated.caller.retry(job.id, Caller(job.owner, job.account))
            self.retries[job.id] += 1
        if status != "completed":
            self._later(20, self._retry_until_completed, job)

    def _reply(self, content):
        """Reject the first request for about one in four parts, selected by their size."""
        if len(content) % 4 == 0 and not self.rejected[content]:
            self.rejected[content] += 1
            return error_response(400)
        return transcript_response("Ever tried.")


def test_every_job_completes_once_and_every_part_is_billed_once(request):
    jobs = ManyJobs(*(100, 2) if request.config.getoption("--soak") else (10, 1))
    simulated = jobs.simulated
    simulated.run()
    assert {job_id: simulated.completed[job_id] for job_id in jobs.kept} == dict.fromkeys(
        jobs.kept, 1
    )
    assert set(simulated.upstream.recordings.values()) == {1}
    for job_id, job in jobs.kept.items():
        parts, paid = jobs.parts[job_id], simulated.caller.get(job_id).seconds_paid
        assert simulated.text(job) == " ".join(["Ever tried."] * parts)
        # If a part is in flight when its job fails, its duration is charged: it may be billed.
        if job_id in jobs.retries:
            assert paid >= BILLED_SECONDS * parts
        else:
            assert paid == BILLED_SECONDS * parts
        assert simulated.objects(job) == [f"transcripts/{job_id}.json"]
        assert simulated.items(job) == ["job"]
    for job in jobs.deleted.values():
        assert simulated.objects(job) == simulated.items(job) == []
    assert "unsettled" not in simulated.spent()
    assert jobs.retries
    assert jobs.deleted
    assert simulated.sqs.dead == []
