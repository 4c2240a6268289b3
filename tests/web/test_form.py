"""form.py and drain.py: forms as they arrive, from every kind of client."""

import socket

import anyio
import pytest
from starlette.responses import JSONResponse

from handler.web.drain import DrainRejectedBody
from tests.conftest import app, serving
from tests.false_upstream import FalseUpstream

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
def test_whatever_the_file_is_named_its_bytes_arrive_under_the_canonical_name(
    client, webm, disposition
):
    upstream = FalseUpstream()
    answer = post(client(upstream), form(part(disposition, webm)))
    assert answer.json() == {"transcript": "Ever tried."}
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
        (b"", MULTIPART, "stops"),
        (part('; name="file"', b"sound"), MULTIPART, "stops"),
        (form(part('; name="file"', b"sound"))[:60], MULTIPART, "stops"),
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
def test_a_form_that_cannot_be_read_is_refused_with_the_reason(client, body, content_type, word):
    upstream = FalseUpstream()
    answer = post(client(upstream), body, content_type)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert word in answer.json()["detail"]
    assert upstream.calls == []


def test_samples_of_known_speakers_fit_beside_the_recording(client, webm):
    """Two to ten seconds each, as data URLs; a greatest recording still has its own room."""
    sample = "data:audio/wav;base64," + "A" * 1_300_000
    fields = {"model": "gpt-4o-transcribe-diarize", "known_speaker_references[]": [sample] * 4}
    http = client(max_audio_bytes=len(webm))
    assert (
        http.post("/v1/audio/transcriptions", files={"file": webm}, data=fields).status_code == 200
    )


def test_a_recording_of_the_greatest_size_is_taken_and_one_byte_more_is_not(client, webm):
    http = client(max_audio_bytes=len(webm))
    assert http.post("/api/transcribe", files={"file": webm}).status_code == 200
    assert http.post("/api/transcribe", files={"file": webm + b"\0"}).status_code == 413


class Caller:
    """An ASGI client that sends one chunk of a recording after another, and leaves after `chunks` of them."""

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
        self.taken = 0
        self.status = None
        self.taken_before_the_answer = None
        self._chunks = chunks

    async def receive(self):
        if self.taken >= self._chunks:
            return {"type": "http.disconnect"}
        start = part('; name="file"', b"")[:-2] if self.taken == 0 else b""
        self.taken += 1
        return {"type": "http.request", "body": start + bytes(64 * 1024), "more_body": True}

    async def send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.taken_before_the_answer = self.taken


async def test_the_size_is_refused_while_the_body_still_arrives_and_the_rest_is_read_for_a_bounded_while():
    caller = Caller()  # it would go on for 130 MB
    await app(max_audio_bytes=1_000_000)(caller.scope, caller.receive, caller.send)
    assert caller.status == 413
    assert (
        500 < caller.taken_before_the_answer < 600
    )  # 1 MB taken in, 32 MB thrown away, in chunks of 64 KB


async def test_a_content_length_that_lies_saves_nothing():
    caller = Caller(content_length=10)
    await app(max_audio_bytes=1_000_000)(caller.scope, caller.receive, caller.send)
    assert caller.status == 413


async def test_a_content_length_too_large_is_refused_before_anything_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "there-is-no-such-folder"))
    caller = Caller(content_length=9_000_000, chunks=3)
    await app(max_audio_bytes=1_000_000)(caller.scope, caller.receive, caller.send)
    assert caller.status == 413


async def test_a_client_that_leaves_while_it_sends_is_no_error_of_ours(caplog):
    caller = Caller(chunks=3)
    upstream = FalseUpstream()
    await app(upstream)(caller.scope, caller.receive, caller.send)
    assert upstream.calls == []
    assert caplog.text == ""


def test_a_client_over_real_http_reads_the_413_after_it_has_sent_everything():
    body = form(part('; name="file"', bytes(8_000_000)))
    with serving(app(max_audio_bytes=1_000)) as url:
        answer = _raw_post(url, body)
    assert b" 413 " in answer
    assert b"recording_too_large" in answer


def test_a_client_that_asks_first_is_refused_before_it_sends_a_byte():
    with serving(app(max_audio_bytes=1_000)) as url:
        answer = _raw_post(url, b"", "Expect: 100-continue\r\nContent-Length: 9000000000\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


def _raw_post(url, body, headers=None):
    """Sends the whole body before it looks at the answer, as browsers do."""
    host, _, port = url.removeprefix("http://").partition(":")
    headers = headers or f"Content-Length: {len(body)}\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        head = f"POST /api/transcribe HTTP/1.1\r\nHost: test\r\nContent-Type: {MULTIPART}\r\n{headers}\r\n"
        connection.sendall(head.encode() + body)
        answer = b""
        while b"}" not in answer:
            received = connection.recv(65536)
            if not received:
                break
            answer += received
        return answer


async def test_a_refusal_waits_no_longer_than_the_bound_for_a_body_that_trickles():
    caller = Caller(content_length=9_000_000)
    never = anyio.Event()

    async def trickle():
        await never.wait()

    await DrainRejectedBody(JSONResponse({}, 413), max_seconds=0.01)(
        caller.scope, trickle, caller.send
    )
    assert caller.status == 413
