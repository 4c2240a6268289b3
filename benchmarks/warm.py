"""Measure the response time of a warm Lambda function, relative to the OpenAI SDK alone.

    python -m benchmarks.warm

Steno, the tutorial app and the SDK run in separate processes. Each of them sends the same recording
to the upstream repeatedly. The upstream responds immediately.
"""

import base64
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2

from benchmarks import processes
from benchmarks.row import Row, table
from infra.bundle import ROOT

NAMES = {50_000: "50 KB", 1_000_000: "1 MB", 4_000_000: "4 MB"}
# The bound and the goal for each size. Steno uses the same SDK. In addition, it parses the form,
# writes the file to disk, and checks the size of the response while it reads it.
BOUNDS_AND_GOALS = {50_000: (2.2, 1.3), 1_000_000: (3.0, 1.3), 4_000_000: (2.6, 1.3)}
REPETITIONS = 60
RUNS = 15
MODULES = {"steno": "handler.main", "naive": "benchmarks.naive"}
_EVENT = ROOT / "events" / "health.json"


def recording(size: int) -> bytes:
    """Return a WAV file of `size` bytes that contains noise."""
    header = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0"
    header += b"\x80>\0\0\0}\0\0\x02\0\x10\0"
    header += b"data\xff\xff\xff\xff"
    return header + os.urandom(size - len(header))


def event(size: int) -> dict[str, Any]:
    """Return the API Gateway event for a request with a recording of `size` bytes."""
    form = httpx2.Request(
        "POST", "http://x", files={"file": ("recording.wav", recording(size), "audio/wav")}
    )
    content: dict[str, Any] = json.loads(_EVENT.read_text())
    content["requestContext"]["http"] |= {"method": "POST", "path": "/api/transcribe"}
    content["headers"] |= {name: form.headers[name] for name in ("content-type", "content-length")}
    body = base64.b64encode(form.read()).decode()
    return content | {"body": body, "isBase64Encoded": True}


def request_function(program: str, size: int) -> Callable[[], None]:
    """Return a function that sends one request.

    `program` is `steno`, `naive` (the tutorial app) or `floor` (the SDK alone).
    """
    if program == "floor":
        return _sdk_request_function(size)
    request = event(size)
    function = importlib.import_module(MODULES[program]).lambda_handler

    def invoke() -> None:
        response = function(request, None)
        assert response["statusCode"] == 200, response

    return invoke


def _sdk_request_function(size: int) -> Callable[[], None]:
    from openai import OpenAI  # not imported in the other processes

    client = OpenAI()
    file = tempfile.TemporaryFile(suffix=".wav")  # noqa: SIM115 - open until the process ends
    file.write(recording(size))

    def call() -> None:
        file.seek(0)
        client.audio.transcriptions.create(model="gpt-transcribe", file=("recording.wav", file))

    return call


def medians(program: str) -> Iterator[float]:
    """Yield the median response time in seconds for each size in BOUNDS_AND_GOALS."""
    for size in BOUNDS_AND_GOALS:
        call, durations = request_function(program, size), []
        for _ in range(REPETITIONS):
            started = time.perf_counter()
            call()
            durations.append(time.perf_counter() - started)
        yield statistics.median(durations)


def rows() -> Iterator[Row]:
    results: dict[str, list[list[float]]] = {"floor": [], "naive": [], "steno": []}
    with processes.upstream() as address:
        environment = {
            **os.environ,
            "AUTH": "open",
            "OPENAI_API_KEY": "offline",
            "OPENAI_BASE_URL": f"{address}/v1",
        }
        for _ in range(RUNS):
            for program, runs in results.items():
                command = [sys.executable, "-m", "benchmarks.warm", program]
                run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
                runs.append(json.loads(run.stdout.splitlines()[-1]))
    for number, (size, bound_and_goal) in enumerate(BOUNDS_AND_GOALS.items()):
        floor, naive, steno = ([run[number] for run in runs] for runs in results.values())
        ratio = Row(
            f"warm request of {NAMES[size]}",
            "ratio to SDK alone",
            _median_ratio(steno, floor),
            *bound_and_goal,
            _median_ratio(naive, floor),
            1.0,
        )
        yield from (ratio, ratio.scaled(1000 * statistics.median(floor), "ms"))


def _median_ratio(dividends: list[float], divisors: list[float]) -> float:
    """Return the median of the ratios of paired runs.

    The speed of the machine varies over time, so only runs of the same pair are comparable.
    """
    pairs = zip(dividends, divisors, strict=True)
    return statistics.median(dividend / divisor for dividend, divisor in pairs)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(list(medians(sys.argv[1]))))
    else:
        print(table(rows()))
