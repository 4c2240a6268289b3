"""Tests of openai_sdk.py: ignored environment variables, size limits, logs and requests."""

import gzip
import io
import logging
import random

import httpx2
import pytest

from handler.errors import UnreadableRecording, UpstreamFailed
from handler.upstream.openai_sdk import Client, HTTPClient
from tests.fake_upstream import FakeUpstream, transcript_response

PARAMETERS = {"model": "gpt-transcribe", "response_format": "json"}


def send(response=None, url="https://upstream.example/v1"):
    """Send a transcription request. Return the response body and the request."""
    requests = []

    def handle(request):
        request.read()
        requests.append(request)
        return response or transcript_response("Ever tried.")

    client = Client("sk-test-key", url, HTTPClient(httpx2.MockTransport(handle)))
    file = "recording.webm", io.BufferedReader(io.BytesIO(b"the sound")), "audio/webm"
    try:
        return client.transcription(file, PARAMETERS, 20.0), requests[0]
    finally:
        assert len(requests) == 1


def test_environment_variables_of_the_sdk_have_no_effect(monkeypatch):
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
def test_the_base_url_may_end_with_a_slash(url):
    _, request = send(url=url)
    assert str(request.url) == "https://upstream.example/v1/audio/transcriptions"


@pytest.mark.parametrize("status", [200, 400, 500])
def test_every_response_has_a_size_limit(status):
    with pytest.raises(UpstreamFailed, match="too long"):
        send(httpx2.Response(status, content=bytes(33_000_000)))


def test_a_compressed_response_is_limited_by_its_decompressed_size():
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


def test_the_log_of_the_sdk_contains_neither_the_key_nor_the_text(caplog):
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
    upstream = FakeUpstream(
        httpx2.Response(307, headers={"location": "https://elsewhere.example/v1"})
    )
    client = Client("sk-test-key", "https://upstream.example/v1", HTTPClient(upstream))
    file = "recording.webm", io.BufferedReader(io.BytesIO(b"the sound")), "audio/webm"
    with pytest.raises(UpstreamFailed, match="HTTP 307"):
        client.transcription(file, PARAMETERS, 20.0)
    assert len(upstream.calls) == 1


class ChunkRecorder(httpx2.BaseTransport):
    """A transport that records the chunks of a request body instead of sending them."""

    def handle_request(self, request):
        self.headers = request.headers
        self.pieces = list(request.stream)
        return transcript_response("Ever tried.")


@pytest.mark.parametrize(("size", "pieces"), [(50_000, 1), (200_000, 4)])
def test_a_body_is_sent_completely_in_few_chunks(size, pieces):
    """The SDK's encoder would yield each boundary, header and field as a separate chunk."""
    audio = random.Random(size).randbytes(size)
    transport = ChunkRecorder()
    file = "recording.webm", io.BufferedReader(io.BytesIO(audio)), "audio/webm"
    Client("sk-test-key", "https://upstream.example/v1", HTTPClient(transport)).transcription(
        file, PARAMETERS, 20.0
    )
    body = b"".join(transport.pieces)
    assert len(transport.pieces) == pieces
    assert len(body) == int(transport.headers["Content-Length"])
    assert body.count(audio) == 1
    for name, value in PARAMETERS.items():
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in body
