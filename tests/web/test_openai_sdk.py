"""Tests of OpenAI's Python SDK: its other clients and responses, its headers, and its timeouts."""

import threading

import openai
import pytest

from tests.conftest import app, serving
from tests.fake_upstream import FakeUpstream, transcript_response
from tests.samples import recording
from tests.web.test_streaming import MODEL, sdk, wait

WORDS = [
    {"word": "Ever", "start": 0.1, "end": 0.4},
    {"word": "tried", "start": 0.5, "end": 0.9},
]
SEGMENTS = [{"start": 0.0, "end": 1.0, "text": "Ever tried."}]
TIMED = {
    "model": "whisper-1",
    "response_format": "verbose_json",
    "timestamp_granularities": ["word", "segment"],
}


def timed_upstream():
    return FakeUpstream(transcript_response("Ever tried.", segments=SEGMENTS, words=WORDS))


def voice():
    return ("voice.webm", recording("webm"))


@pytest.mark.anyio
async def test_the_asynchronous_client_gets_the_times_of_words():
    with serving(app(timed_upstream())) as url:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="anything") as client:
            response = await client.audio.transcriptions.create(file=voice(), **TIMED)
            models = [model.id async for model in client.models.list()]
    assert [word.to_dict() for word in response.words] == WORDS
    assert [segment.text for segment in response.segments] == ["Ever tried."]
    assert "whisper-1" in models


@pytest.mark.anyio
async def test_the_asynchronous_client_raises_the_sdks_exceptions():
    with serving(app()) as url:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="anything") as client:
            with pytest.raises(openai.UnprocessableEntityError) as error:
                await client.audio.transcriptions.create(file=voice(), model="gpt-9")
    assert (error.value.code, error.value.param) == ("invalid_option", "model")
    assert error.value.request_id == error.value.response.headers["x-request-id"]


def test_a_raw_response_has_the_headers_of_steno():
    with sdk(app(timed_upstream())) as client:
        raw = client.audio.transcriptions.with_raw_response.create(file=voice(), **TIMED)
    assert raw.headers["Steno-Model"] == "whisper-1"
    assert raw.headers["Steno-Timestamps"] == "model"
    assert raw.request_id == raw.headers["x-request-id"] != ""
    assert raw.parse().text == "Ever tried."


def test_a_raw_response_can_be_a_stream():
    with sdk(app(FakeUpstream())) as client:
        raw = client.audio.transcriptions.with_raw_response.create(
            file=voice(), model=MODEL, stream=True
        )
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.request_id
        assert list(raw.parse())[-1].text == "Ever tried."


@pytest.mark.parametrize("response_format", ["json", "text"])
def test_a_streaming_response_is_read_in_pieces(response_format):
    with (
        sdk(app(FakeUpstream())) as client,
        client.audio.transcriptions.with_streaming_response.create(
            file=voice(), model="gpt-transcribe", response_format=response_format
        ) as response,
    ):
        assert response.headers["Steno-Model"] == "gpt-transcribe"
        assert "Ever tried." in "".join(response.iter_text())


def test_a_streaming_response_yields_the_lines_of_events():
    with (
        sdk(app(FakeUpstream())) as client,
        client.audio.transcriptions.with_streaming_response.create(
            file=voice(), model=MODEL, stream=True
        ) as response,
    ):
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: {") for line in lines)
    assert "transcript.text.done" in lines[-1]


def test_a_client_that_times_out_and_tries_again_pays_once(server):
    has_timed_out = threading.Event()

    def reply(_request):
        wait(has_timed_out)
        return transcript_response("Ever tried.")

    upstream, file = FakeUpstream(reply), voice()
    with sdk(server(upstream, idle=True).app) as client:
        create = client.audio.transcriptions.create
        with pytest.raises(openai.APITimeoutError):
            create(file=file, model="gpt-transcribe", timeout=0.2)
        has_timed_out.set()
        assert create(file=file, model="gpt-transcribe").text == "Ever tried."
    assert len(upstream.calls) == 1
