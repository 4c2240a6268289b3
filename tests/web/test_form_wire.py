"""Forms made by hand to break the parser, the connection or the server; and good ones with a few bytes changed."""

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
from tests.false_upstream import FalseUpstream, heard
from tests.samples import recording
from tests.test_temp_file import open_temp_files
from tests.web.test_contract import CODES
from tests.web.test_form import BOUNDARY, MULTIPART, form, part

pytestmark = pytest.mark.anyio

SHORT = recording("webm", seconds=0.5)
FILE = part('; name="file"', SHORT)
GOOD = form(FILE)
MEGABYTE = 1_000_000


class Upstream(FalseUpstream):
    """Keeps no recordings, only how many there were."""

    def _handle(self, _request):
        self.calls.append(None)
        return heard("Ever tried.")


@pytest.fixture(scope="module")
def url():
    with serving(app(Upstream())) as address:
        yield address


def connected(url):
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


def answered(connection):
    """The answer's status and, where there is one, its code; None where the connection was closed without."""
    answer = http.client.HTTPResponse(connection)
    try:
        answer.begin()
        body = answer.read()
    except (http.client.BadStatusLine, ConnectionResetError):
        return None
    is_problem = answer.headers["Content-Type"] == "application/problem+json"
    return answer.status, json.loads(body)["code"] if is_problem else None


def sent(url, body, *headers, content_type=MULTIPART):
    with connected(url) as connection:
        with contextlib.suppress(
            BrokenPipeError, ConnectionResetError
        ):  # refused before all of it was sent
            connection.sendall(
                head(*(headers or [f"Content-Length: {len(body)}"]), content_type=content_type)
                + body
            )
        return answered(connection)


def is_up(url):
    return sent(url, GOOD) == (200, None)


def bounded(boundary, content_type=None):
    """A good form with another boundary."""
    return GOOD.replace(
        BOUNDARY.encode(), boundary.encode()
    ), content_type or f"multipart/form-data; boundary={boundary}"


NESTED = b"--in\r\nContent-Disposition: file; filename=a.webm\r\n\r\n" + SHORT + b"\r\n--in--"


@pytest.mark.parametrize(
    ("body", "content_type", "outcome"),
    [
        (*bounded("b" * 70), (200, None)),
        (*bounded("b" * 71), (200, None)),
        (*bounded("steno test", 'multipart/form-data; boundary="steno test"'), (200, None)),
        (
            *bounded("st'en(o)+_,-./:=?", 'multipart/form-data; boundary="st\'en(o)+_,-./:=?"'),
            (200, None),
        ),
        (*bounded("-"), (200, None)),
        (*bounded("--"), (200, None)),
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
def test_a_form_made_by_hand_is_taken_or_refused_with_a_code(url, body, content_type, outcome):
    assert sent(url, body, content_type=content_type) == outcome


# The connection


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
        # From here on the server in front refuses what is no HTTP, in its own words.
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
def test_a_body_that_lies_of_its_length_harms_nobody(url, headers, body, outcomes):
    assert sent(url, body, *headers) in outcomes
    assert is_up(url)
    assert until_gone()


def test_a_length_and_chunks_at_once_are_one_request(url):
    """What one of two servers takes for the body's end, the other may take for another request."""
    smuggled = b"GET /api/config HTTP/1.1\r\nHost: test\r\n\r\n"
    with connected(url) as connection:
        connection.sendall(head(CHUNKED, "Content-Length: 5") + in_chunks(GOOD) + smuggled)
        assert answered(connection) in {(200, None), (400, None)}
        connection.sendall(b"x" * 10)
        assert is_up(url)


def until_gone():
    """Whether the temp files go: a thread closes them, once it is told."""
    deadline = time.monotonic() + 20
    while open_temp_files() - KNOWN:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return True


KNOWN = set()


@pytest.fixture(autouse=True)
def _known_files():
    KNOWN.clear()
    KNOWN.update(open_temp_files())


@pytest.mark.parametrize("leave", ["close", "half-close", "reset"])
@pytest.mark.parametrize("headers", [[f"Content-Length: {len(GOOD)}"], [CHUNKED]])
def test_a_client_that_leaves_half_way_leaves_nothing_behind(leave, headers):
    upstream = Upstream()
    with serving(app(upstream)) as url:
        for share in (0.1, 0.5, 0.99):
            half = GOOD[: int(len(GOOD) * share)]
            with connected(url) as connection:
                connection.sendall(
                    head(*headers) + (in_chunks(half)[:-5] if headers == [CHUNKED] else half)
                )
                if leave == "half-close":
                    connection.shutdown(socket.SHUT_WR)
                    assert answered(connection) in {None, (400, None)}
                elif leave == "reset":
                    connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
        assert is_up(url)
        assert until_gone()
    assert len(upstream.calls) == 1  # what asked whether it is up


def test_a_body_that_trickles_byte_by_byte_arrives(url):
    with connected(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head(f"Content-Length: {len(GOOD)}"))
        for at in range(len(GOOD)):
            connection.sendall(GOOD[at : at + 1])
        assert answered(connection) == (200, None)


# What never ends, and what is large


async def stream(start, piece, end, times):
    yield start
    for _ in range(times):
        yield piece
    yield end


def in_process(upstream=None, **given):
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app(upstream or Upstream(), **given)), base_url="http://test"
    )


SIXTEEN = 16 * 1024
OPEN = part('; name="prompt"', b"")[:-2]


@pytest.mark.parametrize(
    ("start", "piece", "end"),
    [
        (b"", b"\r\n" * SIXTEEN, GOOD),
        (GOOD, b"x" * 2 * SIXTEEN, b""),
        (GOOD[:-10], b"\r\n--" + BOUNDARY.encode() + b"-" * SIXTEEN, b""),
        (FILE[:-2], b"\r\n--steno-tes" * SIXTEEN, GOOD),
        (OPEN, b"x" * 2 * SIXTEEN, GOOD),
        (b"", part('; name="keywords"', b"x") * 1000, GOOD),
        (b"", part('; name="file"; filename="x"', b"x") * 1000, GOOD),
        (b"--steno-test\r\n", b"X" * 2 * SIXTEEN, GOOD),
        (b"--steno-test\r\nX: ", b"x" * 2 * SIXTEEN, GOOD),
        (b"--steno-test\r\n", b"X: x\r\n" * SIXTEEN, GOOD),
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
async def test_what_never_ends_is_refused_and_takes_no_memory(start, piece, end):
    """In chunks, so that no length says beforehand how large it is."""
    times = 64 * MEGABYTE // len(piece)
    async with in_process(max_audio_bytes=MEGABYTE) as http:
        await http.get("/api/health")
        tracemalloc.start()
        try:
            body = stream(start, piece, end, times)
            answer = await http.post(
                "/api/transcribe", content=body, headers={"Content-Type": MULTIPART}
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert answer.status_code in (413, 422)
    assert (answer.status_code, answer.json()["code"]) in CODES
    assert peak < 24 * MEGABYTE  # the fields' six, as bytes and as text
    assert until_gone()


async def test_a_length_of_any_digits_is_too_large():
    """A gateway in front may pass on what no server would."""
    headers = {"Content-Type": MULTIPART, "Content-Length": "9" * 5000}
    async with in_process() as http:
        answer = await http.post(
            "/api/transcribe", content=stream(GOOD, b"", b"", 0), headers=headers
        )
    assert (answer.status_code, answer.json()["code"]) == (413, "recording_too_large")


# A good form with something changed
