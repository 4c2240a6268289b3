"""How long an hour takes from its upload to its transcript, over its slowest part's time at the speech service.

The service answers each part after 2 s and a fiftieth of the part's length: with two words, and with as many as people
say in it. To align those with the sound takes half a second of CPU for a part of five minutes. The queues are polled as
on AWS, for 16 functions that transcribe, but all of them, the local AWS and the cutter share this machine.

    python -m benchmarks.turnaround
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
from benchmarks.speech import encoded
from handler.aws.clients import WORKER_LIMITS
from handler.jobs.store import Jobs
from handler.services import build_services
from handler.settings import read_settings
from infra.local.aws import local_aws
from infra.local.worker import working

SECONDS = 3600.0
_FLAC_BYTES_PER_SECOND = (
    14_500  # of these recordings, near enough to tell a part's length by its size
)
WORDS_PER_SECOND = 2.5
_LOOK_SECONDS = 0.05


def upstream_seconds(length: float) -> float:
    """How long the speech service is taken to hear so many seconds of sound."""
    return 2 + length / 50


class Service(httpx2.MockTransport):
    """A speech service that takes its time, and answers with two words or more.

    `calls` has when each began, by `time.monotonic`, and how many seconds it took.
    """

    def __init__(self, words_per_second: float) -> None:
        super().__init__(self._answer)
        self.calls: list[tuple[float, float]] = []
        self._words_per_second = words_per_second
        self._chance = random.Random(1)  # noqa: S311 - no secret

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        length = len(request.read()) / _FLAC_BYTES_PER_SECOND
        seconds = upstream_seconds(length)
        self.calls.append((time.monotonic(), seconds))
        time.sleep(seconds)
        usage = {"type": "duration", "seconds": round(length)}
        return httpx2.Response(200, json={"text": self._text(length), "usage": usage})

    def _text(self, length: float) -> str:
        number = round(length * self._words_per_second)
        words = ("".join(self._chance.choices("etaoinshrdlu", k=5)) for _ in range(number))
        return " ".join(["Ever tried", *words]) + "."


@dataclass(frozen=True)
class Hour:
    """`seconds` are those from the end of the upload to `completed`; `cut` those until the last part was asked about.

    `parts` are the seconds that each was at the service; `calls` what AWS was asked, by operation, in the units that
    are billed (`aws_calls`).
    """

    seconds: float
    cut: float
    parts: list[float]
    calls: Counter[str]


@cache
def measured(words_per_second: float = 0.0) -> Hour:
    with tempfile.TemporaryDirectory() as folder, local_aws(Path(folder) / "aws") as environment:
        os.environ |= {**environment, "OPENAI_API_KEY": "offline"}
        service, settings = Service(words_per_second), read_settings()
        jobs = Jobs(settings, limits=WORKER_LIMITS)
        services = build_services(settings, transport=service, jobs=jobs)
        recording = encoded("m4a", SECONDS, Path(folder))
        with aws_calls.counted(but=threading.get_ident()) as calls:  # this thread only waits
            with working(services) as threads:
                job, form = jobs.create("hour.m4a", "audio/mp4", recording.stat().st_size, {})
                with recording.open("rb") as file:
                    httpx2.post(
                        form["url"], data=form["fields"], files={"file": file}, timeout=60
                    ).raise_for_status()
                began = time.monotonic()
                while not (told := jobs.get(job.id)).finished:
                    time.sleep(_LOOK_SECONDS)
                seconds = time.monotonic() - began
            for thread in threads:  # which end once all is deleted that the job does not need
                thread.join()
        assert told.status == "completed", told
        return Hour(
            seconds,
            max(asked for asked, _ in service.calls) - began,
            [taken for _, taken in service.calls],
            calls,
        )


def rows() -> Iterator[Row]:
    for what, words_per_second, must, stretch in (
        ("turnaround of 1 h", 0.0, 1.5, 1.2),
        ("turnaround of 1 h of speech, aligned on this machine", WORDS_PER_SECOND, 3.0, 1.5),
    ):
        hour = measured(words_per_second)
        slowest = max(hour.parts)
        parts = sum(hour.parts) / slowest
        yield Row(what, "of its slowest part's", hour.seconds / slowest, must, stretch, parts, 1)
        yield Row(
            "  in seconds",
            "s",
            hour.seconds,
            must * slowest,
            stretch * slowest,
            sum(hour.parts),
            slowest,
        )


if __name__ == "__main__":
    print(table(rows()))
