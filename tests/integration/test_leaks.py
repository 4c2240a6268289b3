"""Test that the API leaks no temporary files, descriptors or threads during 1,000 requests."""

import contextlib
import tempfile
from pathlib import Path

import anyio
import httpx2
import pytest

from tests.conftest import uvicorn_process
from tests.samples import asset

pytestmark = pytest.mark.anyio

AT_ONCE = 20
FAILURES = [
    {"status": 400, "body": {"error": {"message": "unreadable"}}},
    {"status": 429, "body": {"error": {"code": "insufficient_quota"}}},
    {"status": 502, "body": "<html>"},
    {"body": "garbage"},
    {"body": {"text": "x" * 50}, "broken": True},
    {"delay": 1.5},  # longer than the deadline
]


async def valid_request(http):
    response = await http.post("/api/transcribe", files={"file": asset("beckett.wav")})
    # The status is 503 if the deadline of 1 s passed before the recording was sent to the upstream.
    assert response.status_code in (200, 422, 502, 503, 504)


async def not_audio(http):
    assert (
        await http.post("/api/transcribe", files={"file": b"<html>" * 50_000})
    ).status_code == 415


async def too_large(http):
    assert (await http.post("/api/transcribe", files={"file": bytes(600_000)})).status_code == 413


async def invalid_form(http):
    assert (await http.post("/api/transcribe", content=b"x" * 100_000)).status_code == 422


async def cancelled(http):
    """The client disconnects while it sends the request, or while it waits for the response."""
    with anyio.move_on_after(0.02):
        await http.post("/api/transcribe", files={"file": asset("beckett.wav")})


async def connection_reset(http):
    """The connection is closed in the middle of the body."""
    host, port = http.base_url.host, http.base_url.port
    head = b"POST /api/transcribe HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n"
    async with await anyio.connect_tcp(host, port) as connection:
        await connection.send(
            head
            + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            + b"--b\r\n"
            + bytes(50_000)
        )


KINDS = [
    valid_request,
    valid_request,
    not_audio,
    too_large,
    invalid_form,
    cancelled,
    connection_reset,
]


def descriptors(process):
    """Return the open files of the process, without sockets, which may stay open for reuse."""
    return sorted(link for link in _links(process) if not link.startswith("socket:"))


def sockets(process):
    return sum(link.startswith("socket:") for link in _links(process))


def _links(process):
    links = []
    for path in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed after it was listed
            links.append(str(path.readlink()))
    return links


def threads(process):
    return len(list(Path(f"/proc/{process.pid}/task").iterdir()))


def temp_files():
    return {path.name for path in Path(tempfile.gettempdir()).glob("steno-*")}


async def send(http, number, limiter):
    async with limiter:
        await KINDS[number % len(KINDS)](http)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc, which only Linux has")
async def test_a_thousand_requests_of_every_kind_leak_nothing(engine):
    engine.script(*[{**failure, "times": 1} for failure in FAILURES * 8])
    before_files = temp_files()
    limits = {
        "MAX_AUDIO_BYTES": "500000",
        "REQUEST_DEADLINE_SECONDS": "1",
        "MAX_CONCURRENT_CALLS": "30",
    }
    with uvicorn_process(OPENAI_API_KEY="offline", OPENAI_BASE_URL=engine.url, **limits) as (
        process,
        url,
    ):
        async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
            await valid_request(http)
            before = descriptors(process)
            limiter = anyio.CapacityLimiter(AT_ONCE)
            async with anyio.create_task_group() as tasks:
                for number in range(1000):
                    tasks.start_soon(send, http, number, limiter)
        async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
            with anyio.fail_after(20):
                # Requests of disconnected clients end within their deadline.
                while descriptors(process) != before:
                    await http.get("/api/health")
        assert temp_files() == before_files
        # The pool has up to 30 threads, which are reused. The other threads belong to the server.
        assert threads(process) <= 30 + 4
        # Each thread of the pool may keep one connection alive.
        assert sockets(process) <= 30 + 8
