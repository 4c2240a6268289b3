"""openai_sdk.py: what the SDK adds to a request, and what it is kept from."""

import gzip
import io
import logging
import random

import httpx2
import pytest

from handler.errors import UnreadableRecording, UpstreamFailed
from handler.upstream.openai_sdk import Client, HTTPClient
from tests.false_upstream import FalseUpstream, heard

PARAMETERS = {"model": "gpt-transcribe", "response_format": "json"}


def send(answer=None, url="https://upstream.example/v1"):
    """The body of an answer, and the request."""
    requests = []

    def handle(request):
        request.read()
        requests.append(request)
        return answer or heard("Ever tried.")

    client = Client("sk-test-key", url, HTTPClient(httpx2.MockTransport(handle)))
    file = "recording.webm", io.BufferedReader(io.BytesIO(b"the sound")), "audio/webm"
    try:
        return client.transcription(file, PARAMETERS, 20.0), requests[0]
    finally:
        assert len(requests) == 1


def test_a_request_carries_nothing_of_the_environment_that_the_settings_do_not_name(monkeypatch):
    _, plain = send()
    for name, value in {
        "OPENAI_ORG_ID": "org-secret",
        "OPENAI_PROJECT_ID": "proj-secret",
        "OPENAI_ADMIN_KEY": "sk-admin-secret",
        "OPENAI_CUSTOM_HEADERS": "X-More: secret\nAuthorization: Bearer secret\nUser-Agent: secret",
        "OPENAI_BASE_URL": "https://secret.example/v1",
        "OPENAI_API_KEY": "sk-secret",
    }.items():
        monkeypatch.setenv(name, value)
    _, request = send()
    assert "secret" not in str(request.url) + str(dict(request.headers))
    assert request.headers["Authorization"] == "Bearer sk-test-key"
    assert dict(request.headers).keys() == dict(plain.headers).keys()


@pytest.mark.parametrize("url", ["https://upstream.example/v1", "https://upstream.example/v1/"])
def test_the_address_may_end_with_a_slash(url):
    _, request = send(url=url)
    assert str(request.url) == "https://upstream.example/v1/audio/transcriptions"


@pytest.mark.parametrize("status", [200, 400, 500])
def test_no_answer_is_read_beyond_the_limit_whatever_its_status(status):
    with pytest.raises(UpstreamFailed, match="too long"):
        send(httpx2.Response(status, content=bytes(33_000_000)))


def test_a_compressed_answer_is_read_and_limited_by_its_own_size():
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    body, _ = send(
        httpx2.Response(200, headers=headers, content=gzip.compress(b'{"text": "Ever"}'))
    )
    assert body == b'{"text": "Ever"}'
    error = gzip.compress(b'{"error": {"message": "no sound"}}')
    with pytest.raises(UnreadableRecording, match="no sound"):
        send(httpx2.Response(400, headers=headers, content=error))
    with pytest.raises(UpstreamFailed, match="too long"):
        send(httpx2.Response(400, headers=headers, content=gzip.compress(bytes(33_000_000))))


def test_the_sdks_log_has_neither_the_key_nor_what_was_said(caplog):
    with caplog.at_level(logging.DEBUG):
        send()
        with pytest.raises(UnreadableRecording):
            send(httpx2.Response(400, json={"error": {"message": "Ever tried."}}))
    logged = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith("openai")
    )
    assert "POST 200" in logged
    assert not [word for word in ("sk-test", "Ever", "sound") if word in logged]


def test_a_redirect_is_not_followed():
    upstream = FalseUpstream(
        httpx2.Response(307, headers={"location": "https://elsewhere.example/v1"})
    )
    client = Client("sk-test-key", "https://upstream.example/v1", HTTPClient(upstream))
    file = "recording.webm", io.BufferedReader(io.BytesIO(b"the sound")), "audio/webm"
    with pytest.raises(UpstreamFailed, match="HTTP 307"):
        client.transcription(file, PARAMETERS, 20.0)
    assert len(upstream.calls) == 1


class Pieces(httpx2.BaseTransport):
    """Takes a request's body in the pieces in which it would be written to the connection."""

    def handle_request(self, request):
        self.headers = request.headers
        self.pieces = list(request.stream)
        return heard("Ever tried.")


@pytest.mark.parametrize(("size", "pieces"), [(50_000, 1), (200_000, 4)])
def test_a_body_is_sent_whole_and_in_few_pieces(size, pieces):
    """The SDK's encoder makes a piece of each boundary, header and field."""
    sound = random.Random(size).randbytes(size)
    transport = Pieces()
    file = "recording.webm", io.BufferedReader(io.BytesIO(sound)), "audio/webm"
    Client("sk-test-key", "https://upstream.example/v1", HTTPClient(transport)).transcription(
        file, PARAMETERS, 20.0
    )
    body = b"".join(transport.pieces)
    assert len(transport.pieces) == pieces
    assert len(body) == int(transport.headers["Content-Length"])
    assert body.count(sound) == 1
    for name, value in PARAMETERS.items():
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in body
