"""The recording's temp file is gone however a request ends. It has no name: even a killed process leaves none."""

import contextlib
import threading
from pathlib import Path

import anyio
import httpx2
import pytest

from tests.conftest import app
from tests.false_upstream import FalseUpstream, heard, refused
from tests.web.test_form import Caller

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not Path("/proc/self/fd").exists(), reason="looks for open files in /proc, which is Linux's"
    ),
]


def open_temp_files():
    links = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
            links.append(str(path.readlink()))
    return {link for link in links if link.endswith("(deleted)")} - OF_PYTEST


OF_PYTEST = set()


@pytest.fixture(autouse=True)
def _know_pytests_own():
    OF_PYTEST.clear()
    OF_PYTEST.update(open_temp_files())


class Watching(FalseUpstream):
    """A false upstream that sees the temp file while it is called."""

    def __init__(self, *replies):
        super().__init__(*replies)
        self.seen = set()

    def _handle(self, request):
        self.seen |= open_temp_files()
        return super()._handle(request)


def transport(upstream, **given):
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app(upstream, **given)), base_url="http://test"
    )


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (heard("Ever tried."), 200),
        (refused(400), 422),
        (refused(502), 502),
        (httpx2.ReadTimeout("slow"), 504),
        (httpx2.Response(200, text="garbage"), 502),
    ],
)
async def test_after_whatever_the_upstream_says(webm, reply, status):
    upstream = Watching(reply)
    async with transport(upstream) as http:
        assert (await http.post("/api/transcribe", files={"file": webm})).status_code == status
    assert len(upstream.seen) == 1
    assert open_temp_files() == set()


@pytest.mark.parametrize("content", [b"", b"<html>", bytes(300_000)])
async def test_after_a_refusal(content):
    async with transport(FalseUpstream(), max_audio_bytes=200_000) as http:
        assert (await http.post("/api/transcribe", files={"file": content})).status_code in (
            413,
            415,
            422,
        )
    assert open_temp_files() == set()


async def test_after_the_client_left_while_it_sent():
    caller = Caller(chunks=3)
    await app()(caller.scope, caller.receive, caller.send)
    assert open_temp_files() == set()


@pytest.mark.parametrize("seconds", [0.2, 600])
async def test_after_the_deadline_and_after_a_cancellation_while_the_upstream_still_works(
    webm, seconds
):
    called, release = threading.Event(), threading.Event()

    def hold(_request):
        called.set()
        release.wait(10)
        return heard("too late")

    async with (
        transport(Watching(hold), request_deadline_seconds=seconds) as http,
        anyio.create_task_group() as tasks,
    ):

        async def post():
            await http.post("/api/transcribe", files={"file": webm})

        tasks.start_soon(post)
        assert await anyio.to_thread.run_sync(called.wait, 10)
        assert len(open_temp_files()) == 1
        if seconds == 600:
            tasks.cancel_scope.cancel()
    release.set()  # the call that was given up has a descriptor of its own, for as long as it lasts
    with anyio.fail_after(10):
        while open_temp_files():  # noqa: ASYNC110 - a thread closes it
            await anyio.sleep(0.01)
