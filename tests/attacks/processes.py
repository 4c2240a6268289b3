"""Steno as it is run, in processes that can be wounded and killed, and a speech service that keeps its bills."""

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

SECONDS = 15  # what the service bills for anything


@dataclass(frozen=True)
class Bill:
    """What was asked, by which recording's prompt, and from when to when it was worked on."""

    prompt: str
    question: str
    began: float
    ended: float


class Service:
    """A speech service behind real HTTP, that keeps its bills; `slowest` seconds at most for an answer."""

    def __init__(self, slowest=0.4):
        self.bills = []
        self._slowest = slowest
        self.app = Starlette(
            routes=[Route("/v1/audio/transcriptions", self._transcribe, methods=["POST"])]
        )

    async def _transcribe(self, request):
        began = time.monotonic()
        async with request.form() as form:
            prompt, sound = (
                str(form.get("prompt", "")),
                hashlib.sha256(await form["file"].read()).hexdigest(),
            )
        await anyio.sleep(random.uniform(self._slowest / 8, self._slowest))
        self.bills.append(Bill(prompt, sound, began, time.monotonic()))
        return JSONResponse({"text": sound[:8], "usage": {"type": "duration", "seconds": SECONDS}})


class Process:
    """A program that begins anew as often as it is killed; its temporary files go to `folder`."""

    def __init__(self, command, folder, **environment):
        self._command = [sys.executable, "-m", *command]
        self._environment = {**os.environ, "TMPDIR": str(folder), **environment}
        self._descriptors = ()

    def listening(self, listener):
        """The program is given this socket, which outlives it."""
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
        self._end(signal.SIGKILL)

    def terminate(self):
        self._end(signal.SIGTERM)

    def run_out_of_memory(self):
        """It gets no more than it has; soon after, the system kills it."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[0])
        self._starve(resource.RLIMIT_AS, pages * resource.getpagesize())

    def run_out_of_disk(self):
        self._starve(resource.RLIMIT_FSIZE, 0)

    def _starve(self, limit, amount):
        resource.prlimit(self.pid, limit, (amount, amount))
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)  # to do what harm it may
        self.kill()

    def _end(self, how):
        self._process.send_signal(how)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:  # what Lambda does with one that will not go
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def api(folder, **environment):
    """The API's process, started, and its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=500) as listener:
        command = ["uvicorn", "handler.main:app", "--log-level", "critical"]
        process = Process(command, folder, **environment).listening(listener)
        process.start()
        try:
            yield process, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.kill()


@contextlib.contextmanager
def worker(folder, hold, **environment):
    """A worker's process, started; it holds messages and claims for `hold` seconds, and renews them meanwhile."""
    process = Process(["tests.attacks.crashing_worker", str(hold)], folder, **environment)
    process.start()
    try:
        yield process
    finally:
        process.kill()
