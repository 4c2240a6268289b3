"""How fast an hour and four hours are cut: audio seconds per CPU second, peak memory, and when the first part is there.

python -m benchmarks.cutting [hours ...]
"""

import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.speech import encoded

LONGEST = str(12 * 3600.0)


def peak(process: int) -> int:
    """The largest resident size so far, in KB: what the system tells of ended children includes their parent's."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found[1]) if found else 0


def measure(path: Path) -> tuple[float, float, float, float]:
    """Seconds of sound, CPU seconds, seconds until the first part, and the largest resident size in MB."""
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        memory = 0
        began = time.monotonic()
        command = [sys.executable, "-m", "handler.cutter", str(path), folder, LONGEST, "300", "12"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            said = []
            for line in process.stdout:
                said.append((time.monotonic() - began, json.loads(line)))
                memory = max(memory, peak(process.pid))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return said[-1][1]["done"]["seconds"], cpu, said[0][0], memory / 1024


def main() -> None:
    hours = [float(number) for number in sys.argv[1:]] or [1.0, 4.0]
    with tempfile.TemporaryDirectory() as folder:
        for length in hours:
            for kind in ("mp3", "m4a", "webm"):
                path = encoded(kind, length * 3600, Path(folder))
                seconds, cpu, first, memory = measure(path)
                print(
                    f"{kind:>4} {length:g} h: {seconds / cpu:5.0f} s of sound per CPU second,"
                    f" first part after {first:.1f} s, {memory:.0f} MB at most",
                    flush=True,
                )
                path.unlink()


if __name__ == "__main__":
    main()
