"""Test that attackers cannot split responses, make the server contact hosts, or find secrets."""

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
from tests.attacks.access_monitor import monitor_access
from tests.conftest import serving, settings
from tests.fake_upstream import FakeUpstream, transcript_response
from tests.harness import Harness
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


def responses_to(http, text, webm, **headers):
    """Send requests with `text` in different places, and yield their responses."""
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
        body = {"size": 1000, field: [text] if field == "keywords" else text}
        yield http.post("/api/uploads", json=body, headers=headers)
    yield http.post("/api/uploads", json={"size": 1000, text: text}, headers=headers)
    yield http.get(
        f"/api/transcriptions/{'0' * 32}/transcript",
        params={"response_format": text},
        headers=headers,
    )


# Response splitting and header injection

LINE_BREAKS = (
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


def test_line_breaks_in_fields_do_not_split_headers_or_responses(
    aws, webm, quick_or_soak, record_result
):
    """Check the response, the request to the upstream, and the upload form."""
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    count = 0
    with serving(harness.app) as url, httpx2.Client(base_url=url, timeout=30) as http:
        for line_break in LINE_BREAKS[: quick_or_soak(2, len(LINE_BREAKS))]:
            text = (
                f"audio/webm{line_break}X-Injected: yes"
                f"{line_break}{line_break}<script>alert(1)</script>"
            )
            for response in responses_to(http, text, webm):
                count += 1
                assert response.status_code < 500
                assert "x-injected" not in response.headers
                assert response.headers["content-type"].startswith(("application/", "text/plain"))
                if response.status_code == 201:
                    content_type = response.json()["upload"]["fields"]["Content-Type"]
                    assert content_type.isascii()
                    assert content_type.isprintable()
    assert {call.filename for call in upstream.calls} == {"recording.webm"}
    assert {call.content_type for call in upstream.calls} == {"audio/webm"}
    record_result(
        "Line breaks in every field",
        f"{count:,} requests",
        "no header and no response was split; no 5xx status",
    )


# Addresses in fields


@contextmanager
def connections():
    """Record the addresses that this process connects to or resolves, and yield them as a list."""
    contacted, active = [], [True]

    def record_address(event, details):
        if active and event in ("socket.connect", "socket.getaddrinfo"):
            contacted.append(str(details[1] if event == "socket.connect" else details[0]))

    sys.addaudithook(record_address)
    yield contacted
    active.clear()


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
ADDRESS_HEADERS = (
    "Referer",
    "X-Forwarded-Host",
    "X-Forwarded-For",
    "Forwarded",
    "Proxy",
    "X-Original-URL",
    "X-Rewrite-URL",
)


def test_no_address_in_a_field_is_contacted(aws, webm, tmp_path, quick_or_soak, record_result):
    harness = Harness(aws)
    count = 0
    with monitor_access(tmp_path) as monitor, connections() as contacted:
        for address in (
            monitor.address,
            f"file://{monitor.path}",
            monitor.path,
            *ADDRESSES[: quick_or_soak(1, len(ADDRESSES))],
        ):
            for response in responses_to(harness.http, address, webm):
                count += 1
                assert response.status_code < 500
            for name in ADDRESS_HEADERS:
                count += 1
                assert harness.http.get("/v1/models", headers={name: address}).status_code == 200
        assert monitor.accesses() == []
    aws_port = harness.s3.meta.endpoint_url.rpartition(":")[2]
    assert contacted
    assert [
        address
        for address in contacted
        if not any(name in address for name in (aws_port, "127.0.0.1", "localhost"))
    ] == []
    record_result(
        "Addresses in every field and header", f"{count:,} requests", "no connection to any of them"
    )


# Secrets

KEY = "lm-7Hq2vXw9Zr4Tn8Kp3Ys6Bd1"
ROTATED = "lm-Rt5Yu8Io2Pa7Sd4Fg9Hj1Kl"
TOKEN = "tok-Mn6Bv3Cx9Za2Lk5Jh8Gf4Ds"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJRdzFFcjRUeTdVaTBPcCJ9.Zx8Cv5Bn2Ma9Sd6Fg3Hj0Kl"
AWS_SECRET = "Aw4Se7Dr1Ft8Gy5Hu2Ji9KoLp0MnBvCxZqWe3Rt"
FRAGMENT = 12  # this many consecutive characters of a secret count as a leak


def leaks(text):
    pieces = {
        secret[at : at + FRAGMENT]
        for secret in (KEY, ROTATED, TOKEN, JWT, AWS_SECRET)
        for at in range(len(secret) - FRAGMENT + 1)
    }
    return sorted(piece for piece in pieces if piece in text)


PERMANENT = (400, 401, 403, 404, 413, 415, 422)  # a job does not retry after these


def echoes(statuses):
    """Yield upstream replies that contain the API key in different places.

    In some replies, the key is near the position at which Steno truncates messages.
    """

    def echo(status, write):
        return lambda request: write(status, request.headers["authorization"])

    def message(status, key):
        return httpx2.Response(
            status, json={"error": {"message": f"Wrong key: {key}", "code": key}}
        )

    def header(status, key):
        return httpx2.Response(
            status, headers={"x-request-id": key}, json={"error": {"message": "no"}}
        )

    def param(status, key):
        return httpx2.Response(status, json={"error": {"message": "no", "param": key, "type": key}})

    for status in statuses:
        for write in (message, header, param):
            yield echo(status, write)
        yield echo(status, lambda status, key: httpx2.Response(status, text=f"<html>{key}</html>"))
    for padding in range(440, 505):
        yield echo(401, lambda status, key, padding=padding: message(status, "x" * padding + key))


def exceptions():
    return httpx2.ConnectError("no way"), httpx2.ReadError("gone"), RuntimeError("a bug")


@pytest.fixture
def captured_log(caplog):
    """Capture the log of this process. Steno and its HTTP client log at the DEBUG level."""
    caplog.set_level(logging.INFO)
    for name in ("steno", "httpx2", "httpcore2", "uvicorn"):
        caplog.set_level(logging.DEBUG, name)
    return caplog


def test_no_secret_is_in_any_response_log_metric_item_or_object(
    aws, monkeypatch, webm, captured_log, record_result
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS_SECRET)
    secrets = boto3.client("secretsmanager")
    arn = secrets.create_secret(Name="canary", SecretString=KEY)["ARN"]
    upstream, metrics = FakeUpstream(), Metrics(io.StringIO())
    auth_settings = {
        "auth": "token",
        "access_token": TOKEN,
        "openai_api_key": None,
        "openai_secret_arn": arn,
    }
    harness = Harness(aws, upstream, metrics=metrics, **auth_settings)
    app_settings = settings(**auth_settings, request_deadline_seconds=0.3)
    app_without_jobs = create_app(
        app_settings, build_services(app_settings, transport=upstream, metrics=metrics)
    )
    client_without_jobs = TestClient(app_without_jobs, raise_server_exceptions=False)
    authorized, unauthorized = (
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"Bearer {JWT}"},
    )
    texts = []

    def send(http, method, path, headers=authorized, **sent):
        response = http.request(method, path, headers=headers, **sent)
        texts.append(response.text + str(response.headers))

    def reply_with(reply):
        upstream.replies.clear()
        upstream.replies.extend([reply] * 20)

    replies = [*echoes((*PERMANENT, 408, 418, 429, 500, 502, 503, 504)), *exceptions()]
    for number, reply in enumerate(replies):
        if number == len(replies) // 2:
            secrets.put_secret_value(SecretId=arn, SecretString=ROTATED)
        reply_with(reply)
        send(
            client_without_jobs,
            "POST",
            ("/api/transcribe", "/v1/audio/transcriptions")[number % 2],
            files={"file": webm},
        )
    reply_with(transcript_response("Ever tried."))
    for method, path in [
        *closed_routes(harness.app),
        ("GET", "/nowhere"),
        ("PUT", "/api/transcribe"),
    ]:
        for headers in (authorized, unauthorized, {"Cookie": TOKEN}, {"Authorization": "Basic x"}):
            send(harness.http, method, path, headers)
            send(harness.http, method, path, headers, content=b"{")
    for path in ("/", "/docs", "/openapi.json", "/api/health", "/api/config", "/page/page.js"):
        send(harness.http, "GET", path, unauthorized)
    jobs = []
    harness.http.headers.update(authorized)
    for number, reply in enumerate(list(echoes(PERMANENT))[::8]):
        reply_with(reply)
        jobs.append(harness.upload(recording("ogg", seconds=1 + number / 50)))
        harness.run_worker(harness.upload_record(jobs[-1]))
        for path in (
            f"/api/transcriptions/{jobs[-1]}",
            f"/api/transcriptions/{jobs[-1]}/transcript",
        ):
            send(harness.http, "GET", path)
    items = harness.jobs.client.scan(TableName="steno")["Items"]
    objects = [
        harness.s3.get_object(Bucket="steno", Key=key)["Body"].read().decode("latin-1")
        for key in harness.objects()
    ]
    keys = {call.authorization for call in upstream.calls}
    assert keys == {f"Bearer {KEY}", f"Bearer {ROTATED}"}  # both keys were sent and echoed
    assert {harness.job(job)["status"] for job in jobs} == {"failed"}
    outputs = {
        "responses": "".join(texts),
        "log": captured_log.text + "".join(str(record.__dict__) for record in captured_log.records),
        "metrics": metrics._out.getvalue(),
        "items": repr(items),
        "objects": "".join(objects),
    }
    assert {name: leaks(text) for name, text in outputs.items()} == {name: [] for name in outputs}
    assert all(outputs.values())
    result = "no secret in any response, log, metric, item or object"
    record_result(
        "Search for secrets in all output",
        f"{len(texts)} responses, {len(jobs)} jobs, {len(replies)} echoes of the key",
        result,
    )
