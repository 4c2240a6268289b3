"""Run the API and the worker as processes that tests can kill, and record what is billed."""

import contextlib
import hashlib
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import anyio
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.conftest import ROOT

SECONDS = 15  # the billed duration of each request


@dataclass(frozen=True)
class Bill:
    """A billed request: its prompt, the SHA-256 of its recording, and when it was processed.

    `started` and `finished` are values of `time.monotonic()`.
    """

    prompt: str
    recording_hash: str
    started: float
    finished: float


class BillingUpstream:
    """A fake upstream that records a Bill for each request and responds within `max_seconds`."""

    def __init__(self, max_seconds=0.4):
        self.bills = []
        self._max_seconds = max_seconds
        self.app = Starlette(
            routes=[Route("/v1/audio/transcriptions", self._transcribe, methods=["POST"])]
        )

    async def _transcribe(self, request):
        started = time.monotonic()
        async with request.form() as form:
            prompt, recording_hash = (
                str(form.get("prompt", "")),
                hashlib.sha256(await form["file"].read()).hexdigest(),
            )
        await anyio.sleep(random.uniform(self._max_seconds / 8, self._max_seconds))
        self.bills.append(Bill(prompt, recording_hash, started, time.monotonic()))
        return JSONResponse(
            {"text": recording_hash[:8], "usage": {"type": "duration", "seconds": SECONDS}}
        )


class Process:
    """A restartable process that runs a Python module. Its temporary files are in `folder`."""

    def __init__(self, command, folder, **environment):
        self._command = [sys.executable, "-m", *command]
        self._environment = {**os.environ, "TMPDIR": str(folder), **environment}
        self._descriptors = ()

    def with_listener(self, listener):
        """Pass this socket to the process. The socket stays open when the process restarts."""
        self._descriptors = (listener.fileno(),)
        self._command += ["--fd", str(listener.fileno())]
        return self

    def start(self):
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._environment,
            pass_fds=self._descriptors,
            stderr=subprocess.DEVNULL,
        )

    @property
    def pid(self):
        return self._process.pid

    def kill(self):
        self._stop(signal.SIGKILL)

    def terminate(self):
        self._stop(signal.SIGTERM)

    def run_out_of_memory(self):
        """Limit the memory of the process to its current usage, then kill the process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[0])
        self._limit_and_kill(resource.RLIMIT_AS, pages * resource.getpagesize())

    def run_out_of_disk(self):
        self._limit_and_kill(resource.RLIMIT_FSIZE, 0)

    def _limit_and_kill(self, limit, amount):
        resource.prlimit(self.pid, limit, (amount, amount))
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)  # give the shortage time to cause errors
        self.kill()

    def _stop(self, signal_number):
        self._process.send_signal(signal_number)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:  # as Lambda does when the shutdown phase times out
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def api(folder, **environment):
    """Start the API. Yield its Process and its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=500) as listener:
        command = ["uvicorn", "handler.main:app", "--log-level", "critical"]
        process = Process(command, folder, **environment).with_listener(listener)
        process.start()
        try:
            yield process, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.kill()


@contextlib.contextmanager
def worker(folder, claim_seconds, **environment):
    """Start a worker whose claims expire after `claim_seconds`. Yield its Process."""
    process = Process(["tests.attacks.worker_process", str(claim_seconds)], folder, **environment)
    process.start()
    try:
        yield process
    finally:
        process.kill()
