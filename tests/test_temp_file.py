"""Tests that the temporary file of a recording is closed, and thereby deleted, after each request.

The file has no name in the file system, so it is also deleted if the process is killed.
"""

import contextlib
import threading
from pathlib import Path

import anyio
import httpx2
import pytest

from tests.conftest import app
from tests.fake_upstream import FakeUpstream, error_response, transcript_response
from tests.web.test_form import Caller

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not Path("/proc/self/fd").exists(), reason="reads /proc, which exists on Linux only"
    ),
]


def open_temp_files():
    links = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(
            FileNotFoundError
        ):  # the directory listing has closed its own descriptor
            links.append(str(path.readlink()))
    return {link for link in links if link.endswith("(deleted)")} - PYTEST_FILES


PYTEST_FILES = set()


@pytest.fixture(autouse=True)
def _note_pytest_files():
    PYTEST_FILES.clear()
    PYTEST_FILES.update(open_temp_files())


class WatchingUpstream(FakeUpstream):
    """A fake upstream that records which temporary files are open during a request."""

    def __init__(self, *replies):
        super().__init__(*replies)
        self.seen = set()

    def _handle(self, request):
        self.seen |= open_temp_files()
        return super()._handle(request)


def transport(upstream, **overrides):
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app(upstream, **overrides)), base_url="http://test"
    )


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (transcript_response("Ever tried."), 200),
        (error_response(400), 422),
        (error_response(502), 502),
        (httpx2.ReadTimeout("slow"), 504),
        (httpx2.Response(200, text="garbage"), 502),
    ],
)
async def test_the_file_is_closed_after_every_upstream_reply(webm, reply, status):
    upstream = WatchingUpstream(reply)
    async with transport(upstream) as http:
        assert (await http.post("/api/transcribe", files={"file": webm})).status_code == status
    assert len(upstream.seen) == 1
    assert open_temp_files() == set()


@pytest.mark.parametrize("content", [b"", b"<html>", bytes(300_000)])
async def test_the_file_is_closed_after_a_rejected_request(content):
    async with transport(FakeUpstream(), max_audio_bytes=200_000) as http:
        assert (await http.post("/api/transcribe", files={"file": content})).status_code in (
            413,
            415,
            422,
        )
    assert open_temp_files() == set()


async def test_the_file_is_closed_after_the_client_disconnects():
    caller = Caller(chunks=3)
    await app()(caller.scope, caller.receive, caller.send)
    assert open_temp_files() == set()


@pytest.mark.parametrize("seconds", [0.2, 600])
async def test_the_file_is_closed_after_a_deadline_or_cancellation_during_the_upstream_call(
    webm, seconds
):
    called, release = threading.Event(), threading.Event()

    def hold(_request):
        called.set()
        release.wait(10)
        return transcript_response("too late")

    async with (
        transport(WatchingUpstream(hold), request_deadline_seconds=seconds) as http,
        anyio.create_task_group() as tasks,
    ):

        async def post():
            await http.post("/api/transcribe", files={"file": webm})

        tasks.start_soon(post)
        assert await anyio.to_thread.run_sync(called.wait, 10)
        assert len(open_temp_files()) == 1
        if seconds == 600:
            tasks.cancel_scope.cancel()
    release.set()  # the abandoned upstream call keeps a file descriptor open until it ends
    with anyio.fail_after(10):
        while open_temp_files():  # noqa: ASYNC110 - another thread closes the file
            await anyio.sleep(0.01)
