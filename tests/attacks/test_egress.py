"""Nothing out: no field splits an answer, has an address asked, or brings a secret to light."""

import io
import logging
import sys
from contextlib import contextmanager

import boto3
import httpx2
import pytest
from starlette.testclient import TestClient

from handler.aws.metrics import Metrics
from handler.services import build_services
from handler.web.app import create_app
from tests.attacks.canaries import canaries
from tests.conftest import serving, settings
from tests.false_upstream import FalseUpstream, heard
from tests.place import Place
from tests.samples import recording
from tests.web.test_access_control import closed_routes

FIELDS = (
    "model",
    "language",
    "prompt",
    "keywords",
    "response_format",
    "temperature",
    "stream",
    "unheard_of",
)
V1_FIELDS = (
    "languages[]",
    "include[]",
    "timestamp_granularities[]",
    "chunking_strategy",
    "known_speaker_references[]",
)
UPLOAD_FIELDS = ("filename", "content_type", *FIELDS)


def asked_with(http, text, webm, **headers):
    """The answers to requests that have this text in each place where one can be."""
    for route, fields in (
        ("/api/transcribe", FIELDS),
        ("/v1/audio/transcriptions", (*FIELDS, *V1_FIELDS)),
    ):
        for field in fields:
            yield http.post(route, files={"file": webm}, data={field: text}, headers=headers)
            yield http.post(
                route,
                files={"file": webm},
                data={f"{field}[{text}]": "x", text: text},
                headers=headers,
            )
        yield http.post(route, files={"file": (text, webm, "audio/webm")}, headers=headers)
        yield http.post(route, files={"file": text.encode()}, headers=headers)
        yield http.post(route, files={text: webm}, headers=headers)
        yield http.post(route, params={text: text}, files={"file": webm}, headers=headers)
    for field in UPLOAD_FIELDS:
        told = {"size": 1000, field: [text] if field == "keywords" else text}
        yield http.post("/api/uploads", json=told, headers=headers)
    yield http.post("/api/uploads", json={"size": 1000, text: text}, headers=headers)
    yield http.get(
        f"/api/transcriptions/{'0' * 32}/transcript",
        params={"response_format": text},
        headers=headers,
    )


# Response splitting, and headers that nobody asked for

BREAKS = (
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\x00\r\n",
    "\u560d\u560a",
    "%0d%0a",
    "\x0b",
    "\x85",
    "\u2028",
    "\\r\\n",
    "\xe9\r\n ",
)


def test_no_field_becomes_a_header_or_a_second_answer(aws, webm, often, tried):
    """Of the answer, of what the upstream is sent, and of what the bucket keeps."""
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    count = 0
    with serving(place.app) as url, httpx2.Client(base_url=url, timeout=30) as http:
        for line_break in BREAKS[: often(2, len(BREAKS))]:
            text = f"audio/webm{line_break}X-Injected: yes{line_break}{line_break}<script>alert(1)</script>"
            for answer in asked_with(http, text, webm):
                count += 1
                assert answer.status_code < 500
                assert "x-injected" not in answer.headers
                assert answer.headers["content-type"].startswith(("application/", "text/plain"))
                if answer.status_code == 201:
                    kept = answer.json()["upload"]["fields"]["Content-Type"]
                    assert kept.isascii()
                    assert kept.isprintable()
    assert {call.filename for call in upstream.calls} == {"recording.webm"}
    assert {call.content_type for call in upstream.calls} == {"audio/webm"}
    tried(
        "Line breaks in every field",
        f"{count:,} requests",
        "no header and no answer was split; no 5xx",
    )


# Addresses in fields


@contextmanager
def connections():
    """Where this process connects to, or asks the way to, meanwhile."""
    seen, watching = [], [True]

    def note(event, details):
        if watching and event in ("socket.connect", "socket.getaddrinfo"):
            seen.append(str(details[1] if event == "socket.connect" else details[0]))

    sys.addaudithook(note)
    yield seen
    watching.clear()


ADDRESSES = (
    *(
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://metadata.google.internal/",
    ),
    *(
        "http://steno-canary.example/",
        "//steno-canary.example/x",
        "ftp://steno-canary.example/",
        "gopher://10.99.99.99/_x",
    ),
    *(
        "dict://10.99.99.99:11211/",
        "\\\\10.99.99.99\\share",
        "s3://steno-canary/x",
        "http://0xa636363/",
        "ldap://10.99.99.99",
    ),
)
CARRIERS = (
    "Referer",
    "X-Forwarded-Host",
    "X-Forwarded-For",
    "Forwarded",
    "Proxy",
    "X-Original-URL",
    "X-Rewrite-URL",
)


def test_no_address_in_a_field_is_ever_asked(aws, webm, tmp_path, often, tried):
    place = Place(aws)
    count = 0
    with canaries(tmp_path) as watched, connections() as seen:
        for address in (
            watched.address,
            f"file://{watched.path}",
            watched.path,
            *ADDRESSES[: often(1, len(ADDRESSES))],
        ):
            for answer in asked_with(place.http, address, webm):
                count += 1
                assert answer.status_code < 500
            for name in CARRIERS:
                count += 1
                assert place.http.get("/v1/models", headers={name: address}).status_code == 200
        assert watched.knocks() == []
    here = place.s3.meta.endpoint_url.rpartition(":")[2]
    assert seen
    assert [
        place
        for place in seen
        if here not in place and "127.0.0.1" not in place and "localhost" not in place
    ] == []
    tried(
        "Addresses in every field and header", f"{count:,} requests", "0 connections to any of them"
    )


# Secrets

KEY = "lm-7Hq2vXw9Zr4Tn8Kp3Ys6Bd1"
ROTATED = "lm-Rt5Yu8Io2Pa7Sd4Fg9Hj1Kl"
TOKEN = "tok-Mn6Bv3Cx9Za2Lk5Jh8Gf4Ds"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJRdzFFcjRUeTdVaTBPcCJ9.Zx8Cv5Bn2Ma9Sd6Fg3Hj0Kl"
AWS_SECRET = "Aw4Se7Dr1Ft8Gy5Hu2Ji9KoLp0MnBvCxZqWe3Rt"
FRAGMENT = 12  # letters in a row that give a secret away


def leaks(text):
    pieces = {
        secret[at : at + FRAGMENT]
        for secret in (KEY, ROTATED, TOKEN, JWT, AWS_SECRET)
        for at in range(len(secret) - FRAGMENT + 1)
    }
    return sorted(piece for piece in pieces if piece in text)


FINAL = (400, 401, 403, 404, 413, 415, 422)  # what no job waits for the end of


def echoes(statuses):
    """What an upstream can say that has been told the key: all of it, in every place, and cut off anywhere."""

    def echo(status, write):
        return lambda request: write(status, request.headers["authorization"])

    def message(status, said):
        return httpx2.Response(
            status, json={"error": {"message": f"Wrong key: {said}", "code": said}}
        )

    def header(status, said):
        return httpx2.Response(
            status, headers={"x-request-id": said}, json={"error": {"message": "no"}}
        )

    def param(status, said):
        return httpx2.Response(
            status, json={"error": {"message": "no", "param": said, "type": said}}
        )

    for status in statuses:
        for write in (message, header, param):
            yield echo(status, write)
        yield echo(
            status, lambda status, said: httpx2.Response(status, text=f"<html>{said}</html>")
        )
    for filled in range(440, 505):
        yield echo(401, lambda status, said, filled=filled: message(status, "x" * filled + said))


def breakdowns():
    return httpx2.ConnectError("no way"), httpx2.ReadError("gone"), RuntimeError("a bug")


@pytest.fixture
def told(caplog):
    """What this process logs: our own modules and the speech client at their most talkative."""
    caplog.set_level(logging.INFO)
    for name in ("steno", "httpx2", "httpcore2", "uvicorn"):
        caplog.set_level(logging.DEBUG, name)
    return caplog


def test_no_secret_is_in_any_answer_log_figure_item_or_object(aws, monkeypatch, webm, told, tried):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS_SECRET)
    vault = boto3.client("secretsmanager")
    arn = vault.create_secret(Name="canary", SecretString=KEY)["ARN"]
    upstream, metrics = FalseUpstream(), Metrics(io.StringIO())
    given = {
        "auth": "token",
        "access_token": TOKEN,
        "openai_api_key": None,
        "openai_secret_arn": arn,
    }
    place = Place(aws, upstream, metrics=metrics, **given)
    chosen = settings(**given, request_deadline_seconds=0.3)
    lone_app = create_app(chosen, build_services(chosen, transport=upstream, metrics=metrics))
    alone = TestClient(lone_app, raise_server_exceptions=False)
    right, wrong = {"Authorization": f"Bearer {TOKEN}"}, {"Authorization": f"Bearer {JWT}"}
    texts = []

    def ask(http, method, path, headers=right, **sent):
        answer = http.request(method, path, headers=headers, **sent)
        texts.append(answer.text + str(answer.headers))

    def reply_with(reply):
        upstream.replies.clear()
        upstream.replies.extend([reply] * 20)

    replies = [*echoes((*FINAL, 408, 418, 429, 500, 502, 503, 504)), *breakdowns()]
    for number, reply in enumerate(replies):
        if number == len(replies) // 2:
            vault.put_secret_value(SecretId=arn, SecretString=ROTATED)
        reply_with(reply)
        ask(
            alone,
            "POST",
            ("/api/transcribe", "/v1/audio/transcriptions")[number % 2],
            files={"file": webm},
        )
    reply_with(heard("Ever tried."))
    for method, path in [
        *closed_routes(place.app),
        ("GET", "/nowhere"),
        ("PUT", "/api/transcribe"),
    ]:
        for headers in (right, wrong, {"Cookie": TOKEN}, {"Authorization": "Basic x"}):
            ask(place.http, method, path, headers)
            ask(place.http, method, path, headers, content=b"{")
    for path in ("/", "/docs", "/openapi.json", "/api/health", "/api/config", "/page.js"):
        ask(place.http, "GET", path, wrong)
    jobs = []
    place.http.headers.update(right)
    for number, reply in enumerate(list(echoes(FINAL))[::8]):
        reply_with(reply)
        jobs.append(place.upload(recording("ogg", seconds=1 + number / 50)))
        place.work(place.about(jobs[-1]))
        for path in (
            f"/api/transcriptions/{jobs[-1]}",
            f"/api/transcriptions/{jobs[-1]}/transcript",
        ):
            ask(place.http, "GET", path)
    items = place.jobs.client.scan(TableName="steno")["Items"]
    kept = [
        place.s3.get_object(Bucket="steno", Key=key)["Body"].read().decode("latin-1")
        for key in place.objects()
    ]
    keys = {call.authorization for call in upstream.calls}
    assert keys == {f"Bearer {KEY}", f"Bearer {ROTATED}"}  # it was echoed, and both of them
    assert {place.job(job)["status"] for job in jobs} == {"failed"}
    everything = {
        "answers": "".join(texts),
        "log": told.text + "".join(str(record.__dict__) for record in told.records),
        "figures": metrics._out.getvalue(),
        "items": repr(items),
        "objects": "".join(kept),
    }
    assert {where: leaks(text) for where, text in everything.items()} == {
        where: [] for where in everything
    }
    assert all(everything.values())
    outcome = "none in any answer, log, figure, item or object"
    tried(
        "Secrets looked for",
        f"{len(texts)} answers, {len(jobs)} jobs, {len(replies)} echoes of the key",
        outcome,
    )
