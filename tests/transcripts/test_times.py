"""Tests of timestamps and subtitles, with real speech, for models that return no timestamps."""

import statistics
from datetime import date, timedelta

import httpx2
import pytest
import srt
import webvtt

from benchmarks.speech import SOURCES
from benchmarks.times import cue_start_errors, word_start_errors
from handler.steps.pacing import Pacing
from handler.transcripts.subtitles import Cue
from handler.transcripts.transcript import WordTime
from handler.worker import Worker
from infra.local.recognizer import Line, decode
from tests.fake_upstream import FakeUpstream, error_response, transcript_response
from tests.harness import Harness, is_part_request
from tests.samples import asset, long_recording, recording, wav

BECKETT = ["Ever tried.", "Ever failed.", "No matter.", "Try again.", "Fare again.", "Fell better."]
AGE_OF_WISDOM = (
    "It was the best of times, it was the worst of times."
    " It was the age of wisdom, it was the age of foolishness."
    " It was the epoch of belief, it was the epoch of incredulity."
)
MILLISECOND = timedelta(milliseconds=1)
DURATION = {"type": "duration", "seconds": 150}
ROUTES = ["/api/transcribe", "/v1/audio/transcriptions"]


@pytest.fixture
def engine_server(server, engine):
    """Return a server that uses the offline engine as its upstream."""
    return server(openai_base_url=engine.url)


def lines(engine, name):
    """Transcribe a recording with the engine, and return the lines with their timestamps."""
    response = engine.transcribe(
        asset(name), name, model="whisper-1", response_format="verbose_json"
    ).json()
    return [
        Line(segment["start"], segment["end"], segment["text"]) for segment in response["segments"]
    ]


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_supports_every_format(engine_server, engine, route):
    texts = {
        name: engine_server.send(
            asset("beckett.wav"), route, model="gpt-transcribe", response_format=name
        ).text
        for name in ("srt", "vtt")
    }
    assert captions(texts["srt"]) == BECKETT
    starts = [cue.start.total_seconds() for cue in srt.parse(texts["srt"])]
    assert starts == pytest.approx([line.start for line in lines(engine, "beckett.wav")], abs=0.4)
    assert [caption.text for caption in webvtt.from_string(texts["vtt"], strict=True)] == BECKETT
    verbose = engine_server.send(asset("beckett.wav"), route, response_format="verbose_json").json()
    assert [segment["text"] for segment in verbose["segments"]] == BECKETT
    assert [segment["start"] for segment in verbose["segments"]] == pytest.approx(starts, abs=0.4)
    assert verbose["duration"] == pytest.approx(9.96, abs=0.01)
    # `lines` makes one call. The three formats share a job, which makes the other call.
    assert len(engine.calls()) == 2


def test_sdks_that_request_segments_get_them(engine_server):
    response = engine_server.send(
        asset("beckett.wav"),
        ROUTES[1],
        response_format="verbose_json",
        **{"timestamp_granularities[]": "segment"},
    )
    assert [segment["text"] for segment in response.json()["segments"]] == BECKETT


@pytest.mark.parametrize(
    "fields", [{}, {"response_format": "srt", "model": "gpt-4o-mini-transcribe"}]
)
def test_a_completed_upload_has_every_format(aws, engine, fields):
    harness = Harness(aws, openai_base_url=engine.url)
    job_id = harness.upload(asset("beckett.wav"), **fields)
    harness.run_worker(harness.upload_record(job_id))
    assert captions(harness.transcript(job_id, response_format="srt").text) == BECKETT
    assert len(
        harness.transcript(job_id, response_format="verbose_json").json()["segments"]
    ) == len(BECKETT)
    assert harness.transcript(job_id).json() == {"transcript": " ".join(BECKETT)}


@pytest.mark.exhaustive  # 20 s
def test_cues_begin_at_the_times_of_the_engine(engine_server, engine):
    """Half of the cues begin within 0.4 s of the engine's timestamps, and 90% within 1.5 s."""
    errors = []
    for name in SOURCES:
        parsed = srt.parse(engine_server.send(asset(name), response_format="srt").text)
        shown = [
            Cue(cue.start // MILLISECOND, cue.end // MILLISECOND, tuple(cue.content.split("\n")))
            for cue in parsed
        ]
        errors += cue_start_errors(shown, lines(engine, name))[0]
    assert len(errors) > 20
    assert statistics.median(errors) < 0.4
    assert statistics.quantiles(errors, n=10)[-1] < 1.5


def test_the_first_words_of_lines_begin_at_the_times_of_the_engine(engine_server, engine):
    """The engine's lines begin about 0.24 s before their first words."""
    options = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
    body = engine_server.send(asset("beckett.wav"), model="gpt-transcribe", **options).json()
    words = [WordTime(word["word"], word["start"], word["end"]) for word in body["words"]]
    errors = word_start_errors(words, lines(engine, "beckett.wav"))
    assert errors == pytest.approx([0.24] * len(BECKETT), abs=0.1)


def test_times_in_every_part_refer_to_the_whole_recording(aws, engine):
    """Parts are shorter if their text is aligned, so that an error affects less text."""
    speech = (decode(asset("two_cities.wav"), "wav")[: 15 * 16_000] * 32767).astype("<i2").tobytes()
    content = wav(bytes(32_000 * 30) + speech + bytes(32_000 * 40) + speech)
    upstream = FakeUpstream(words=AGE_OF_WISDOM)
    harness = Harness(aws, upstream, pacing=Pacing(part_seconds=300, timed_part_seconds=30))
    job_id = harness.upload(content, response_format="vtt")
    harness.run_worker(harness.upload_record(job_id))
    cues = list(srt.parse(harness.transcript(job_id, response_format="srt").text))
    assert (
        " ".join(cue.content.replace("\n", " ") for cue in cues)
        == f"{AGE_OF_WISDOM} {AGE_OF_WISDOM}"
    )
    assert len(upstream.calls) == 2
    first, second = (
        cue.start.total_seconds() for cue in cues if cue.content.startswith("It was the best")
    )
    assert second - first == pytest.approx(55, abs=0.1)
    assert first == pytest.approx(30 + lines(engine, "two_cities.wav")[0].start, abs=0.4)


def test_subtitles_of_a_transcribed_recording_up_to_a_minute_are_not_billed(server):
    upstream, content = FakeUpstream(), recording("webm")
    harness = server(upstream)
    assert harness.send(content).json() == {"transcript": "Ever tried."}
    assert captions(harness.send(content, response_format="srt").text) == ["Ever tried."]
    assert len(upstream.calls) == 1


def test_a_paid_text_is_kept_if_no_speech_is_detected(server):
    """The upstream returns a text, although Steno detects no speech in the recording."""
    upstream, content = FakeUpstream(words="Paid words."), wav(bytes(320_000))
    upstream.replies.append(
        httpx2.Response(200, json={"text": "Paid words.", "usage": {**DURATION, "seconds": 10}})
    )
    harness = server(upstream)
    assert harness.send(content).json() == {"transcript": "Paid words."}
    assert captions(harness.send(content, response_format="srt").text) == ["Paid words."]
    assert harness.send(content).json() == {"transcript": "Paid words."}
    assert len(upstream.calls) == 1


def test_a_recording_that_is_cut_differently_in_a_retry_is_transcribed_once(aws):
    """The maximum length of a part may change before a job is retried."""
    upstream = FakeUpstream(
        transcript_response("First."), error_response(400), error_response(400), error_response(400)
    )
    harness = Harness(aws, upstream, pacing=Pacing(part_seconds=40))
    job_id = harness.upload(long_recording("ogg", 80))
    harness.run_worker(harness.upload_record(job_id))
    assert harness.job(job_id)["status"] == "failed"
    harness.worker = Worker.from_services(harness.services, Pacing(part_seconds=80))
    harness.http.post(f"/api/transcriptions/{job_id}/retry")
    upstream.replies.clear()
    harness.run_worker(harness.upload_record(job_id))
    assert harness.transcript(job_id).json() == {"transcript": "Ever tried."}


def test_subtitles_of_a_longer_recording_are_billed_again_in_shorter_parts(server):
    upstream, content = (
        FakeUpstream(httpx2.Response(200, json={"text": "Ever tried.", "usage": DURATION})),
        long_recording("ogg", 150),
    )
    harness = server(upstream)
    assert harness.send(content).json() == {"transcript": "Ever tried."}
    assert harness.send(content, response_format="srt").status_code == 200
    assert [is_part_request(call) for call in upstream.calls] == [False, True, True, True]


class RedirectToLocalServer(httpx2.HTTPTransport):
    """A transport that redirects OpenAI requests to a local server."""

    def __init__(self, url):
        super().__init__(limits=httpx2.Limits(max_keepalive_connections=0))
        self._url = httpx2.URL(url)

    def handle_request(self, request):
        assert request.url.host == "api.openai.com"
        request.url = request.url.copy_with(scheme="http", host=self._url.host, port=self._url.port)
        return super().handle_request(request)


@pytest.mark.parametrize("route", ROUTES)
def test_clients_that_request_times_from_a_retired_model_get_them(server, engine, route):
    harness = server(RedirectToLocalServer(engine.url), today=date(2027, 2, 26))
    response = harness.send(asset("beckett.wav"), route, model="whisper-1", response_format="srt")
    assert captions(response.text) == BECKETT
    assert response.headers["Steno-Model"] == "gpt-transcribe"


def test_without_a_bucket_times_are_rejected_with_the_remedy(client):
    response = client().post(
        ROUTES[0], files={"file": recording("webm")}, data={"response_format": "srt"}
    )
    assert (response.status_code, response.json()["code"]) == (422, "invalid_option")
    assert "has a bucket" in response.json()["detail"]
    assert "whisper-1" in response.json()["detail"]


def test_options_that_jobs_do_not_support_are_rejected_by_name(server):
    fields = {"model": "gpt-4o-transcribe", "response_format": "srt", "chunking_strategy": "auto"}
    response = server(idle=True).send(recording("webm"), ROUTES[1], **fields)
    assert response.json()["error"]["param"] == "response_format"
    assert "without `chunking_strategy`" in response.json()["error"]["message"]


def captions(text):
    return [cue.content for cue in srt.parse(text)]
