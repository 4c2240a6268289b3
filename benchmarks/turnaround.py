"""Measure how long it takes until the transcript of an uploaded one-hour recording is complete.

    python -m benchmarks.turnaround

The time is relative to the time that the upstream needs for the slowest part. The upstream responds
after 2 s plus 2 % of the duration of the part. In one run, each transcript has only two words. In
the other run, it has as many words as natural speech. For a five-minute part, aligning such a
transcript with the audio takes 0.5 s of CPU time.

As on AWS, 16 parts are transcribed at the same time. Unlike on AWS, the transcribers, the cutter
and the AWS emulator run on the same machine.
"""

import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx2

from benchmarks import aws_calls
from benchmarks.row import Row, table
from benchmarks.speech import encode_speech
from handler.aws.clients import WORKER_LIMITS
from handler.jobs.store import Jobs
from handler.services import build_services
from handler.settings import read_settings
from infra.local.aws import local_aws
from infra.local.worker import local_worker

SECONDS = 3600.0
_FLAC_BYTES_PER_SECOND = 14_500  # an average, to estimate the duration of a part from its size
WORDS_PER_SECOND = 2.5
_POLL_SECONDS = 0.05


def upstream_seconds(length: float) -> float:
    """Return the assumed response time, in seconds, for a part of `length` seconds."""
    return 2 + length / 50


class FakeUpstream(httpx2.MockTransport):
    """A fake upstream. It responds after `upstream_seconds` with at least two words.

    `calls` contains the start time (`time.monotonic`) and the duration of each request, in seconds.
    """

    def __init__(self, words_per_second: float) -> None:
        super().__init__(self._respond)
        self.calls: list[tuple[float, float]] = []
        self._words_per_second = words_per_second
        self._random = random.Random(1)  # noqa: S311 - not for secrets

    def _respond(self, request: httpx2.Request) -> httpx2.Response:
        length = len(request.read()) / _FLAC_BYTES_PER_SECOND
        seconds = upstream_seconds(length)
        self.calls.append((time.monotonic(), seconds))
        time.sleep(seconds)
        usage = {"type": "duration", "seconds": round(length)}
        return httpx2.Response(200, json={"text": self._text(length), "usage": usage})

    def _text(self, length: float) -> str:
        number = round(length * self._words_per_second)
        words = ("".join(self._random.choices("etaoinshrdlu", k=5)) for _ in range(number))
        return " ".join(["Ever tried", *words]) + "."


@dataclass(frozen=True)
class Hour:
    """The result of a run. Times are in seconds.

    `seconds` is the time from the end of the upload until the job is completed. `cut` is the time
    from the end of the upload until the last part is sent to the upstream. `parts` contains the
    upstream's response time for each part. `calls` contains the number of AWS API calls for each
    operation, as counted by `aws_calls`.
    """

    seconds: float
    cut: float
    parts: list[float]
    calls: Counter[str]


@cache
def measure(words_per_second: float = 0.0) -> Hour:
    """Upload a one-hour recording, and wait until its job is completed. The result is cached."""
    with tempfile.TemporaryDirectory() as folder, local_aws(Path(folder) / "aws") as environment:
        os.environ |= {**environment, "OPENAI_API_KEY": "offline"}
        upstream, settings = FakeUpstream(words_per_second), read_settings()
        jobs = Jobs(settings, limits=WORKER_LIMITS)
        services = build_services(settings, transport=upstream, jobs=jobs)
        recording = encode_speech("m4a", SECONDS, Path(folder))
        with aws_calls.count_calls(
            exclude_thread=threading.get_ident()
        ) as calls:  # this thread is the client
            with local_worker(services) as threads:
                job, form = jobs.create("hour.m4a", "audio/mp4", recording.stat().st_size, {})
                with recording.open("rb") as file:
                    httpx2.post(
                        form["url"], data=form["fields"], files={"file": file}, timeout=60
                    ).raise_for_status()
                started = time.monotonic()
                while not (current := jobs.get(job.id)).finished:
                    time.sleep(_POLL_SECONDS)
                seconds = time.monotonic() - started
            for thread in threads:  # they delete the job's temporary objects before they end
                thread.join()
        assert current.status == "completed", current
        return Hour(
            seconds,
            max(start for start, _ in upstream.calls) - started,
            [duration for _, duration in upstream.calls],
            calls,
        )


def rows() -> Iterator[Row]:
    for what, words_per_second, bound, goal in (
        ("turnaround of 1 h", 0.0, 1.5, 1.2),
        ("turnaround of 1 h, with text alignment", WORDS_PER_SECOND, 3.0, 1.5),
    ):
        hour = measure(words_per_second)
        slowest = max(hour.parts)
        parts = sum(hour.parts) / slowest
        seconds = hour.seconds / slowest
        ratio = Row(what, "ratio to slowest part", seconds, bound, goal, parts, 1)
        yield from (ratio, ratio.scaled(slowest, "s"))


if __name__ == "__main__":
    print(table(rows()))
