"""Measure 200 simultaneous requests to one server process, whose upstream responds after 1 s.

python -m benchmarks.concurrency
"""

import io
import statistics
import time
import wave
from collections.abc import Iterator

import anyio
import httpx2

from benchmarks import processes
from benchmarks.row import TUTORIAL_RATIO, Row, table

REQUESTS = 200
RECORDING_BYTES = 200_000
UPSTREAM_SECONDS = 1.0
RUNS = 5


def recording() -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(RECORDING_BYTES - 44))
    return target.getvalue()


def request(address: str) -> bytes:
    """Return an HTTP request as bytes. It is built only once, to save CPU time in the client."""
    message = httpx2.Client().build_request(
        "POST", f"{address}/api/transcribe", files={"file": recording()}
    )
    headers = {**message.headers, "connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /api/transcribe HTTP/1.1\r\n{head}\r\n".encode() + message.read()


async def send(port: int, content: bytes) -> None:
    async with await anyio.connect_tcp("127.0.0.1", port) as connection:
        await connection.send(content)
        response = b""
        try:
            while True:
                response += await connection.receive()
        except anyio.EndOfStream:
            assert response.startswith(b"HTTP/1.1 200 "), response[:300]


async def poll_health(address: str, worst: list[float]) -> None:
    async with httpx2.AsyncClient(base_url=address, timeout=30) as http:
        while True:
            started = time.perf_counter()
            (await http.get("/api/health")).raise_for_status()
            worst[0] = max(worst[0], time.perf_counter() - started)
            await anyio.sleep(0.01)


async def measure(address: str) -> tuple[float, float]:
    """Send all requests.

    Return the total time and the time of the slowest health check, in seconds.
    """
    worst = [0.0]
    content, port = request(address), int(address.rpartition(":")[2])
    async with anyio.create_task_group() as watching:
        watching.start_soon(poll_health, address, worst)
        started = time.perf_counter()
        async with anyio.create_task_group() as sending:
            for _ in range(REQUESTS):
                sending.start_soon(send, port, content)
        seconds = time.perf_counter() - started
        watching.cancel_scope.cancel()
    return seconds, worst[0]


def rows() -> Iterator[Row]:
    seconds, health = {}, {}
    with processes.upstream(UPSTREAM_SECONDS) as upstream:
        for module in ("benchmarks.naive", "handler.main"):
            with processes.app(upstream, module) as (_, address):
                runs = [anyio.run(measure, address) for _ in range(RUNS)]
            seconds[module] = statistics.median(wall for wall, _ in runs)
            health[module] = statistics.median(worst for _, worst in runs) * 1000
    steno, naive = seconds["handler.main"], seconds["benchmarks.naive"]
    what = f"{REQUESTS} simultaneous requests, {UPSTREAM_SECONDS:.0f} s upstream"
    # The SDK builds each request in Python, on the same core that receives the other requests. A
    # lower bound is therefore not realistic.
    yield Row(what, TUTORIAL_RATIO, steno / naive, 0.38, 0.25, 1.0, UPSTREAM_SECONDS / naive)
    yield Row(
        "  slowest /api/health during these requests",
        "ms",
        health["handler.main"],
        200,
        100,
        health["benchmarks.naive"],
    )


if __name__ == "__main__":
    print(table(rows()))
