"""Overload the API and the worker, in a burst and for several minutes, and check for leaks."""

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
from tests.attacks.processes import BillingUpstream, api, worker
from tests.callers import Caller, Remote
from tests.conftest import serving
from tests.fake_upstream import FakeUpstream
from tests.samples import recording
from tests.transcription.test_direct import WORDS, spent

_LONG_SECONDS = 60
_MAX_GROWTH = 1.15  # from the second quarter of the run to the last


class Load:
    """Calls a server, and records how many seconds each caller waits for its transcript."""

    def __init__(self, url):
        self.caller = Caller(Remote(url), "upstream_busy")
        self.seconds_waited = {"request": [], "job": []}
        self._rng = random.Random(1)

    def request(self, number):
        self._time(
            "request", self.caller.transcribe, clip(5, self._rng), prompt=f"request {number}"
        )

    def job(self, number):
        self._time(
            "job",
            self.caller.transcribe_upload,
            clip(_LONG_SECONDS, self._rng),
            prompt=f"job {number}",
        )

    def _time(self, kind, transcribe, recording, **options):
        started = time.monotonic()
        assert transcribe(recording, **options)
        self.seconds_waited[kind].append(time.monotonic() - started)

    def __str__(self):
        return "; ".join(
            f"{len(seconds_waited)} {kind}s, median {statistics.median(seconds_waited):.1f} s,"
            f" p99 {statistics.quantiles(seconds_waited, n=100)[98]:.1f} s"
            for kind, seconds_waited in self.seconds_waited.items()
            if len(seconds_waited) > 1
        )


class Monitor:
    """Measures the memory (in bytes) and the number of open descriptors of each process."""

    def __init__(self, *processes):
        self._processes = processes
        self.samples = []

    def take_sample(self):
        self.samples.append(
            [(_memory(process.pid), _descriptors(process.pid)) for process in self._processes]
        )

    def growth(self):
        """For each process, yield the growth of its memory and of its number of file descriptors.

        Growth is the median of the last quarter of the samples, divided by the median of the second
        quarter.
        """
        quarter = len(self.samples) // 4
        early, late = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        for number in range(len(self._processes)):
            yield tuple(
                statistics.median(sample[number][kind] for sample in late)
                / statistics.median(sample[number][kind] for sample in early)
                for kind in (0, 1)
            )


def _memory(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.fixture
def steno_processes(aws, tmp_path):
    """Start Steno. Return the API process, its URL, the worker process and the upstream."""
    upstream = BillingUpstream(max_seconds=2)
    with ExitStack() as stack:
        environment = {
            **{name.upper(): value for name, value in aws.items()},
            "OPENAI_API_KEY": "any",
            "OPENAI_BASE_URL": f"{stack.enter_context(serving(upstream.app))}/v1",
        }
        api_process, url = stack.enter_context(api(tmp_path, **environment))
        yield (
            api_process,
            url,
            stack.enter_context(worker(tmp_path, DEFAULT_PACING.claim_seconds, **environment)),
            upstream,
        )


def test_a_burst_of_jobs_and_requests_is_transcribed_and_billed_once(
    steno_processes, quick_or_soak, record_result
):
    _, url, _, upstream = steno_processes
    load, jobs, requests = Load(url), quick_or_soak(5, 50), quick_or_soak(50, 500)
    with ThreadPoolExecutor(jobs + requests) as pool:
        futures = [pool.submit(load.job, number) for number in range(jobs)]
        futures += [pool.submit(load.request, number) for number in range(requests)]
        for future in futures:
            future.result()
    assert len(upstream.bills) == len(
        {(bill.prompt, bill.recording_hash) for bill in upstream.bills}
    )
    record_result(
        "Burst of concurrent requests and jobs", str(load), "all transcribed, none billed twice"
    )


def test_sustained_load_leaks_no_memory_and_no_descriptors(
    steno_processes, quick_or_soak, record_result
):
    api_process, url, worker_process, upstream = steno_processes
    load, monitor, seconds = Load(url), Monitor(api_process, worker_process), quick_or_soak(10, 600)
    deadline = time.monotonic() + seconds

    def call(caller_number):
        number = 0
        while time.monotonic() < deadline:
            number += 1
            (load.request if number % 4 else load.job)(f"{caller_number}/{number}")

    with ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(call, caller_number) for caller_number in range(8)]
        while not all(caller.done() for caller in callers):
            monitor.take_sample()
            threading.Event().wait(seconds / 200)
        for caller in callers:
            caller.result()
    (api_memory, api_descriptors), (worker_memory, worker_descriptors) = monitor.growth()
    assert len(upstream.bills) == len(
        {(bill.prompt, bill.recording_hash) for bill in upstream.bills}
    )
    if quick_or_soak(False, True):  # a short run does not reach a steady state
        assert max(api_memory, worker_memory) < _MAX_GROWTH
        assert max(api_descriptors, worker_descriptors) <= _MAX_GROWTH
    record_result(
        f"{seconds} seconds of mixed load",
        str(load),
        f"none billed twice; memory grew by a factor of {api_memory:.2f} (API) and"
        f" {worker_memory:.2f} (worker), open descriptors by {api_descriptors:.2f} and"
        f" {worker_descriptors:.2f}",
    )


def test_concurrent_requests_do_not_exceed_the_daily_cap(server, quick_or_soak):
    upstream, count = FakeUpstream(), quick_or_soak(20, 50)
    harness = server(upstream, daily_seconds=31, request_deadline_seconds=240)
    recordings = [recording("ogg", "two_cities.wav", 3 + number / 10) for number in range(count)]
    with ThreadPoolExecutor(count) as pool:
        responses = list(pool.map(harness.send, recordings))
    outcomes = [
        response.json().get("code") or response.json().get("transcript") for response in responses
    ]
    assert set(outcomes) == {WORDS, "budget_exhausted"}
    assert 8 <= outcomes.count(WORDS) == len(upstream.calls) <= 10
    assert spent(harness)["all"] == 3 * len(upstream.calls) <= 31
