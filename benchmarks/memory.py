"""How much one upload of 25 MB raises the peak memory of the app's process.

python -m benchmarks.memory
"""

import re
from pathlib import Path

import httpx2

from benchmarks import processes

UPLOAD_BYTES = 25_000_000
RUNS = 3


def peak(pid: int) -> int:
    """The process's greatest resident size so far, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index] # Linux always says it


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def wav(size: int) -> bytes:
    return (
        b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\x80>\0\0\0}\0\0\x02\0\x10\0data\xff\xff\xff\xff"
        + bytes(size)
    )


def main() -> None:
    with processes.engine() as upstream, processes.app(upstream) as (pid, address), httpx2.Client(timeout=60) as http:
        for size in (100_000, *[UPLOAD_BYTES] * RUNS):
            processes.say(upstream, 1, 0)
            reset_peak(pid)
            before = peak(pid)
            http.post(f"{address}/api/transcribe", files={"file": wav(size)}).raise_for_status()
            print(
                f"{size / 1e6:5.1f} MB up: {(peak(pid) - before) / 1e6:+.1f} MB"
                + (" (the first call imports the SDK)" if size < UPLOAD_BYTES else "")
            )


if __name__ == "__main__":
    main()
