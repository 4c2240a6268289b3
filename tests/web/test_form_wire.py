"""Tests of malformed and unusual forms, sent over a real connection or in process."""

import contextlib
import http.client
import json
import socket
import struct
import time
import tracemalloc
from base64 import b64encode

import httpx2
import pytest

from tests.conftest import app, serving
from tests.fake_upstream import FakeUpstream, transcript_response
from tests.samples import recording
from tests.test_temp_file import open_temp_files
from tests.web.test_contract import CODES
from tests.web.test_form import BOUNDARY, MULTIPART, form, part

pytestmark = pytest.mark.anyio

SHORT = recording("webm", seconds=0.5)
FILE = part('; name="file"', SHORT)
GOOD = form(FILE)
MEGABYTE = 1_000_000


class Upstream(FakeUpstream):
    """A fake upstream that counts its calls but does not keep the recordings."""

    def _handle(self, _request):
        self.calls.append(None)
        return transcript_response("Ever tried.")


@pytest.fixture(scope="module")
def url():
    with serving(app(Upstream())) as address:
        yield address


def connect(url):
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def head(*headers, content_type=MULTIPART):
    lines = [
        "POST /api/transcribe HTTP/1.1",
        "Host: test",
        f"Content-Type: {content_type}",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1")


def read_response(connection):
    """Return the status and the error code (or None), or None if there is no response."""
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        body = response.read()
    except (http.client.BadStatusLine, ConnectionResetError):
        return None
    is_problem = response.headers["Content-Type"] == "application/problem+json"
    return response.status, json.loads(body)["code"] if is_problem else None


def send_form(url, body, *headers, content_type=MULTIPART):
    with connect(url) as connection:
        headers = headers or [f"Content-Length: {len(body)}"]
        # The server may reject the request and close the connection before the end of the body.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(head(*headers, content_type=content_type) + body)
        return read_response(connection)


def is_up(url):
    return send_form(url, GOOD) == (200, None)


def with_boundary(boundary, content_type=None):
    """Return a valid form that uses the given boundary, and the form's content type."""
    return GOOD.replace(
        BOUNDARY.encode(), boundary.encode()
    ), content_type or f"multipart/form-data; boundary={boundary}"


NESTED = b"--in\r\nContent-Disposition: file; filename=a.webm\r\n\r\n" + SHORT + b"\r\n--in--"


@pytest.mark.parametrize(
    ("body", "content_type", "outcome"),
    [
        (*with_boundary("b" * 70), (200, None)),
        (*with_boundary("b" * 71), (200, None)),
        (*with_boundary("steno test", 'multipart/form-data; boundary="steno test"'), (200, None)),
        (
            *with_boundary(
                "st'en(o)+_,-./:=?", 'multipart/form-data; boundary="st\'en(o)+_,-./:=?"'
            ),
            (200, None),
        ),
        (*with_boundary("-"), (200, None)),
        (*with_boundary("--"), (200, None)),
        (GOOD, f"Multipart/Form-Data; BOUNDARY={BOUNDARY}; charset=utf-8", (200, None)),
        (
            GOOD,
            f"multipart/form-data; boundary={BOUNDARY}; boundary=another",
            (422, "invalid_request"),
        ),
        (GOOD, "multipart/form-data; boundary=", (422, "invalid_request")),
        (GOOD, 'multipart/form-data; boundary=""', (422, "invalid_request")),
        (GOOD, f"multipart/mixed; boundary={BOUNDARY}", (422, "invalid_request")),
        (GOOD, "multipart/form-data; boundary*=UTF-8''steno-test", (422, "invalid_request")),
        (GOOD, "multipart/form-data; boundary=\xfc", (422, "invalid_request")),
        (b"\r\n" * MEGABYTE, MULTIPART, (422, "invalid_request")),
        (b"\r\n" * MEGABYTE + GOOD, MULTIPART, (200, None)),
        (b"x" * MEGABYTE + b"\r\n" + GOOD, MULTIPART, (422, "invalid_request")),
        (GOOD + b"x" * MEGABYTE, MULTIPART, (200, None)),
        (GOOD + GOOD, MULTIPART, (200, None)),
        (GOOD.replace(b"\r\n", b"\n"), MULTIPART, (422, "invalid_request")),
        (
            form(*[part('; name="file"; filename="a"', b"x")] * 10_000),
            MULTIPART,
            (422, "invalid_request"),
        ),
        (form(*[part('; name="keywords"', b"x")] * 1_000, FILE), MULTIPART, (200, None)),
        (
            form(part('; name="file"', SHORT, "X" * MEGABYTE + ": x")),
            MULTIPART,
            (422, "invalid_request"),
        ),
        (
            form(part('; name="file"; filename="' + "x" * MEGABYTE + '"', SHORT)),
            MULTIPART,
            (422, "invalid_request"),
        ),
        (form(part('; name="file"', SHORT, "no colon")), MULTIPART, (422, "invalid_request")),
        (form(part('; name="file"', SHORT, ": no name")), MULTIPART, (422, "invalid_request")),
        (form(part('; name="file"', SHORT, "X-Nul: \0")), MULTIPART, (200, None)),
        (
            form(part('; name="file"', b"a text where a file should be")),
            MULTIPART,
            (415, "unsupported_media"),
        ),
        (
            form(FILE, part('; name="language"; filename="en.txt"', b"en")),
            MULTIPART,
            (422, "invalid_request"),
        ),
        (form(FILE, part('; name="model"', SHORT)), MULTIPART, (422, "invalid_request")),
        (form(FILE, part('; name=""', b"x")), MULTIPART, (422, "invalid_option")),
        (form(part('; name="fi\0le"', SHORT)), MULTIPART, (422, "invalid_request")),
        (form(part('; name="language"; name="file"', SHORT)), MULTIPART, (200, None)),
        (form(part("; name*=UTF-8''file", SHORT)), MULTIPART, (422, "invalid_request")),
        (form(part("; name*0=fi; name*1=le", SHORT)), MULTIPART, (422, "invalid_request")),
        (form(part('; name="file', SHORT)), MULTIPART, (422, "invalid_request")),
        (form(part(";" * 10_000 + ' name="file"', SHORT)), MULTIPART, (422, "invalid_request")),
        (
            form(part('; name="file"', b64encode(SHORT), "Content-Transfer-Encoding: base64")),
            MULTIPART,
            (415, "unsupported_media"),
        ),
        (
            form(part('; name="file"', NESTED, "Content-Type: multipart/mixed; boundary=in")),
            MULTIPART,
            (415, "unsupported_media"),
        ),
        (
            form(part('; name="file"', GOOD.replace(b"--", b"- "))),
            MULTIPART,
            (415, "unsupported_media"),
        ),
        (form(FILE, part('; name="prompt"', b"\0")), MULTIPART, (200, None)),
    ],
)
def test_a_handmade_form_is_accepted_or_rejected_with_a_code(url, body, content_type, outcome):
    assert send_form(url, body, content_type=content_type) == outcome


# Connections


CHUNKED = "Transfer-Encoding: chunked"


def in_chunks(*pieces):
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


@pytest.mark.parametrize(
    ("headers", "body", "outcomes"),
    [
        ([CHUNKED], in_chunks(GOOD), {(200, None)}),
        ([CHUNKED], in_chunks(*(GOOD[at : at + 1] for at in range(len(GOOD)))), {(200, None)}),
        ([CHUNKED], in_chunks(GOOD[:-30]), {(422, "invalid_request")}),
        ([f"Content-Length: {len(GOOD) - 30}"], GOOD, {(422, "invalid_request")}),
        (["Content-Length: 0"], GOOD, {(422, "invalid_request")}),
        ([f"Content-Length: {len(GOOD)}"] * 2, GOOD, {(200, None)}),
        # The following requests are not valid HTTP, so uvicorn itself rejects them.
        ([CHUNKED], b"zz\r\n" + GOOD, {(400, None), None}),
        ([CHUNKED], b"-1\r\n" + GOOD, {(400, None), None}),
        ([CHUNKED], b"f" * 40 + b"\r\n" + GOOD, {(400, None), None}),
        ([CHUNKED], b"5\r\n" + GOOD + b"\r\n0\r\n\r\n", {(400, None), None}),
        (["Content-Length: -1"], GOOD, {(400, None)}),
        (["Content-Length: x"], GOOD, {(400, None)}),
        (["Content-Length: " + "9" * 5000], GOOD, {(400, None), (413, "recording_too_large")}),
        ([f"Content-Length: {len(GOOD)}", "Content-Length: 5"], GOOD, {(400, None)}),
        (["Transfer-Encoding: gzip"], GOOD, {(400, None), (501, None)}),
        (["no colon"], GOOD, {(400, None)}),
        (["X-Long: " + "x" * MEGABYTE], GOOD, {(400, None), (431, None), None}),
        (["X: x"] * 100_000, GOOD, {(400, None), (431, None), None}),
    ],
)
def test_a_wrong_length_does_not_affect_other_requests(url, headers, body, outcomes):
    assert send_form(url, body, *headers) in outcomes
    assert is_up(url)
    assert wait_until_closed()


def test_a_request_with_content_length_and_chunks_is_one_request(url):
    """To prevent request smuggling, a proxy and the server must agree on where a request ends."""
    smuggled = b"GET /api/config HTTP/1.1\r\nHost: test\r\n\r\n"
    with connect(url) as connection:
        connection.sendall(head(CHUNKED, "Content-Length: 5") + in_chunks(GOOD) + smuggled)
        assert read_response(connection) in {(200, None), (400, None)}
        connection.sendall(b"x" * 10)
        assert is_up(url)


def wait_until_closed():
    """Wait until another thread has closed the temporary files."""
    deadline = time.monotonic() + 20
    while open_temp_files() - OPEN_FILES:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return True


OPEN_FILES = set()


@pytest.fixture(autouse=True)
def _note_open_files():
    OPEN_FILES.clear()
    OPEN_FILES.update(open_temp_files())


@pytest.mark.parametrize("ending", ["close", "half-close", "reset"])
@pytest.mark.parametrize("headers", [[f"Content-Length: {len(GOOD)}"], [CHUNKED]])
def test_no_file_stays_open_after_a_client_disconnects(ending, headers):
    upstream = Upstream()
    with serving(app(upstream)) as url:
        for share in (0.1, 0.5, 0.99):
            partial = GOOD[: int(len(GOOD) * share)]
            with connect(url) as connection:
                connection.sendall(
                    head(*headers) + (in_chunks(partial)[:-5] if headers == [CHUNKED] else partial)
                )
                if ending == "half-close":
                    connection.shutdown(socket.SHUT_WR)
                    assert read_response(connection) in {None, (400, None)}
                elif ending == "reset":
                    connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
        assert is_up(url)
        assert wait_until_closed()
    assert len(upstream.calls) == 1  # the request that `is_up` sends


def test_a_body_that_arrives_byte_by_byte_is_accepted(url):
    with connect(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head(f"Content-Length: {len(GOOD)}"))
        for at in range(len(GOOD)):
            connection.sendall(GOOD[at : at + 1])
        assert read_response(connection) == (200, None)


# Endless and large bodies


async def stream(start, piece, end, times):
    yield start
    for _ in range(times):
        yield piece
    yield end


def in_process(upstream=None, **overrides):
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app(upstream or Upstream(), **overrides)),
        base_url="http://test",
    )


SIXTEEN_KB = 16 * 1024
OPEN = part('; name="prompt"', b"")[:-2]


@pytest.mark.parametrize(
    ("start", "piece", "end"),
    [
        (b"", b"\r\n" * SIXTEEN_KB, GOOD),
        (GOOD, b"x" * 2 * SIXTEEN_KB, b""),
        (GOOD[:-10], b"\r\n--" + BOUNDARY.encode() + b"-" * SIXTEEN_KB, b""),
        (FILE[:-2], b"\r\n--steno-tes" * SIXTEEN_KB, GOOD),
        (OPEN, b"x" * 2 * SIXTEEN_KB, GOOD),
        (b"", part('; name="keywords"', b"x") * 1000, GOOD),
        (b"", part('; name="file"; filename="x"', b"x") * 1000, GOOD),
        (b"--steno-test\r\n", b"X" * 2 * SIXTEEN_KB, GOOD),
        (b"--steno-test\r\nX: ", b"x" * 2 * SIXTEEN_KB, GOOD),
        (b"--steno-test\r\n", b"X: x\r\n" * SIXTEEN_KB, GOOD),
    ],
    ids=[
        "preamble",
        "epilogue",
        "dashes",
        "near boundaries",
        "field",
        "parts",
        "files",
        "name",
        "value",
        "headers",
    ],
)
async def test_an_endless_body_is_rejected_with_limited_memory(start, piece, end):
    """The body is sent in chunks, without a Content-Length."""
    times = 64 * MEGABYTE // len(piece)
    async with in_process(max_audio_bytes=MEGABYTE) as http:
        await http.get("/api/health")
        tracemalloc.start()
        try:
            body = stream(start, piece, end, times)
            response = await http.post(
                "/api/transcribe", content=body, headers={"Content-Type": MULTIPART}
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert response.status_code in (413, 422)
    assert (response.status_code, response.json()["code"]) in CODES
    assert peak < 24 * MEGABYTE  # up to 6 MB of fields are held in memory, as bytes and as text
    assert wait_until_closed()


async def test_a_content_length_of_5000_digits_is_too_large():
    """A gateway may pass on a Content-Length that uvicorn would reject."""
    headers = {"Content-Type": MULTIPART, "Content-Length": "9" * 5000}
    async with in_process() as http:
        response = await http.post(
            "/api/transcribe", content=stream(GOOD, b"", b"", 0), headers=headers
        )
    assert (response.status_code, response.json()["code"]) == (413, "recording_too_large")
