"""A warm function's time for a recording, over that of OpenAI's SDK alone with the same open file.

    python -m benchmarks.warm

Each in a process of its own, which answers the same events of an HTTP API again and again; the speech service answers
at once.
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
# The same SDK makes the call in Steno, and Steno's own work comes on top of it: receiving the form, the file on
# disk, and reading the answer with limits.
AIMS = {50_000: (2.2, 1.3), 1_000_000: (3.0, 1.3), 4_000_000: (2.6, 1.3)}
TIMES = 60
RUNS = 15
MODULES = {"steno": "handler.main", "naive": "benchmarks.naive"}
_EVENT = ROOT / "events" / "health.json"


def recording(size: int) -> bytes:
    """A WAV file of noise."""
    header = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\x80>\0\0\0}\0\0\x02\0\x10\0data\xff\xff\xff\xff"
    return header + os.urandom(size - len(header))


def event(size: int) -> dict[str, Any]:
    """The gateway's event for a form with a recording of so many bytes."""
    form = httpx2.Request(
        "POST", "http://x", files={"file": ("recording.wav", recording(size), "audio/wav")}
    )
    told: dict[str, Any] = json.loads(_EVENT.read_text())
    told["requestContext"]["http"] |= {"method": "POST", "path": "/api/transcribe"}
    told["headers"] |= {name: form.headers[name] for name in ("content-type", "content-length")}
    return told | {"body": base64.b64encode(form.read()).decode(), "isBase64Encoded": True}


def calls(who: str, size: int) -> Callable[[], None]:
    """One answer of Steno, of the tutorial's app, or, as the floor, of the SDK."""
    if who == "floor":
        return _bare(size)
    told, function = event(size), importlib.import_module(MODULES[who]).lambda_handler

    def answer() -> None:
        answered = function(told, None)
        assert answered["statusCode"] == 200, answered

    return answer


def _bare(size: int) -> Callable[[], None]:
    from openai import OpenAI  # only here, as it would be in the other processes' memory, too

    client = OpenAI()
    file = tempfile.TemporaryFile(suffix=".wav")  # noqa: SIM115 - as long as the process lives
    file.write(recording(size))

    def call() -> None:
        file.seek(0)
        client.audio.transcriptions.create(model="gpt-transcribe", file=("recording.wav", file))

    return call


def medians(who: str) -> Iterator[float]:
    """Seconds, for each size of AIMS."""
    for size in AIMS:
        call, taken = calls(who, size), []
        for _ in range(TIMES):
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
        yield statistics.median(taken)


def rows() -> Iterator[Row]:
    told: dict[str, list[list[float]]] = {"floor": [], "naive": [], "steno": []}
    with processes.upstream() as address:
        environment = {
            **os.environ,
            "AUTH": "open",
            "OPENAI_API_KEY": "offline",
            "OPENAI_BASE_URL": f"{address}/v1",
        }
        for _ in range(RUNS):
            for who, runs in told.items():
                command = [sys.executable, "-m", "benchmarks.warm", who]
                run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
                runs.append(json.loads(run.stdout.splitlines()[-1]))
    for number, (size, aims) in enumerate(AIMS.items()):
        floor, naive, steno = ([run[number] for run in runs] for runs in told.values())
        yield Row(
            f"warm request of {NAMES[size]}",
            "of the bare SDK's",
            _median_ratio(steno, floor),
            *aims,
            _median_ratio(naive, floor),
            1.0,
        )


def _median_ratio(of: list[float], to: list[float]) -> float:
    """Of runs that were made side by side: a machine's slower minute is in both."""
    return statistics.median(one / other for one, other in zip(of, to, strict=True))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(list(medians(sys.argv[1]))))
    else:
        print(table(rows()))
