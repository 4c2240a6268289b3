"""Compare the simulation with a real run that transcribes 200 hours of audio on the AWS emulator.

    python -m benchmarks.scale_run        takes about 15 minutes

The run uses real queues and the real transcription step, but no cutter. Instead, this script
creates the jobs, and stores parts that have only a few bytes. A first run with a few recordings
measures how long the transcriber takes for a part, excluding the response time of the upstream.
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

from benchmarks.scale import PARTS, Outcome, System, simulate
from handler.aws.clients import WORKER_LIMITS
from handler.jobs.job import Job
from handler.jobs.parts import PartMessage
from handler.jobs.store import Jobs
from handler.recordings.speech_activity import SAMPLE_RATE
from handler.services import build_services
from handler.settings import read_settings
from infra.local.aws import local_aws
from infra.local.worker import local_worker

_RECORDINGS, _FEW = 200, 8
_CONCURRENCY = 16
_UPSTREAM_SECONDS = 4.0  # long enough that the CPU of this machine is not the bottleneck
_PART_SECONDS = 300
_POLL_SECONDS = 1.0
_MAGIC = b"fLaC"


class _FakeUpstream(httpx2.MockTransport):
    """Responds after _UPSTREAM_SECONDS, and records when the request for each part started."""

    def __init__(self) -> None:
        super().__init__(self._respond)
        self.started: dict[bytes, float] = {}
        self.last_end = 0.0

    def _respond(self, request: httpx2.Request) -> httpx2.Response:
        body = request.read()
        start = body.index(_MAGIC) + len(_MAGIC)
        self.started[body[start : start + 16]] = time.monotonic()
        time.sleep(_UPSTREAM_SECONDS)
        self.last_end = time.monotonic()
        return httpx2.Response(
            200, json={"text": "Ever tried.", "usage": {"type": "duration", "seconds": 300}}
        )


@dataclass
class _Run:
    arrivals: list[float]
    max_wait: float
    seconds: float  # from the first arrival to the last response


def comparison() -> Iterator[str]:
    """Yield the lines of a table that compares a real run with a simulation of it."""
    logging.getLogger("steno").setLevel(logging.ERROR)
    few = _run(_FEW)
    own = few.seconds * _CONCURRENCY / (_FEW * PARTS) - _UPSTREAM_SECONDS
    yield f"Time per part: upstream {_UPSTREAM_SECONDS:.0f} s, transcriber another {own:.2f} s."
    run = _run(_RECORDINGS)
    system = System(
        _CONCURRENCY, cut_seconds=0.0, own_seconds=own, upstream_seconds=_UPSTREAM_SECONDS
    )
    predicted = simulate(system, run.arrivals)
    parts = len(run.arrivals) * PARTS
    real = Outcome(parts / run.seconds * 3600, run.max_wait, 0.0, 0.0)
    yield "                                        real  simulated"
    for name, actual, expected in (
        ("parts per hour", real.parts_per_hour, predicted.parts_per_hour),
        ("longest wait of a part, seconds", real.max_wait, predicted.max_wait),
    ):
        yield f"{name:35}{actual:9,.0f}  {expected:9,.0f}"


def _run(recordings: int) -> _Run:
    with tempfile.TemporaryDirectory() as folder, local_aws(Path(folder) / "aws") as environment:
        os.environ |= {**environment, "OPENAI_API_KEY": "offline"}
        upstream, settings = _FakeUpstream(), read_settings()
        jobs = Jobs(settings, limits=WORKER_LIMITS)
        sent: dict[bytes, float] = {}
        with local_worker(build_services(settings, transport=upstream, jobs=jobs)) as threads:
            arrivals, created = [], []
            for _ in range(recordings):
                arrivals.append(time.monotonic())
                created.append(_create_job(jobs, sent))
            while not all(jobs.get(job.id).finished for job in created):
                time.sleep(_POLL_SECONDS)
        for thread in threads:
            thread.join()
    assert upstream.started.keys() == sent.keys(), "A part was not sent to the upstream."
    first = arrivals[0]
    max_wait = max(upstream.started[name] - when for name, when in sent.items())
    return _Run([when - first for when in arrivals], max_wait, upstream.last_end - first)


def _create_job(jobs: Jobs, sent: dict[bytes, float]) -> Job:
    """Create a job and send its parts, as the cutter does. Record the send times in `sent`."""
    job, _ = jobs.create("hour.m4a", "audio/mp4", 1, {})
    job = jobs.progress.start_generation(
        jobs.progress.begin_attempt(job.key), "generation", uuid4().hex
    )
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
            file.write(_MAGIC + name)
            file.seek(0)
            jobs.objects.put(part.key, file, "audio/flac")
        sent[name] = time.monotonic()
        jobs.queues.send_part(part, job.account, express=False)
    return job


if __name__ == "__main__":
    for line in comparison():
        print(line, flush=True)
