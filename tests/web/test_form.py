"""Tests of form.py and drain.py: multipart forms from various clients."""

import socket

import anyio
import pytest
from starlette.responses import JSONResponse

from handler.web.drain import DrainRejectedBody
from tests.conftest import app, serving
from tests.fake_upstream import FakeUpstream

pytestmark = pytest.mark.anyio

BOUNDARY = "steno-test"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def part(disposition, content, *headers):
    lines = [f"--{BOUNDARY}", f"Content-Disposition: form-data{disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content + b"\r\n"


def form(*parts):
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def post(http, body, content_type=MULTIPART):
    return http.post("/api/transcribe", content=body, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    "disposition",
    [
        '; name="file"',
        '; name="file"; filename=""',
        '; name="file"; filename="blob"',
        '; name="file"; filename="Sprachnotiz-\u00fc.webm"',
        '; name="file"; filename="../../etc/passwd.webm"',
        "; name=\"file\"; filename*=UTF-8''na%C3%AFve.webm",
        f'; name="file"; filename="{"a" * 300}.webm"',
        '; name="file"; filename="nul\0byte.webm"',
        "; name=file; filename=voice.webm",
    ],
)
def test_the_upstream_gets_the_canonical_name_for_every_file_name(client, webm, disposition):
    upstream = FakeUpstream()
    response = post(client(upstream), form(part(disposition, webm)))
    assert response.json() == {"transcript": "Ever tried."}
    assert (upstream.calls[0].filename, upstream.calls[0].recording) == ("recording.webm", webm)


@pytest.mark.parametrize(
    ("body", "content_type", "word"),
    [
        (b"sound", "audio/webm", "multipart/form-data"),
        (b"", "", "multipart/form-data"),
        (b"sound", "multipart/form-data", "boundary"),
        (
            form(part('; name="file"', b"sound")),
            "multipart/form-data; boundary=another",
            "boundary",
        ),
        (
            form(part('; name="file"', b"sound")),
            f"multipart/form-data; boundary={'b' * 500}",
            "form",
        ),
        (b"", MULTIPART, "incomplete"),
        (part('; name="file"', b"sound"), MULTIPART, "incomplete"),
        (form(part('; name="file"', b"sound"))[:60], MULTIPART, "incomplete"),
        (form(part('; name="language"', b"en")), MULTIPART, "no `file`"),
        (form(part("", b"sound")), MULTIPART, "no name"),
        (
            form(part('; name="file"', b"one"), part('; name="file"', b"two")),
            MULTIPART,
            "more than one",
        ),
        (form(part('; name="audio"; filename="a.webm"', b"sound")), MULTIPART, "not `audio`"),
        (form(part('; name="prompt"', b"\xff\xfe")), MULTIPART, "UTF-8"),
        (form(part('; name="prompt"', b"x" * 6_100_000)), MULTIPART, "longer"),
        (form(*[part('; name="prompt"', b"x")] * 10_000), MULTIPART, "1,100 parts"),
        (form(part('; name="file"', b"x", "X-Long: " + "x" * 1_000_000)), MULTIPART, "form"),
        (form(part('; name="file"', b"x", *["X-Many: x"] * 1000)), MULTIPART, "form"),
    ],
)
def test_an_invalid_form_is_rejected_with_the_reason(client, body, content_type, word):
    upstream = FakeUpstream()
    response = post(client(upstream), body, content_type)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert word in response.json()["detail"]
    assert upstream.calls == []


def test_samples_of_known_speakers_do_not_count_as_recording(client, webm):
    """Samples are data URLs with 2 to 10 s of audio. The size limit applies to the recording."""
    sample = "data:audio/wav;base64," + "A" * 1_300_000
    fields = {"model": "gpt-4o-transcribe-diarize", "known_speaker_references[]": [sample] * 4}
    http = client(max_audio_bytes=len(webm))
    assert (
        http.post("/v1/audio/transcriptions", files={"file": webm}, data=fields).status_code == 200
    )


def test_a_recording_of_the_maximum_size_is_accepted_and_one_byte_more_is_rejected(client, webm):
    http = client(max_audio_bytes=len(webm))
    assert http.post("/api/transcribe", files={"file": webm}).status_code == 200
    assert http.post("/api/transcribe", files={"file": webm + b"\0"}).status_code == 413


class Caller:
    """An ASGI client that sends `chunks` chunks of 64 KiB of a recording and then disconnects."""

    def __init__(self, *, content_length=None, chunks=2_000):
        headers = [(b"content-type", MULTIPART.encode())]
        if content_length:
            headers.append((b"content-length", str(content_length).encode()))
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/transcribe",
            "headers": headers,
        }
        self.scope |= {
            "http_version": "1.1",
            "query_string": b"",
            "client": ("127.0.0.1", 1),
            "server": ("test", 80),
        }
        self.chunks_sent = 0
        self.status = None
        self.chunks_before_response = None
        self._chunks = chunks

    async def receive(self):
        if self.chunks_sent >= self._chunks:
            return {"type": "http.disconnect"}
        start = part('; name="file"', b"")[:-2] if self.chunks_sent == 0 else b""
        self.chunks_sent += 1
        return {"type": "http.request", "body": start + bytes(64 * 1024), "more_body": True}

    async def send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.chunks_before_response = self.chunks_sent


async def test_a_large_body_is_rejected_while_it_arrives_and_a_limited_rest_is_discarded():
    caller = Caller()  # would send 130 MB in total
    await app(max_audio_bytes=1_000_000)(caller.scope, caller.receive, caller.send)
    assert caller.status == 413
    # 1 MB is received and 32 MiB are discarded, in chunks of 64 KiB.
    assert 500 < caller.chunks_before_response < 600


async def test_the_size_limit_does_not_depend_on_the_content_length():
    caller = Caller(content_length=10)
    await app(max_audio_bytes=1_000_000)(caller.scope, caller.receive, caller.send)
    assert caller.status == 413


async def test_a_content_length_over_the_limit_is_rejected_before_a_file_is_created(
    monkeypatch, tmp_path
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "there-is-no-such-folder"))
    caller = Caller(content_length=9_000_000, chunks=3)
    await app(max_audio_bytes=1_000_000)(caller.scope, caller.receive, caller.send)
    assert caller.status == 413


async def test_a_client_that_disconnects_is_not_logged_as_an_error(caplog):
    caller = Caller(chunks=3)
    upstream = FakeUpstream()
    await app(upstream)(caller.scope, caller.receive, caller.send)
    assert upstream.calls == []
    assert caplog.text == ""


def test_a_client_that_sends_the_whole_body_first_can_read_the_413():
    body = form(part('; name="file"', bytes(8_000_000)))
    with serving(app(max_audio_bytes=1_000)) as url:
        response = _raw_post(url, body)
    assert b" 413 " in response
    assert b"recording_too_large" in response


def test_a_client_with_expect_100_continue_is_rejected_before_it_sends_the_body():
    with serving(app(max_audio_bytes=1_000)) as url:
        response = _raw_post(url, b"", "Expect: 100-continue\r\nContent-Length: 9000000000\r\n")
    assert response.startswith(b"HTTP/1.1 413 ")


def _raw_post(url, body, headers=None):
    """Send the whole request before reading the response, as browsers do."""
    host, _, port = url.removeprefix("http://").partition(":")
    headers = headers or f"Content-Length: {len(body)}\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        head = (
            "POST /api/transcribe HTTP/1.1\r\nHost: test\r\n"
            f"Content-Type: {MULTIPART}\r\n{headers}\r\n"
        )
        connection.sendall(head.encode() + body)
        response = b""
        while b"}" not in response:
            received = connection.recv(65536)
            if not received:
                break
            response += received
        return response


async def test_a_rejection_waits_for_a_slow_body_for_a_limited_time():
    caller = Caller(content_length=9_000_000)
    never = anyio.Event()

    async def trickle():
        await never.wait()

    await DrainRejectedBody(JSONResponse({}, 413), max_seconds=0.01)(
        caller.scope, trickle, caller.send
    )
    assert caller.status == 413
