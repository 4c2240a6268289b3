"""How long an hour takes from the queue to its transcript, over its slowest part's time at the speech service.

The service answers each part after 2 s and a fiftieth of the part's length.

    python -m benchmarks.turnaround
"""

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from uuid import uuid4

import boto3
import httpx2

from benchmarks import aws_calls
from benchmarks.row import Row, table
from benchmarks.speech import encoded
from handler.settings import read_settings
from handler.wiring import Wiring
from handler.worker import Worker
from infra.local_aws import local_aws
from infra.local_worker import Context

SECONDS = 3600.0
_FLAC_BYTES_PER_SECOND = 14_500  # of these recordings, near enough to tell a part's length by its size


def upstream_seconds(length: float) -> float:
    """How long the speech service is taken to hear so many seconds of sound."""
    return 2 + length / 50


class Service(httpx2.MockTransport):
    """A speech service that takes its time and hears the same in everything."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.taken: list[float] = []

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        seconds = upstream_seconds(len(request.read()) / _FLAC_BYTES_PER_SECOND)
        self.taken.append(seconds)
        time.sleep(seconds)
        return httpx2.Response(200, json={"text": "Ever tried.", "usage": {"type": "duration", "seconds": 300}})


@dataclass(frozen=True)
class Hour:
    """`parts` are the seconds that each was at the service; `calls` what AWS was asked, by operation."""

    seconds: float
    parts: list[float]
    calls: Counter[str]


@cache
def measured() -> Hour:
    with tempfile.TemporaryDirectory() as folder, local_aws(Path(folder) / "aws") as environment:
        os.environ |= {**environment, "OPENAI_API_KEY": "offline"}
        service = Service()
        wiring = Wiring(read_settings(), transport=service)
        recording = encoded("m4a", SECONDS, Path(folder))
        with aws_calls.counted() as calls:
            job, form = wiring.jobs.create("hour.m4a", "audio/mp4", {})
            with recording.open("rb") as file:
                httpx2.post(form["url"], data=form["fields"], files={"file": file}, timeout=60).raise_for_status()
            began = time.monotonic()
            queue = boto3.client("sqs").get_queue_url(QueueName="steno")["QueueUrl"]
            message = boto3.client("sqs").receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"][0]
            record = {
                "messageId": uuid4().hex,
                "receiptHandle": message["ReceiptHandle"],
                "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:steno",
                "body": json.dumps({"key": job.key}),
            }
            Worker(wiring).handle({"Records": [record]}, Context())
            seconds = time.monotonic() - began
        assert wiring.jobs.get(job.id).status == "completed"
        return Hour(seconds, service.taken, calls)


def rows() -> Iterator[Row]:
    hour = measured()
    slowest = max(hour.parts)
    yield Row(
        "turnaround of 1 h", "of its slowest part's", hour.seconds / slowest, 1.5, 1.2, sum(hour.parts) / slowest, 1
    )


if __name__ == "__main__":
    print(table(rows()))
