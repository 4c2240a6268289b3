"""Nobody in: without the token nothing is told or spent, a job's id opens nothing, nor does the host of a page."""

import base64
import json
import random
import socket
import string
from urllib.parse import urlsplit
from uuid import UUID

from tests.conftest import serving
from tests.false_upstream import FalseUpstream
from tests.place import Place
from tests.samples import recording
from tests.web.test_access_control import DOORS, TOKEN, answered, callers, closed_routes, code_of

REFUSED = (401, "unauthorized")


# The token


def near(token, often):
    """What is nearly the token."""
    yield from (token[:length] for length in range(len(token)))
    yield from (token[start:] for start in range(1, len(token)))
    yield from (
        token[:at] + letter + token[at + 1 :]
        for at in range(len(token))
        for letter in "\0\x7f\xff "
    )
    yield from (
        token + more
        for more in ("x", "\0", ", x", ";", "%00", "\0" + token, token, "," + token, "\x85", "\xa0")
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
    rolled = random.Random(7)
    for _ in range(often(100, 20_000)):
        letters = list(token)
        for at in rolled.sample(range(len(letters)), rolled.randrange(1, 4)):
            letters[at] = rolled.choice(string.ascii_letters + string.digits + "\xe9\xff-._~+/=")
        yield "".join(letters)


def schemes(token):
    """The right token, sent as nobody is asked to."""
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


def test_a_token_that_is_nearly_right_or_comes_another_way_opens_no_route(client, often, tried):
    upstream = FalseUpstream()
    http = client(upstream, auth="token", access_token=TOKEN)
    routes = closed_routes(http.app)
    wrong = [
        {"Authorization": f"Bearer {text}"} for text in near(TOKEN, often) if text.strip() != TOKEN
    ]
    wrong += [*schemes(TOKEN), {}, {"Authorization": "Bearer"}]
    for number, headers in enumerate(wrong):
        method, path = routes[number % len(routes)]
        sent = {name: text.encode("latin-1") for name, text in headers.items()}
        answer = http.request(method, path, headers=sent)
        assert (answer.status_code, code_of(answer)) == REFUSED, (method, path, str(headers)[:200])
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
    tried(
        "Tokens nearly right, or sent another way",
        f"{count:,} requests to {len(routes)} routes",
        "all 401; none in",
    )


def exchange(url, request):
    """What a server says to these bytes."""
    there = urlsplit(url)
    with socket.create_connection((there.hostname, there.port), timeout=30) as line:
        line.sendall(request)
        return b"".join(iter(lambda: line.recv(65_536), b""))


CLAIMS = {"requestContext": {"authorizer": {"jwt": {"claims": {"sub": "root"}}}}}
BROKEN = (
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


def test_a_header_broken_on_the_wire_opens_nothing_and_breaks_nothing(client, tried):
    """CR, LF, NUL, folded lines, blanks before the colon, two of them, and a megabyte."""
    http = client(auth="token", access_token=TOKEN)
    with serving(http.app) as url:
        for header in BROKEN:
            head = (
                b"GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                + header
                + b"\r\n\r\n"
            )
            try:
                status = exchange(url, head)[:12]
            except ConnectionError:  # hung up on while it was still sending
                status = b"HTTP/1.1 400"
            assert status in (b"HTTP/1.1 400", b"HTTP/1.1 401", b"HTTP/1.1 431"), header[:80]
        good = (
            b"GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer "
            + TOKEN.encode()
        )
        assert exchange(url, good + b"\r\n\r\n").startswith(b"HTTP/1.1 200")
    tried(
        "Token headers broken on the wire",
        f"{len(BROKEN)} requests",
        "all refused; the server answers on",
    )


GATEWAYS = (
    "x-amzn-request-context",
    "x-amzn-oidc-identity",
    "x-amzn-oidc-data",
    "x-apigateway-event",
    "aws.event",
)


def test_who_calls_is_said_by_the_gateway_and_by_no_header_or_body(client, webm, tried):
    """With AUTH=jwt the caller is in the gateway's event alone."""
    upstream = FalseUpstream()
    http = client(upstream, auth="jwt", aws_lambda_function_name="steno-api")
    claims = json.dumps(CLAIMS)
    forged = [
        {name: text}
        for name in GATEWAYS
        for text in (claims, "root", base64.b64encode(claims.encode()).decode())
    ]
    forged += [
        {name: "root"}
        for name in ("x-user", "x-sub", "sub", "x-forwarded-user", "remote-user", "x-remote-user")
    ]
    for headers in forged:
        for method, path in closed_routes(http.app):
            answer = http.request(method, path, headers=headers, json=CLAIMS)
            assert (answer.status_code, code_of(answer)) == REFUSED
        form = {"files": {"file": webm}, "data": {"requestContext": claims}}
        assert http.post("/api/transcribe", headers=headers, **form).status_code == 401
    assert upstream.calls == []
    tried(
        "A gateway's word forged in headers and bodies",
        f"{len(forged)} forgeries, every route",
        "all 401; none in",
    )


# The ids of jobs


def near_id(identity, often):
    """What is nearly a job's id, or another item's key, or leads there."""
    hexadecimal = "0123456789abcdef"
    yield from (
        identity[:at] + other + identity[at + 1 :]
        for at in range(0, 32, 4)
        for other in hexadecimal
    )
    number = int(identity, 16)
    yield from (f"{(number + step) % (1 << 128):032x}" for step in range(-10, 11))
    yield from (identity[:length] for length in (1, 8, 31))
    yield from (
        identity.upper(),
        identity + "0",
        identity[::-1],
        str(UUID(identity)),
        str(number),
        f"{identity} ",
    )
    yield from (
        f"{identity}{more}"
        for more in ("%00", "%0a", "%20", "%23job", "%23part%230000", "%2Fpart%230000", "%3F")
    )
    yield from (
        f"{before}{identity}"
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
    rolled = random.Random(7)
    yield from (f"{rolled.getrandbits(128):032x}" for _ in range(often(50, 3000)))


def but_its_id(answer):
    """The body of a response without the id of its request."""
    return answer.text.replace(answer.headers["x-request-id"], "")


def stored(place):
    """All that the table and the bucket hold."""
    return place.jobs.client.scan(TableName="steno")["Items"], place.objects()


def test_an_id_that_is_nearly_a_jobs_is_nobodys(server, often, tried):
    place = server(idle=True)
    identity = place.upload(recording("webm"))
    place.work()
    before = stored(place)
    unknown = [(404, but_its_id(answer)) for answer in answered(place.http, "0" * 32)]
    guesses = [guess for guess in near_id(identity, often) if guess != identity]
    for guess in guesses:
        got = [(answer.status_code, but_its_id(answer)) for answer in answered(place.http, guess)]
        if any(sign in guess.lower() for sign in ("%2f", "%3f", "%25")):  # another address, or none
            assert all(status in (404, 405) for status, _ in got), guess[:80]
        else:
            assert got == unknown, guess[:80]
    assert stored(place) == before
    assert place.job(identity)["status"] == "completed"
    tried(
        "Ids of jobs guessed",
        f"{len(guesses):,} ids, {len(DOORS)} ways each",
        "all refused; nothing told, nothing changed",
    )


def test_ids_are_never_the_same_and_say_nothing_of_each_other(server, often):
    place = server(idle=True)
    ids = [place.ask().json()["id"] for _ in range(often(30, 1000))]
    assert len(set(ids)) == len(ids)
    assert {UUID(identity).version for identity in ids} == {
        4
    }  # 122 bits of the system's own chance
    for at in {*range(32)} - {12, 16}:
        assert len({identity[at] for identity in ids}) > 8


def test_another_callers_job_looks_like_one_that_never_was(aws, tried):
    place = Place(aws, auth="jwt", aws_lambda_function_name="steno-api")
    mine, *strangers = callers(
        place.app, "mine", "Mine", "mine ", "min", "mine\0", "\u043cine", "mine#job", "*"
    )
    place.http = mine
    identity = place.upload(recording("webm"))
    place.work()
    before = stored(place)
    for stranger in strangers:
        never = [
            (answer.status_code, but_its_id(answer)) for answer in answered(stranger, "0" * 32)
        ]
        assert [
            (answer.status_code, but_its_id(answer)) for answer in answered(stranger, identity)
        ] == never
    assert stored(place) == before
    assert place.transcript(identity).json() == {"transcript": "Ever tried."}
    tried(
        "Another caller's job",
        f"{len(strangers)} strangers, {len(DOORS)} ways each",
        "the very answers that a job gets which never was; nothing changed",
    )


# Pages from elsewhere, where no token is asked

STRANGERS = (
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


def test_a_page_of_another_origin_may_read_nothing_and_spend_nothing(client, webm, tried):
    upstream = FalseUpstream()
    http = client(upstream, allowed_origins="https://app.example")
    routes = closed_routes(http.app)
    for origin in STRANGERS:
        sent = {"Origin": origin.encode("latin-1")}
        for method, path in routes:
            asks = {
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": "authorization",
            }
            answers = [
                http.options(path, headers={**sent, **asks}),
                http.request(method, path, headers=sent),
            ]
            assert [answer.status_code for answer in answers] == [400, 401], origin
            assert not any("Access-Control-Allow-Origin" in answer.headers for answer in answers)
        assert http.post("/api/transcribe", headers=sent, files={"file": webm}).status_code == 401
    assert upstream.calls == []
    assert http.get("/v1/models", headers={"Origin": "https://app.example"}).status_code == 200
    times = f"{len(STRANGERS)} origins, {len(routes)} routes, with and without a preflight"
    tried("Pages of other origins", times, "all refused; nothing to read, nothing paid")


REBOUND = (
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
OWN = ("127.0.0.1:8000", "localhost:8000", "localhost", "[::1]:8000", "192.168.1.5:8000")


def test_a_name_that_its_owner_leads_here_is_no_page_of_ours(client, webm, tried):
    """DNS rebinding: the stranger's page is loaded, then its name leads to this machine, and Origin and Host agree."""
    upstream = FalseUpstream()
    http = client(upstream)
    for host in REBOUND:
        for scheme in ("http", "https"):
            sent = {
                "Origin": f"{scheme}://{host}".encode("latin-1"),
                "Host": host.encode("latin-1"),
            }
            answer = http.post("/api/transcribe", headers=sent, files={"file": webm})
            assert (answer.status_code, code_of(answer)) == REFUSED, host
    assert upstream.calls == []
    for host in OWN:
        sent = {"Origin": f"http://{host}", "Host": host}
        assert (
            http.post("/api/transcribe", headers=sent, files={"file": webm}).status_code == 200
        ), host
    crossed = {"Origin": "http://192.168.1.5:8000", "Host": "127.0.0.1:8000"}
    assert http.post("/api/transcribe", headers=crossed, files={"file": webm}).status_code == 401
    tried(
        "DNS rebinding against an open server",
        f"{2 * len(REBOUND)} names",
        "all refused; nothing paid",
    )
