"""Test access control: tokens, gateway claims, job ids, cross-origin pages and DNS rebinding."""

import base64
import json
import random
import socket
import string
from urllib.parse import urlsplit
from uuid import UUID

from tests.conftest import serving
from tests.fake_upstream import FakeUpstream
from tests.harness import Harness
from tests.samples import recording
from tests.web.test_access_control import (
    JOB_ROUTES,
    TOKEN,
    callers,
    closed_routes,
    code_of,
    request_all,
)

UNAUTHORIZED = (401, "unauthorized")


# Tokens


def similar_tokens(token, quick_or_soak):
    """Yield strings that are similar to the token."""
    yield from (token[:length] for length in range(len(token)))
    yield from (token[start:] for start in range(1, len(token)))
    yield from (
        token[:at] + letter + token[at + 1 :]
        for at in range(len(token))
        for letter in "\0\x7f\xff "
    )
    yield from (
        token + suffix
        for suffix in (
            "x",
            "\0",
            ", x",
            ";",
            "%00",
            "\0" + token,
            token,
            "," + token,
            "\x85",
            "\xa0",
        )
    )
    yield from (
        before + token for before in ("\0", "\t", "\xa0", "Bearer ", '"', "=", "Bearer=", "%20")
    )
    yield from (
        token.lower(),
        token.upper(),
        token.swapcase(),
        token[::-1],
        f'"{token}"',
        f"'{token}'",
        f"<{token}>",
    )
    yield from (
        base64.b64encode(token.encode()).decode(),
        token.encode().hex(),
        token.replace("_", "%5F"),
    )
    yield from (
        "",
        " ",
        "null",
        "None",
        "undefined",
        "true",
        "*",
        "' OR 1=1 --",
        "${TOKEN}",
        "x" * 1_000_000,
    )
    rng = random.Random(7)
    for _ in range(quick_or_soak(100, 20_000)):
        letters = list(token)
        for at in rng.sample(range(len(letters)), rng.randrange(1, 4)):
            letters[at] = rng.choice(string.ascii_letters + string.digits + "\xe9\xff-._~+/=")
        yield "".join(letters)


def wrong_headers(token):
    """Yield headers that contain the correct token, but have the wrong name or scheme."""
    basic = base64.b64encode(f"user:{token}".encode()).decode()
    yield from (
        {"Authorization": text}
        for text in (token, f"Basic {basic}", f"Basic {token}", f"Token {token}")
    )
    yield from (
        {"Authorization": text}
        for text in (f"Bearer:{token}", f"Bearer\t{token}", f"Bearer{token}", f"={token}")
    )
    for name in (
        "X-Api-Key",
        "Api-Key",
        "X-Auth-Token",
        "X-Authorization",
        "Proxy-Authorization",
        "OpenAI-Api-Key",
    ):
        yield {name: f"Bearer {token}"}
        yield {name: token}
    for name in (
        "X-Forwarded-Authorization",
        "X-Original-Authorization",
        "X-Amzn-Remapped-Authorization",
    ):
        yield {name: f"Bearer {token}"}
    for name in ("token", "access_token", "Authorization", "api_key"):
        yield {"Cookie": f"{name}={token}"}


def test_every_route_rejects_a_similar_token_or_a_token_sent_another_way(
    client, quick_or_soak, record_result
):
    upstream = FakeUpstream()
    http = client(upstream, auth="token", access_token=TOKEN)
    routes = closed_routes(http.app)
    wrong = [
        {"Authorization": f"Bearer {text}"}
        for text in similar_tokens(TOKEN, quick_or_soak)
        if text.strip() != TOKEN
    ]
    wrong += [*wrong_headers(TOKEN), {}, {"Authorization": "Bearer"}]
    for number, headers in enumerate(wrong):
        method, path = routes[number % len(routes)]
        headers_sent = {name: text.encode("latin-1") for name, text in headers.items()}
        response = http.request(method, path, headers=headers_sent)
        assert (response.status_code, code_of(response)) == UNAUTHORIZED, (
            method,
            path,
            str(headers)[:200],
        )
    queries = [
        f"{name}={TOKEN}"
        for name in ("token", "access_token", "api_key", "authorization", "Authorization")
    ]
    for method, path in routes:
        for query in queries:
            assert http.request(method, f"{path}?{query}").status_code == 401, (method, path)
    assert upstream.calls == []
    opened = http.get("/v1/models", headers={"Authorization": f"Bearer {TOKEN}"})
    assert opened.status_code == 200
    count = len(wrong) + len(queries) * len(routes)
    record_result(
        "Tokens that are similar to the correct one, or sent in another way",
        f"{count:,} requests to {len(routes)} routes",
        "all rejected with 401",
    )


def exchange(url, request):
    """Send these bytes to a server and return its raw response."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


CLAIMS = {"requestContext": {"authorizer": {"jwt": {"claims": {"sub": "root"}}}}}
MALFORMED = (
    b"Authorization: Bearer wrong\r\n Open-Sesame_0123456789",
    b"Authorization: Bearer wrong\nAuthorization: Bearer Open-Sesame_0123456789",
    b"Authorization: Bearer \0Open-Sesame_0123456789",
    b"Authorization: Bearer Open-Sesame_0123456789\0",
    b"Authorization: Bearer Open-Sesame_012345678\r9",
    b"Authorization : Bearer Open-Sesame_0123456789",
    b"Author\0ization: Bearer Open-Sesame_0123456789",
    b"X: y\r\n\tAuthorization: Bearer Open-Sesame_0123456789",
    b"Authorization: Bearer wrong\r\nAuthorization: Bearer Open-Sesame_0123456789",
    b"Authorization: Bearer " + b"a" * 1_000_000,
    b"Authorization: " + b"Bearer " * 100_000,
    b"Authorization: Bearer \xff\xfe",
)


def test_a_malformed_authorization_header_is_rejected_and_the_server_keeps_running(
    client, record_result
):
    """The headers are folded, duplicated or 1 MB long, or contain control characters."""
    http = client(auth="token", access_token=TOKEN)
    with serving(http.app) as url:
        for header in MALFORMED:
            head = (
                b"GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                + header
                + b"\r\n\r\n"
            )
            try:
                status = exchange(url, head)[:12]
            except ConnectionError:  # the server closed the connection during the request
                status = b"HTTP/1.1 400"
            assert status in (b"HTTP/1.1 400", b"HTTP/1.1 401", b"HTTP/1.1 431"), header[:80]
        valid_request = (
            b"GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer "
            + TOKEN.encode()
        )
        assert exchange(url, valid_request + b"\r\n\r\n").startswith(b"HTTP/1.1 200")
    record_result(
        "Malformed Authorization headers",
        f"{len(MALFORMED)} requests",
        "all rejected; the server keeps running",
    )


GATEWAY_HEADERS = (
    "x-amzn-request-context",
    "x-amzn-oidc-identity",
    "x-amzn-oidc-data",
    "x-apigateway-event",
    "aws.event",
)


def test_only_the_gateway_event_identifies_the_caller(client, webm, record_result):
    """With AUTH=jwt, claims in headers and bodies are ignored."""
    upstream = FakeUpstream()
    http = client(upstream, auth="jwt", aws_lambda_function_name="steno-api")
    claims = json.dumps(CLAIMS)
    forged = [
        {name: text}
        for name in GATEWAY_HEADERS
        for text in (claims, "root", base64.b64encode(claims.encode()).decode())
    ]
    forged += [
        {name: "root"}
        for name in ("x-user", "x-sub", "sub", "x-forwarded-user", "remote-user", "x-remote-user")
    ]
    for headers in forged:
        for method, path in closed_routes(http.app):
            response = http.request(method, path, headers=headers, json=CLAIMS)
            assert (response.status_code, code_of(response)) == UNAUTHORIZED
        form = {"files": {"file": webm}, "data": {"requestContext": claims}}
        assert http.post("/api/transcribe", headers=headers, **form).status_code == 401
    assert upstream.calls == []
    record_result(
        "Gateway claims forged in headers and bodies",
        f"{len(forged)} forgeries, every route",
        "all rejected with 401",
    )


# Job ids


def similar_ids(job_id, quick_or_soak):
    """Yield keys of other items, path traversals, and strings that are similar to the job id."""
    hexadecimal = "0123456789abcdef"
    yield from (
        job_id[:at] + other + job_id[at + 1 :] for at in range(0, 32, 4) for other in hexadecimal
    )
    number = int(job_id, 16)
    yield from (f"{(number + step) % (1 << 128):032x}" for step in range(-10, 11))
    yield from (job_id[:length] for length in (1, 8, 31))
    yield from (
        job_id.upper(),
        job_id + "0",
        job_id[::-1],
        str(UUID(job_id)),
        str(number),
        f"{job_id} ",
    )
    yield from (
        f"{job_id}{suffix}"
        for suffix in ("%00", "%0a", "%20", "%23job", "%23part%230000", "%2Fpart%230000", "%3F")
    )
    yield from (
        f"{before}{job_id}"
        for before in ("job%23", "%00", "x%2F..%2F", "..%2Fuploads%2F", ".%2F", "paid%23")
    )
    yield from (
        "spent%232026-11-21",
        "all",
        "answer",
        "job",
        "*",
        "%25",
        "%5B%22pk%22%5D",
        "%F0%9F%98%80",
        "%FF%FE",
    )
    yield from (
        "..%2F..%2Fetc%2Fpasswd",
        "%2e%2e",
        "%252e%252e%252f",
        "..%5C..%5C",
        "uploads%2Fx.webm",
        "a" * 60_000,
    )
    rng = random.Random(7)
    yield from (f"{rng.getrandbits(128):032x}" for _ in range(quick_or_soak(50, 3000)))


def without_request_id(response):
    """Return the body of a response without its request id."""
    return response.text.replace(response.headers["x-request-id"], "")


def stored(harness):
    """Return the items in the table and the object keys in the bucket."""
    return harness.jobs.client.scan(TableName="steno")["Items"], harness.objects()


def test_a_guessed_job_id_is_not_found(server, quick_or_soak, record_result):
    harness = server(idle=True)
    job_id = harness.upload(recording("webm"))
    harness.run_worker()
    before = stored(harness)
    unknown = [
        (404, without_request_id(response)) for response in request_all(harness.http, "0" * 32)
    ]
    guesses = [guess for guess in similar_ids(job_id, quick_or_soak) if guess != job_id]
    for guess in guesses:
        responses = [
            (response.status_code, without_request_id(response))
            for response in request_all(harness.http, guess)
        ]
        # With an encoded separator, the path belongs to another route.
        if any(escape in guess.lower() for escape in ("%2f", "%3f", "%25")):
            assert all(status in (404, 405) for status, _ in responses), guess[:80]
        else:
            assert responses == unknown, guess[:80]
    assert stored(harness) == before
    assert harness.job(job_id)["status"] == "completed"
    record_result(
        "Guessed job ids",
        f"{len(guesses):,} ids, {len(JOB_ROUTES)} requests each",
        "all rejected; nothing disclosed, nothing changed",
    )


def test_job_ids_are_unique_and_random(server, quick_or_soak):
    harness = server(idle=True)
    ids = [harness.request_upload().json()["id"] for _ in range(quick_or_soak(30, 1000))]
    assert len(set(ids)) == len(ids)
    # A UUID of version 4 has 122 random bits from the operating system.
    assert {UUID(job_id).version for job_id in ids} == {4}
    for at in {*range(32)} - {12, 16}:
        assert len({job_id[at] for job_id in ids}) > 8


def test_another_callers_job_is_not_found(aws, record_result):
    harness = Harness(aws, auth="jwt", aws_lambda_function_name="steno-api")
    owner, *other_callers = callers(
        harness.app, "mine", "Mine", "mine ", "min", "mine\0", "\u043cine", "mine#job", "*"
    )
    harness.http = owner
    job_id = harness.upload(recording("webm"))
    harness.run_worker()
    before = stored(harness)
    for other_caller in other_callers:
        unknown = [
            (response.status_code, without_request_id(response))
            for response in request_all(other_caller, "0" * 32)
        ]
        assert [
            (response.status_code, without_request_id(response))
            for response in request_all(other_caller, job_id)
        ] == unknown
    assert stored(harness) == before
    assert harness.transcript(job_id).json() == {"transcript": "Ever tried."}
    record_result(
        "Another caller's job",
        f"{len(other_callers)} other callers, {len(JOB_ROUTES)} requests each",
        "the same responses as for an unknown job; nothing changed",
    )


# Pages of other origins, with AUTH=open

FOREIGN_ORIGINS = (
    *(
        "https://evil.example",
        "null",
        "file://",
        "https://app.example.evil",
        "https://app.example:444",
        "about:blank",
    ),
    *(
        "http://app.example",
        "https://app.exampl",
        "https://xapp.example",
        "https://app.example@evil.example",
    ),
    *(
        "https://evil.example/https://app.example",
        "https://app.example,https://evil.example",
        "https://app.example/",
    ),
    *(
        "https://app_example",
        "https://app.example.",
        "https://app.example%00.evil",
        "https://evil#app.example",
        "*",
    ),
    *(
        "https://APP.EXAMPLE",
        "ftp://app.example",
        "//app.example",
        "app.example",
        "https:app.example",
        "undefined",
    ),
    *(
        "https://\xe4pp.example",
        "chrome-extension://abcdefgh",
        "moz-extension://x",
        "capacitor://localhost",
    ),
)


def test_a_page_of_another_origin_can_read_nothing_and_spend_nothing(client, webm, record_result):
    upstream = FakeUpstream()
    http = client(upstream, allowed_origins="https://app.example")
    routes = closed_routes(http.app)
    for origin in FOREIGN_ORIGINS:
        headers_sent = {"Origin": origin.encode("latin-1")}
        for method, path in routes:
            preflight = {
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": "authorization",
            }
            responses = [
                http.options(path, headers={**headers_sent, **preflight}),
                http.request(method, path, headers=headers_sent),
            ]
            assert [response.status_code for response in responses] == [400, 403], origin
            assert not any(
                "Access-Control-Allow-Origin" in response.headers for response in responses
            )
        assert (
            http.post("/api/transcribe", headers=headers_sent, files={"file": webm}).status_code
            == 403
        )
    assert upstream.calls == []
    assert http.get("/v1/models", headers={"Origin": "https://app.example"}).status_code == 200
    count = f"{len(FOREIGN_ORIGINS)} origins, {len(routes)} routes, with and without a preflight"
    record_result("Pages of other origins", count, "all rejected; nothing readable, nothing billed")


REBOUND_HOSTS = (
    *(
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
    ),
    *(
        "localhost.",
        "xlocalhost",
        "localhost:8000@evil.example",
        "evil.example@127.0.0.1",
        "[::1].evil",
        "[evil]",
    ),
    *(
        "evil.example:127.0.0.1",
        "127.0.0.1evil",
        "::1evil",
        "localhost\xe4",
        "127.0.0.1:80:evil",
        "laptop.local:8000",
        "",
    ),
)
OWN_HOSTS = ("127.0.0.1:8000", "localhost:8000", "localhost", "[::1]:8000", "192.168.1.5:8000")


def test_dns_rebinding_does_not_make_a_foreign_page_same_origin(client, webm, record_result):
    """After DNS rebinding, the host name of a foreign page resolves to this server.

    The Origin and Host headers of the page's requests then contain the same host name.
    """
    upstream = FakeUpstream()
    http = client(upstream)
    for host in REBOUND_HOSTS:
        for scheme in ("http", "https"):
            headers_sent = {
                "Origin": f"{scheme}://{host}".encode("latin-1"),
                "Host": host.encode("latin-1"),
            }
            response = http.post("/api/transcribe", headers=headers_sent, files={"file": webm})
            assert (response.status_code, code_of(response)) == (403, "origin_not_allowed"), host
    assert upstream.calls == []
    for host in OWN_HOSTS:
        headers_sent = {"Origin": f"http://{host}", "Host": host}
        assert (
            http.post("/api/transcribe", headers=headers_sent, files={"file": webm}).status_code
            == 200
        ), host
    mismatched = {"Origin": "http://192.168.1.5:8000", "Host": "127.0.0.1:8000"}
    assert http.post("/api/transcribe", headers=mismatched, files={"file": webm}).status_code == 403
    record_result(
        "DNS rebinding against an open server",
        f"{2 * len(REBOUND_HOSTS)} origins",
        "all rejected; nothing billed",
    )
