"""How fast an hour and four hours are cut, in seconds of sound per CPU second, and with how much memory.

    python -m benchmarks.cutting

The floor is FFmpeg's decoder alone, which gives sound of another rate, and writes nothing.
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
from benchmarks.speech import encoded

LONGEST = str(12 * 3600.0)
HOURS = (1, 4)
AIMS = {"mp3": (700, 1500), "m4a": (700, 1500), "webm": (400, 800)}
_DECODE = "import av, sys; [None for _ in av.open(sys.argv[1]).decode(audio=0)]"


def peak(process: int) -> int:
    """The largest resident size so far, in KB: what the system tells of ended children includes their parent's."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found[1]) if found else 0


def decoded(path: Path) -> float:
    """CPU seconds of decoding alone."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", _DECODE, str(path)], check=True)
    return _cpu_since(before)


def _cpu_since(before: resource.struct_rusage) -> float:
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(path: Path) -> tuple[float, float, float]:
    """Seconds of sound, CPU seconds, and the largest resident size in MB."""
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        memory = 0
        command = [
            sys.executable,
            "-m",
            "handler.recordings.decoder",
            str(path),
            folder,
            LONGEST,
            "300",
            "12",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            said = []
            for line in process.stdout:
                said.append(json.loads(line))
                memory = max(memory, peak(process.pid))
    return said[-1]["done"]["seconds"], _cpu_since(before), memory / 1024


def rows() -> Iterator[Row]:
    highest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for hours in HOURS:
            for kind, aims in AIMS.items():
                path = encoded(kind, hours * 3600, Path(folder))
                seconds, cpu, memory = measure(path)
                floor = decoded(path)
                highest = max(highest, memory)
                yield Row(
                    f"cutting {hours:g} h of {kind}",
                    "s of sound per CPU second",
                    seconds / cpu,
                    *aims,
                    floor=seconds / floor,
                    more_is_better=True,
                )
                path.unlink()
    yield Row("  its peak memory", "MB", highest, 150, 150)


if __name__ == "__main__":
    print(table(rows()))
