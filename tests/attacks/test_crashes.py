"""What is left of a job when its worker is killed or the speech service fails: all of it, and nothing paid twice."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from handler.cutter import lengths_of
from handler.cutting import SEARCH_SECONDS
from handler.transcription import Pacing
from tests.attacks.crashing_worker import LEASE_SECONDS, PART_SECONDS
from tests.conftest import ROOT, serving
from tests.place import Place
from tests.recordings import long_recording
from tests.upstream import heard, refused

PARTS = 20
RECORDED_SECONDS = max(  # as few parts as the search for pauses allows
    seconds for seconds in range(1000) if len(lengths_of(seconds, PART_SECONDS + SEARCH_SECONDS)) == PARTS
)
SECONDS = 15  # what the false service bills for a part


@dataclass
class Bill:
    part: str
    sent: float


class Service:
    """A speech service behind real HTTP, that keeps its bills."""

    def __init__(self):
        self.bills = []
        self.app = Starlette(routes=[Route("/v1/audio/transcriptions", self.transcribe, methods=["POST"])])

    async def transcribe(self, request):
        async with request.form() as form:
            part = hashlib.sha256(await form["file"].read()).hexdigest()
        await anyio.sleep(random.uniform(0.05, 0.4))
        self.bills.append(Bill(part, time.monotonic()))
        return JSONResponse({"text": part[:8], "usage": {"type": "duration", "seconds": SECONDS}})


class Process:
    """A worker that may be killed."""

    def __init__(self, url, folder):
        environment = {
            "TMPDIR": str(folder),
            "OPENAI_API_KEY": "any",
            "OPENAI_BASE_URL": f"{url}/v1",
            "MAX_CONCURRENT_CALLS": "4",
        }
        command = [sys.executable, "-m", "tests.attacks.crashing_worker"]
        self._process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment})

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def place(aws, monkeypatch):
    for name, value in aws.items():
        monkeypatch.setenv(name.upper(), value)
    made = Place(aws)
    made.sqs.purge_queue(QueueUrl=made.queue)
    made.sqs.set_queue_attributes(QueueUrl=made.queue, Attributes={"VisibilityTimeout": str(LEASE_SECONDS)})
    yield made
    made.sqs.set_queue_attributes(QueueUrl=made.queue, Attributes={"VisibilityTimeout": "60"})


def pytest_generate_tests(metafunc):
    if "moment" in metafunc.fixturenames:
        metafunc.parametrize("moment", range(metafunc.config.getoption("--kills")))


def test_a_job_whose_worker_is_killed_completes_and_pays_twice_for_what_was_in_flight_alone(place, moment, tmp_path):
    """Killed at a random moment between the job's first step and its last."""
    service = Service()
    identity = place.upload(long_recording("ogg", RECORDED_SECONDS))
    with serving(service.app) as url:
        first = Process(url, tmp_path)
        until(lambda: place.job(identity)["status"] == "processing")
        time.sleep(random.Random(moment).uniform(0, 1.8))
        first.kill()
        killed = time.monotonic()
        second = Process(url, tmp_path)
        try:
            until(lambda: place.job(identity)["status"] == "completed")
        finally:
            second.kill()
    job, paid = place.job(identity), Counter(bill.part for bill in service.bills)
    assert job["progress"] == {"done": len(paid), "total": len(paid)}
    assert len(paid) == PARTS
    assert [word for part in paid if (word := part[:8]) not in job["transcript"]] == []
    for part, times in paid.items():
        first_bill = next(bill for bill in service.bills if bill.part == part)
        assert times == 1 or (times == 2 and abs(first_bill.sent - killed) < 1)
    assert sum(times - 1 for times in paid.values()) <= 4
    assert job["seconds_paid"] >= SECONDS * len(service.bills)
    assert list(tmp_path.iterdir()) == []


class Faulty(httpx2.MockTransport):
    """Fails three times in ten, in every way; keeps what it has billed."""

    def __init__(self):
        super().__init__(self._answer)
        self.chance = random.Random(1)
        self.billed = Counter()
        self.lock = threading.Lock()

    def _answer(self, request):
        content = request.read()
        with self.lock:
            fault = self.chance.choice(["429", "500", "reset", "garbage", "hang"]) if self.chance.random() < 0.3 else ""
        if fault == "429":
            return refused(429, retry_after="0.01")
        if fault == "500":
            return refused(500)
        if fault == "reset":
            raise httpx2.ReadError("reset by peer")
        if fault == "garbage":
            return httpx2.Response(200, text="<html>")
        if fault == "hang":
            threading.Event().wait(2.5)  # longer than the worker's patience
            return httpx2.Response(200, text="too late")
        with self.lock:
            self.billed[hashlib.sha256(content.partition(b"\r\n")[2]).hexdigest()] += 1
        return heard("Ever tried.")


def test_twenty_jobs_complete_and_pay_once_though_the_service_fails_three_times_in_ten(aws):
    upstream = Faulty()
    place = Place(aws, upstream)
    place.sqs.purge_queue(QueueUrl=place.queue)
    place.worker._pacing = Pacing(part=20, deadline=2, pause=0.01, later=0, last=1)
    content = long_recording("ogg", 60)
    jobs = [place.upload(content, prompt=f"job {number}") for number in range(20)]
    deadline = time.monotonic() + 200
    while any(place.job(identity)["status"] in ("queued", "processing") for identity in jobs):
        assert time.monotonic() < deadline
        for message in place.messages():
            assert place.work(message) == []
            place.sqs.delete_message(QueueUrl=place.queue, ReceiptHandle=message["receiptHandle"])
    assert [place.job(identity)["status"] for identity in jobs] == ["completed"] * 20
    assert {place.job(identity)["transcript"].count("Ever tried.") for identity in jobs} <= {2, 3}
    assert sum(upstream.billed.values()) == sum(place.job(identity)["progress"]["done"] for identity in jobs)
