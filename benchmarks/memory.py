"""How much uploads of 25 MB raise the peak memory of the app's process, one at a time and four at once.

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


def send(address: str, content: bytes) -> None:
    httpx2.post(f"{address}/api/transcribe", files={"file": content}, timeout=60).raise_for_status()


def rise(pid: int, address: str, at_once: int) -> float:
    """By how much of its size each of so many uploads raises the peak: the median of RUNS."""
    content, rises = wav(UPLOAD_BYTES), []
    with ThreadPoolExecutor(at_once) as senders:
        for _ in range(RUNS):
            reset_peak(pid)
            before = peak(pid)
            list(senders.map(send, [address] * at_once, [content] * at_once))
            rises.append((peak(pid) - before) / UPLOAD_BYTES / at_once)
    return statistics.median(rises)


def rows() -> Iterator[Row]:
    rises: dict[tuple[str, int], float] = {}
    with processes.upstream() as upstream:
        for module in ("benchmarks.naive", "handler.main"):
            for at_once in (1, 4):
                with processes.app(upstream, module) as (pid, address):
                    send(address, wav(100_000))  # what the first call imports
                    rises[module, at_once] = rise(pid, address, at_once)
    for at_once, how in ((1, "one at a time"), (4, "four at once")):
        steno, naive = rises["handler.main", at_once], rises["benchmarks.naive", at_once]
        yield Row(
            f"memory for an upload of 25 MB, {how}", "of its size", steno, 0.1, 0.07, naive, 0.0
        )


if __name__ == "__main__":
    print(table(rows()))
