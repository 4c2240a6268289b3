"""Tests of infra/local/engine.py: it transcribes speech, and validates requests as OpenAI does."""

import httpx2
import jiwer
import pysubs2
import pytest

from tests.samples import asset, recording

BECKETT = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."


def test_speech_is_transcribed(engine):
    transcription = engine.transcribe(asset("beckett.wav"), "a.wav", model="gpt-transcribe").json()
    assert jiwer.wer(BECKETT.lower(), transcription["text"].lower()) < 0.2
    assert transcription["languages"] == [{"code": "en"}]
    assert transcription["usage"] == {"type": "duration", "seconds": 10}


@pytest.mark.exhaustive  # 6 s
def test_a_transcript_does_not_depend_on_earlier_recordings(engine):
    for seconds in (0.7, 0.9, 2.3):
        cut_in_a_word = recording("wav", seconds=seconds)
        engine.transcribe(cut_in_a_word, "a.wav", model="gpt-transcribe")
        # The engine caches transcripts by content, so each recording must be different.
        again = recording("flac", seconds=9 + seconds / 10)
        transcription = engine.transcribe(again, "a.flac", model="gpt-transcribe").json()["text"]
        assert transcription.startswith("Ever tried. Ever failed. No matter.")


def test_each_line_has_its_time(engine):
    transcription = engine.transcribe(
        asset("beckett.wav"), "a.wav", model="whisper-1", response_format="verbose_json"
    ).json()
    starts = [segment["start"] for segment in transcription["segments"]]
    assert len(starts) == 6
    assert starts == sorted(starts)
    assert transcription["duration"] == pytest.approx(9.96, abs=0.01)
    for name in ("srt", "vtt"):
        text = engine.transcribe(
            asset("beckett.wav"), "a.wav", model="whisper-1", response_format=name
        ).text
        assert [
            event.start / 1000 for event in pysubs2.SSAFile.from_string(text, name)
        ] == pytest.approx(starts, abs=0.001)


@pytest.mark.parametrize(
    ("content", "filename", "fields", "status", "param"),
    [
        ("ogg", "voice.opus", {"model": "gpt-transcribe"}, 400, "file"),
        ("ogg", "voice", {"model": "gpt-transcribe"}, 400, "file"),
        ("ogg", "voice.webm", {"model": "gpt-transcribe"}, 400, "file"),
        (b"<html>", "voice.webm", {"model": "gpt-transcribe"}, 400, "file"),
        ("ogg", "voice.ogg", {}, 400, "model"),
        (
            "ogg",
            "voice.ogg",
            {"model": "gpt-transcribe", "response_format": "srt"},
            400,
            "response_format",
        ),
        ("ogg", "voice.ogg", {"model": "gpt-transcribe", "keywords[]": "<b>"}, 400, "keywords"),
        (b"\0" * (25 * 1024 * 1024 + 1), "voice.ogg", {"model": "gpt-transcribe"}, 413, None),
    ],
)
def test_requests_that_openai_rejects_are_rejected(
    engine, content, filename, fields, status, param
):
    content = recording(content) if isinstance(content, str) else content
    response = engine.transcribe(content, filename, **fields)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)
    assert engine.calls()[0]["seconds"] == 0


def test_a_recording_that_is_too_short_is_rejected_as_by_openai(engine):
    response = engine.transcribe(recording("wav", seconds=0.01), "a.wav", model="gpt-transcribe")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "audio_too_short")


def test_a_scripted_reply_is_used_once(engine):
    engine.script(
        {
            "status": 429,
            "body": {"error": {"code": "insufficient_quota"}},
            "headers": {"retry-after": "3"},
        }
    )
    scripted = engine.transcribe(recording("ogg"), "a.ogg", model="gpt-transcribe")
    assert (scripted.status_code, scripted.headers["retry-after"]) == (429, "3")
    assert engine.transcribe(recording("ogg"), "a.ogg", model="gpt-transcribe").status_code == 200
    assert [call["status"] for call in engine.calls()] == [429, 200]


def test_a_scripted_reply_can_break_the_connection(engine):
    engine.script({"body": {"text": "Ever tried."}, "broken": True})
    with pytest.raises(httpx2.RemoteProtocolError):
        engine.transcribe(recording("ogg"), "a.ogg", model="gpt-transcribe")
