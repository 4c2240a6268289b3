"""More recordings than two cores are made for, at once and then for minutes: all transcribed, and nothing grows."""

import os
import random
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from handler.steps.pacing import DEFAULT_PACING
from tests.attacks.clips import clip
from tests.attacks.processes import Service, api, worker
from tests.callers import Caller, Remote
from tests.conftest import serving
from tests.false_upstream import FalseUpstream
from tests.samples import recording
from tests.transcription.test_direct import WORDS, spent

_TALK_SECONDS = 60
_MOST_GROWTH = 1.15  # of a process's memory, between the second quarter of the time and the last


class Load:
    """Callers of a server, and how long each of them waited for its words."""

    def __init__(self, url):
        self.caller = Caller(Remote(url), "upstream_busy")
        self.waited = {"request": [], "job": []}
        self._chance = random.Random(1)

    def request(self, number):
        self._timed(
            "request", self.caller.words_of, clip(5, self._chance), prompt=f"request {number}"
        )

    def job(self, number):
        self._timed(
            "job",
            self.caller.words_of_upload,
            clip(_TALK_SECONDS, self._chance),
            prompt=f"job {number}",
        )

    def _timed(self, kind, words_of, recording, **options):
        began = time.monotonic()
        assert words_of(recording, **options)
        self.waited[kind].append(time.monotonic() - began)

    def __str__(self):
        return "; ".join(
            f"{len(waited)} {kind}s, half of them within {statistics.median(waited):.1f} s,"
            f" 99 in 100 within {statistics.quantiles(waited, n=100)[98]:.1f} s"
            for kind, waited in self.waited.items()
            if len(waited) > 1
        )


class Watch:
    """What processes hold, looked at while they work: memory in bytes, open descriptors."""

    def __init__(self, *processes):
        self._processes = processes
        self.looks = []

    def look(self):
        self.looks.append(
            [(_memory(process.pid), _descriptors(process.pid)) for process in self._processes]
        )

    def growth(self):
        """Of each process: memory and descriptors in the last quarter of the time, over those in the second."""
        quarter = len(self.looks) // 4
        early, late = self.looks[quarter : 2 * quarter], self.looks[-quarter:]
        for number in range(len(self._processes)):
            yield tuple(
                statistics.median(look[number][kind] for look in late)
                / statistics.median(look[number][kind] for look in early)
                for kind in (0, 1)
            )


def _memory(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.fixture
def steno(aws, tmp_path):
    """The API's process, its address, the worker's, and the speech service."""
    service = Service(slowest=2)
    with ExitStack() as stack:
        given = {
            **{name.upper(): value for name, value in aws.items()},
            "OPENAI_API_KEY": "any",
            "OPENAI_BASE_URL": f"{stack.enter_context(serving(service.app))}/v1",
        }
        front, url = stack.enter_context(api(tmp_path, **given))
        yield (
            front,
            url,
            stack.enter_context(worker(tmp_path, DEFAULT_PACING.claim_seconds, **given)),
            service,
        )


def test_fifty_jobs_and_five_hundred_requests_at_once_are_all_transcribed_and_paid_once(
    steno, often, tried
):
    _, url, _, service = steno
    load, jobs, requests = Load(url), often(5, 50), often(50, 500)
    with ThreadPoolExecutor(jobs + requests) as pool:
        sent = [pool.submit(load.job, number) for number in range(jobs)]
        sent += [pool.submit(load.request, number) for number in range(requests)]
        for one in sent:
            one.result()
    assert len(service.bills) == len({(bill.prompt, bill.question) for bill in service.bills})
    tried("Jobs and requests all at once", str(load), "all transcribed, none paid twice")


def test_minutes_of_mixed_load_leave_memory_and_descriptors_as_they_were(steno, often, tried):
    front, url, back, service = steno
    load, watch, seconds = Load(url), Watch(front, back), often(10, 600)
    until = time.monotonic() + seconds

    def call(who):
        number = 0
        while time.monotonic() < until:
            number += 1
            (load.request if number % 4 else load.job)(f"{who}/{number}")

    with ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(call, who) for who in range(8)]
        while not all(caller.done() for caller in callers):
            watch.look()
            threading.Event().wait(seconds / 200)
        for caller in callers:
            caller.result()
    (api_memory, api_descriptors), (worker_memory, worker_descriptors) = watch.growth()
    assert len(service.bills) == len({(bill.prompt, bill.question) for bill in service.bills})
    if often(False, True):  # in seconds nothing has settled yet
        assert max(api_memory, worker_memory) < _MOST_GROWTH
        assert max(api_descriptors, worker_descriptors) <= _MOST_GROWTH
    tried(
        f"{seconds} seconds of mixed load",
        str(load),
        f"none paid twice; at the end the API's memory was {api_memory:.2f} of what it had been, the worker's"
        f" {worker_memory:.2f}, descriptors {api_descriptors:.2f} and {worker_descriptors:.2f}",
    )


def test_many_at_once_against_a_cap_of_ten_pay_for_ten_at_most(server, often):
    upstream, many = FalseUpstream(), often(20, 50)
    place = server(upstream, daily_seconds=31, request_deadline_seconds=240)
    recordings = [recording("ogg", "two_cities.wav", 3 + number / 10) for number in range(many)]
    with ThreadPoolExecutor(many) as pool:
        answers = list(pool.map(place.send, recordings))
    said = [answer.json().get("code") or answer.json().get("transcript") for answer in answers]
    assert set(said) == {WORDS, "budget_exhausted"}
    assert 8 <= said.count(WORDS) == len(upstream.calls) <= 10
    assert spent(place)["all"] == 3 * len(upstream.calls) <= 31
