"""Measure how much the peak memory of the app grows when it receives one or four 25 MB uploads.

python -m benchmarks.memory
"""

import re
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

from benchmarks import processes
from benchmarks.row import Row, table

UPLOAD_BYTES = 25_000_000
RUNS = 3


def peak(pid: int) -> int:
    """Return the peak resident set size of the process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index] # Linux always has it


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def wav(size: int) -> bytes:
    header = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0"
    header += b"\x80>\0\0\0}\0\0\x02\0\x10\0data\xff\xff\xff\xff"
    return header + bytes(size)


def send(address: str, content: bytes) -> None:
    httpx2.post(f"{address}/api/transcribe", files={"file": content}, timeout=60).raise_for_status()


def peak_rise(pid: int, address: str, simultaneous: int) -> float:
    """Send simultaneous uploads, and return how much the peak memory grows per upload.

    The result is the median of RUNS runs, divided by the size of an upload.
    """
    content, rises = wav(UPLOAD_BYTES), []
    with ThreadPoolExecutor(simultaneous) as senders:
        for _ in range(RUNS):
            reset_peak(pid)
            before = peak(pid)
            list(senders.map(send, [address] * simultaneous, [content] * simultaneous))
            rises.append((peak(pid) - before) / UPLOAD_BYTES / simultaneous)
    return statistics.median(rises)


def rows() -> Iterator[Row]:
    rises: dict[tuple[str, int], float] = {}
    with processes.upstream() as upstream:
        for module in ("benchmarks.naive", "handler.main"):
            for simultaneous in (1, 4):
                with processes.app(upstream, module) as (pid, address):
                    send(address, wav(100_000))  # the first request imports modules
                    rises[module, simultaneous] = peak_rise(pid, address, simultaneous)
    for simultaneous, how in ((1, "one at a time"), (4, "four at a time")):
        steno = rises["handler.main", simultaneous]
        naive = rises["benchmarks.naive", simultaneous]
        yield Row(
            f"memory for a 25 MB upload, {how}", "ratio to file size", steno, 0.1, 0.07, naive, 0.0
        )


if __name__ == "__main__":
    print(table(rows()))
