"""End-to-end tests: the app sends real speech to the offline engine and returns the text."""

import jiwer
import openai
import pysubs2
import pytest
from starlette.testclient import TestClient

from handler.web.app import create_app
from tests.conftest import serving, settings
from tests.harness import Server
from tests.samples import DIRECT, asset, recording

SOURCE, SECONDS = "two_cities.wav", 15.0
LABELS = {  # the file names and content types that browsers and phones send
    "correct": ("voice.webm", "audio/webm"),
    "Chrome, with codec": ("blob", "audio/webm;codecs=opus"),
    "Firefox, with a space": ("blob", "audio/webm; codecs=opus"),
    "Safari": ("recording.mp4", "audio/mp4"),
    "an untyped blob": ("blob", "application/octet-stream"),
    "no type": ("voice.wav", ""),
    "a video": ("clip.mp4", "video/mp4"),
    "WhatsApp": ("PTT-20261121-WA0003.opus", "audio/ogg; codecs=opus"),
    "Telegram": ("file_42.oga", "audio/ogg"),
    "an old media type": ("memo.m4a", "audio/x-m4a"),
    "a hostile name": ("../../etc/passwd.webm", "text/html"),
    "a long name outside ASCII": ("日本語" * 100 + ".webm", "audio/x-wav"),
}


def words(text):
    return jiwer.RemovePunctuation()(text.lower())


@pytest.fixture(scope="module")
def app_over_engine(engine_process):
    return create_app(settings(openai_base_url=engine_process.url))


@pytest.fixture(scope="module")
def expected(engine_process):
    """Return the transcript that the engine returns if it is called directly."""
    return engine_process.transcribe(
        recording("wav", SOURCE, SECONDS), "a.wav", model="gpt-transcribe"
    ).json()["text"]


@pytest.fixture(scope="module")
def recordings():
    return {kind: recording(kind, SOURCE, SECONDS) for kind in DIRECT}


def test_the_transcript_is_the_text_of_the_engine(app_over_engine, expected, recordings):
    response = TestClient(app_over_engine).post(
        "/api/transcribe", files={"file": recordings["wav"]}
    )
    assert response.json() == {"transcript": expected}
    assert "it was the best of times" in expected.lower()


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("kind", DIRECT)
def test_every_container_is_transcribed_under_every_name_and_type(
    app_over_engine, expected, recordings, kind, label
):
    name, media_type = LABELS[label]
    response = TestClient(app_over_engine).post(
        "/api/transcribe", files={"file": (name, recordings[kind], media_type)}
    )
    assert response.status_code == 200
    assert jiwer.wer(words(expected), words(response.json()["transcript"])) <= 0.1


@pytest.mark.parametrize(
    "reply",
    [
        {
            "status": 400,
            "body": {"error": {"message": "The audio file could not be decoded.", "param": "file"}},
        },
        {"body": {"text": "It was", "usage": {"type": "duration", "seconds": 1}}},
    ],
    ids=["rejects it", "transcribes only its first second"],
)
def test_a_safari_recording_is_transcribed_completely_by_an_upstream_that(
    reply, aws, engine, expected, recordings
):
    harness = Server(aws, openai_base_url=engine.url)
    engine.script(reply)
    with harness.running_worker():
        response = harness.send(recordings["fragmented mp4"])
    assert response.status_code == 200
    assert jiwer.wer(words(expected), words(response.json()["transcript"])) <= 0.1
    assert [call["seconds"] for call in engine.calls()] == [0, 16]  # scripted replies are free


# Requests from the OpenAI SDK, with Steno as its `base_url`


@pytest.fixture(scope="module")
def sdk(app_over_engine):
    with (
        serving(app_over_engine) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="anything") as client,
    ):
        yield client


def create(sdk, content=None, **options):
    content = asset("beckett.wav") if content is None else content
    return sdk.audio.transcriptions.create(
        file=("a.wav", content), **{"model": "whisper-1", **options}
    )


def test_the_sdk_gets_the_text(sdk):
    response = create(sdk, model="gpt-transcribe", language="en", keywords=["Beckett"])
    assert response.text.startswith("Ever tried. Ever failed.")
    assert response.usage.seconds == 10
    assert create(sdk, response_format="text").startswith("Ever tried. Ever failed.")


@pytest.mark.parametrize("name", ["srt", "vtt"])
def test_the_sdk_gets_subtitles(sdk, name):
    cues = pysubs2.SSAFile.from_string(create(sdk, response_format=name), name)
    assert [cue.plaintext for cue in cues][:2] == ["Ever tried.", "Ever failed."]


def test_the_sdk_gets_verbose_json(sdk):
    response = create(sdk, response_format="verbose_json", timestamp_granularities=["segment"])
    assert [segment.text for segment in response.segments][:2] == ["Ever tried.", "Ever failed."]
    assert response.duration == pytest.approx(9.96, abs=0.01)


def test_the_sdk_gets_speakers(sdk):
    response = create(sdk, model="gpt-4o-transcribe-diarize", response_format="diarized_json")
    assert {segment.speaker for segment in response.segments} == {"A"}


def test_the_sdk_lists_the_models(sdk):
    assert "gpt-transcribe" in [model.id for model in sdk.models.list()]


@pytest.mark.parametrize(
    ("content", "options", "exception", "code"),
    [
        (b"", {}, openai.UnprocessableEntityError, "empty_recording"),
        (b"<html>", {}, openai.APIStatusError, "unsupported_media"),
        (
            None,
            {"model": "gpt-transcribe", "response_format": "srt"},
            openai.UnprocessableEntityError,
            "invalid_option",
        ),
        (
            None,
            {"extra_body": {"stream": "true", "response_format": "srt"}},
            openai.UnprocessableEntityError,
            "invalid_option",
        ),
        (
            b"RIFF\0\0\0\0WAVEdata\xff\xff\xff\xff" + bytes(99),
            {},
            openai.UnprocessableEntityError,
            "unreadable_recording",
        ),
    ],
)
def test_the_sdk_raises_its_exceptions(sdk, content, options, exception, code):
    with pytest.raises(exception) as error:
        create(sdk, content, **options)
    assert error.value.code == code


@pytest.mark.parametrize(
    ("status", "upstream_code", "exception", "code", "calls"),
    [
        (429, "insufficient_quota", openai.InternalServerError, "upstream_quota", 1),
        (401, "invalid_api_key", openai.InternalServerError, "upstream_credentials", 1),
        (502, None, openai.InternalServerError, "upstream_failed", 1),
    ],
)
def test_the_sdk_does_not_retry_permanent_upstream_errors(
    sdk, engine, status, upstream_code, exception, code, calls
):
    engine.script(
        {"status": status, "body": {"error": {"message": "no", "code": upstream_code}}, "times": 9}
    )
    with pytest.raises(exception) as error:
        create(sdk)
    assert error.value.code == code
    assert len(engine.calls()) == calls


def test_a_wrong_token_is_the_sdks_authentication_error(engine_process):
    app = create_app(
        settings(openai_base_url=engine_process.url, auth="token", access_token="right")
    )
    with serving(app) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="wrong") as sdk:
        with pytest.raises(openai.AuthenticationError):
            create(sdk)
        assert "Ever tried" in create(sdk.with_options(api_key="right")).text
