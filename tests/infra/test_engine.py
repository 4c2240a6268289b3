"""infra/local/engine.py: it hears real speech and keeps the gates that OpenAI keeps."""

import httpx2
import jiwer
import pysubs2
import pytest

from tests.samples import asset, recording

BECKETT = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."


def test_it_hears_what_is_said(engine):
    heard = engine.ask(asset("beckett.wav"), "a.wav", model="gpt-transcribe").json()
    assert jiwer.wer(BECKETT.lower(), heard["text"].lower()) < 0.2
    assert heard["languages"] == [{"code": "en"}]
    assert heard["usage"] == {"type": "duration", "seconds": 10}


def test_what_it_hears_does_not_depend_on_what_it_heard_before(engine):
    for seconds in (0.7, 0.9, 2.3):
        engine.ask(
            recording("wav", seconds=seconds), "a.wav", model="gpt-transcribe"
        )  # ends in the middle of a word
        again = recording(
            "flac", seconds=9 + seconds / 10
        )  # other bytes than before, or it would not listen
        heard = engine.ask(again, "a.flac", model="gpt-transcribe").json()["text"]
        assert heard.startswith("Ever tried. Ever failed. No matter.")


def test_it_says_when_each_line_was_said(engine):
    heard = engine.ask(
        asset("beckett.wav"), "a.wav", model="whisper-1", response_format="verbose_json"
    ).json()
    starts = [segment["start"] for segment in heard["segments"]]
    assert len(starts) == 6
    assert starts == sorted(starts)
    assert heard["duration"] == pytest.approx(9.96, abs=0.01)
    for name in ("srt", "vtt"):
        text = engine.ask(
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
def test_what_openai_refuses_it_refuses(engine, content, filename, fields, status, param):
    content = recording(content) if isinstance(content, str) else content
    answer = engine.ask(content, filename, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert engine.calls()[0]["seconds"] == 0


def test_a_recording_too_short_is_refused_as_openai_does(engine):
    answer = engine.ask(recording("wav", seconds=0.01), "a.wav", model="gpt-transcribe")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "audio_too_short")


def test_it_answers_as_it_is_told_and_then_as_ever(engine):
    engine.script(
        {
            "status": 429,
            "body": {"error": {"code": "insufficient_quota"}},
            "headers": {"retry-after": "3"},
        }
    )
    told = engine.ask(recording("ogg"), "a.ogg", model="gpt-transcribe")
    assert (told.status_code, told.headers["retry-after"]) == (429, "3")
    assert engine.ask(recording("ogg"), "a.ogg", model="gpt-transcribe").status_code == 200
    assert [call["status"] for call in engine.calls()] == [429, 200]


def test_it_breaks_in_the_middle_when_told(engine):
    engine.script({"body": {"text": "Ever tried."}, "broken": True})
    with pytest.raises(httpx2.RemoteProtocolError):
        engine.ask(recording("ogg"), "a.ogg", model="gpt-transcribe")
