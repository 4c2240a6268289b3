"""Compare the simulation with a real run: 200 hours of sound through the queues and steps on the local AWS.

    python -m benchmarks.scale_run        takes about a quarter of an hour

Nothing is decoded: the parts are a few bytes each, and their jobs are written as the cutter leaves them. The time that
a part takes besides the upstream is measured before, with a few recordings.
"""

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx2

from benchmarks.scale import PARTS, Outcome, System, simulated
from handler.aws.clients import WORKER_LIMITS
from handler.jobs.job import Job
from handler.jobs.parts import PartMessage
from handler.jobs.store import Jobs
from handler.recordings.speech_activity import SAMPLE_RATE
from handler.services import build_services
from handler.settings import read_settings
from infra.local.aws import local_aws
from infra.local.worker import working

_RECORDINGS, _FEW = 200, 8
_CONCURRENCY = 16
_UPSTREAM_SECONDS = 4.0  # long enough that this machine is not what limits
_PART_SECONDS = 300
_LOOK_SECONDS = 1.0
_HEAD = b"fLaC"


class _Service(httpx2.MockTransport):
    """Answers after a while, and keeps when each part was asked about."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.begun: dict[bytes, float] = {}
        self.last = 0.0

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        body = request.read()
        where = body.index(_HEAD) + len(_HEAD)
        self.begun[body[where : where + 16]] = time.monotonic()
        time.sleep(_UPSTREAM_SECONDS)
        self.last = time.monotonic()
        return httpx2.Response(
            200, json={"text": "Ever tried.", "usage": {"type": "duration", "seconds": 300}}
        )


@dataclass
class _Run:
    arrivals: list[float]
    age: float
    seconds: float  # from the first arrival to the last answer


def beside() -> Iterator[str]:
    """Yield lines that compare a run with its simulation."""
    logging.getLogger("steno").setLevel(logging.ERROR)
    few = _run(_FEW)
    own = few.seconds * _CONCURRENCY / (_FEW * PARTS) - _UPSTREAM_SECONDS
    yield f"A part takes {own:.2f} s besides the upstream's {_UPSTREAM_SECONDS:.0f} s."
    run = _run(_RECORDINGS)
    system = System(
        _CONCURRENCY, cut_seconds=0.0, own_seconds=own, upstream_seconds=_UPSTREAM_SECONDS
    )
    told = simulated(system, run.arrivals)
    parts = len(run.arrivals) * PARTS
    real = Outcome(parts / run.seconds * 3600, run.age, 0.0, 0.0)
    yield "                                        real  simulated"
    yield f"parts an hour                      {real.parts_an_hour:9,.0f}  {told.parts_an_hour:9,.0f}"
    yield f"longest wait of a part, seconds    {real.age:9,.0f}  {told.age:9,.0f}"


def _run(recordings: int) -> _Run:
    with tempfile.TemporaryDirectory() as folder, local_aws(Path(folder) / "aws") as environment:
        os.environ |= {**environment, "OPENAI_API_KEY": "offline"}
        service, settings = _Service(), read_settings()
        jobs = Jobs(settings, limits=WORKER_LIMITS)
        sent: dict[bytes, float] = {}
        with working(build_services(settings, transport=service, jobs=jobs)) as threads:
            arrivals, made = [], []
            for _ in range(recordings):
                arrivals.append(time.monotonic())
                made.append(_cut(jobs, sent))
            while not all(jobs.get(job.id).finished for job in made):
                time.sleep(_LOOK_SECONDS)
        for thread in threads:
            thread.join()
    assert service.begun.keys() == sent.keys(), "Each part is asked about."
    first = arrivals[0]
    age = max(service.begun[name] - when for name, when in sent.items())
    return _Run([when - first for when in arrivals], age, service.last - first)


def _cut(jobs: Jobs, sent: dict[bytes, float]) -> Job:
    """Write a job and send its parts, as the cutter does; note when each was sent."""
    job, _ = jobs.create("hour.m4a", "audio/mp4", 1, {})
    job = jobs.progress.start_generation(jobs.progress.begin(job.key), "generation", uuid4().hex)
    job = jobs.progress.set_total(job, PARTS, PARTS * _PART_SECONDS)
    for number in range(PARTS):
        part = PartMessage(
            job=job.id,
            generation=job.generation,
            entry=uuid4().hex,
            number=number,
            start=number * _PART_SECONDS * SAMPLE_RATE,
            samples=_PART_SECONDS * SAMPLE_RATE,
            timeline=((0, number * _PART_SECONDS),),
        )
        name = uuid4().bytes
        with tempfile.TemporaryFile() as file:
            file.write(_HEAD + name)
            file.seek(0)
            jobs.objects.put(part.key, file, "audio/flac")
        sent[name] = time.monotonic()
        jobs.queues.send_part(part, job.account, express=False)
    return job


if __name__ == "__main__":
    for line in beside():
        print(line, flush=True)
