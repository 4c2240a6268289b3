"""Measure how fast one-hour and four-hour recordings are cut, and how much memory that takes.

    python -m benchmarks.cutting

The speed is measured in seconds of audio per second of CPU time. The optimum (`floor`) is the
speed of FFmpeg's decoder alone, without resampling or output.
"""

import json
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.row import Row, table
from benchmarks.speech import encode_speech

MAX_SECONDS = str(12 * 3600.0)
HOURS = (1, 4)
BOUNDS_AND_GOALS = {"mp3": (700, 1500), "m4a": (700, 1500), "webm": (400, 800)}
_DECODE = "import av, sys; [None for _ in av.open(sys.argv[1]).decode(audio=0)]"


def peak(process: int) -> int:
    """Return the peak resident set size of a running process in KB.

    `resource.RUSAGE_CHILDREN` is not used, because it includes the memory of the parent process.
    """
    status = Path(f"/proc/{process}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+)", status)
    return int(match[1]) if match else 0


def decode_cpu_seconds(path: Path) -> float:
    """Decode a file without cutting it, and return the CPU time in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", _DECODE, str(path)], check=True)
    return _cpu_since(before)


def _cpu_since(before: resource.struct_rusage) -> float:
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(path: Path) -> tuple[float, float, float]:
    """Cut a file into parts.

    Return the duration of its audio in seconds, the CPU time in seconds, and the peak memory in MB.
    """
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        memory = 0
        command = [
            sys.executable,
            "-m",
            "handler.recordings.decoder",
            str(path),
            folder,
            MAX_SECONDS,
            "300",
            "12",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            messages = []
            for line in process.stdout:
                messages.append(json.loads(line))
                memory = max(memory, peak(process.pid))
    return messages[-1]["done"]["seconds"], _cpu_since(before), memory / 1024


def rows() -> Iterator[Row]:
    highest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for hours in HOURS:
            for kind, bound_and_goal in BOUNDS_AND_GOALS.items():
                path = encode_speech(kind, hours * 3600, Path(folder))
                seconds, cpu, memory = measure(path)
                floor = decode_cpu_seconds(path)
                highest = max(highest, memory)
                yield Row(
                    f"cutting {hours:g} h of {kind}",
                    "audio s per CPU s",
                    seconds / cpu,
                    *bound_and_goal,
                    floor=seconds / floor,
                    more_is_better=True,
                )
                path.unlink()
    yield Row("  peak memory of cutting", "MB", highest, 150, 150)


if __name__ == "__main__":
    print(table(rows()))
