"""Times and subtitles of models that give none: on every route, with real speech and the offline engine."""

import statistics
from datetime import date, timedelta

import httpx2
import pytest
import srt
import webvtt

from benchmarks.speech import SOURCES
from benchmarks.times import lateness
from handler.steps.pacing import Pacing
from handler.transcripts.subtitles import Cue
from handler.worker import Worker
from infra.local.engine import Line, decode
from tests.false_upstream import FalseUpstream, heard, refused
from tests.place import Place, parts
from tests.samples import asset, long_recording, recording, wav

BECKETT = ["Ever tried.", "Ever failed.", "No matter.", "Try again.", "Fare again.", "Fell better."]
AGE_OF_WISDOM = (
    "It was the best of times, it was the worst of times. It was the age of wisdom, it was the age of foolishness."
    " It was the epoch of belief, it was the epoch of incredulity."
)
MILLISECOND = timedelta(milliseconds=1)
DURATION = {"type": "duration", "seconds": 150}
ROUTES = ["/api/transcribe", "/v1/audio/transcriptions"]


@pytest.fixture
def real(server, engine):
    """A server and its worker in front of the offline engine."""
    return server(openai_base_url=engine.url)


def lines(engine, name):
    """The engine's own times."""
    answer = engine.ask(asset(name), name, model="whisper-1", response_format="verbose_json").json()
    return [
        Line(segment["start"], segment["end"], segment["text"]) for segment in answer["segments"]
    ]


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_answers_in_every_format(real, engine, route):
    texts = {
        name: real.send(
            asset("beckett.wav"), route, model="gpt-transcribe", response_format=name
        ).text
        for name in ("srt", "vtt")
    }
    assert captions(texts["srt"]) == BECKETT
    starts = [cue.start.total_seconds() for cue in srt.parse(texts["srt"])]
    assert starts == pytest.approx([line.start for line in lines(engine, "beckett.wav")], abs=0.4)
    assert [caption.text for caption in webvtt.from_string(texts["vtt"], strict=True)] == BECKETT
    verbose = real.send(asset("beckett.wav"), route, response_format="verbose_json").json()
    assert [segment["text"] for segment in verbose["segments"]] == BECKETT
    assert [segment["start"] for segment in verbose["segments"]] == pytest.approx(starts, abs=0.4)
    assert verbose["duration"] == pytest.approx(9.96, abs=0.01)
    assert len(engine.calls()) == 2  # one for the engine's own times; the three formats are one job


def test_segments_are_told_to_the_sdks_that_ask_for_them_by_name(real):
    answer = real.send(
        asset("beckett.wav"),
        ROUTES[1],
        response_format="verbose_json",
        **{"timestamp_granularities[]": "segment"},
    )
    assert [segment["text"] for segment in answer.json()["segments"]] == BECKETT


@pytest.mark.parametrize(
    "asked", [{}, {"response_format": "srt", "model": "gpt-4o-mini-transcribe"}]
)
def test_an_upload_has_every_format_in_the_end_whatever_was_asked_for(aws, engine, asked):
    place = Place(aws, openai_base_url=engine.url)
    identity = place.upload(asset("beckett.wav"), **asked)
    place.work(place.about(identity))
    assert captions(place.transcript(identity, response_format="srt").text) == BECKETT
    assert len(
        place.transcript(identity, response_format="verbose_json").json()["segments"]
    ) == len(BECKETT)
    assert place.transcript(identity).json() == {"transcript": " ".join(BECKETT)}


def test_cues_begin_when_the_engine_itself_says_that_their_lines_do(real, engine):
    """Within 0.4 s for half of them, 1.5 s for nine in ten."""
    late = []
    for name in SOURCES:
        found = srt.parse(real.send(asset(name), response_format="srt").text)
        shown = [
            Cue(cue.start // MILLISECOND, cue.end // MILLISECOND, tuple(cue.content.split("\n")))
            for cue in found
        ]
        late += lateness(shown, lines(engine, name))[0]
    assert len(late) > 20
    assert statistics.median(late) < 0.4
    assert statistics.quantiles(late, n=10)[-1] < 1.5


def test_times_count_from_the_recordings_beginning_in_every_part(aws, engine):
    """The parts are shorter than those of others: an error travels no further than its part."""
    spoken = (decode(asset("two_cities.wav"), "wav")[: 15 * 16_000] * 32767).astype("<i2").tobytes()
    content = wav(bytes(32_000 * 30) + spoken + bytes(32_000 * 40) + spoken)
    upstream = FalseUpstream(words=AGE_OF_WISDOM)
    place = Place(aws, upstream, pacing=Pacing(part_seconds=300, timed_part_seconds=30))
    identity = place.upload(content, response_format="vtt")
    place.work(place.about(identity))
    cues = list(srt.parse(place.transcript(identity, response_format="srt").text))
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


def test_subtitles_of_what_has_been_heard_already_cost_nothing_up_to_a_minute(server):
    upstream, content = FalseUpstream(), recording("webm")
    place = server(upstream)
    assert place.send(content).json() == {"transcript": "Ever tried."}
    assert captions(place.send(content, response_format="srt").text) == ["Ever tried."]
    assert len(upstream.calls) == 1


def test_words_that_are_paid_for_are_never_lost_to_a_silence_of_ours(server):
    """What the service has heard counts, though we hear nobody speak."""
    upstream, content = FalseUpstream(words="Paid words."), wav(bytes(320_000))
    upstream.replies.append(
        httpx2.Response(200, json={"text": "Paid words.", "usage": {**DURATION, "seconds": 10}})
    )
    place = server(upstream)
    assert place.send(content).json() == {"transcript": "Paid words."}
    assert captions(place.send(content, response_format="srt").text) == ["Paid words."]
    assert place.send(content).json() == {"transcript": "Paid words."}
    assert len(upstream.calls) == 1


def test_a_recording_that_is_cut_in_another_way_now_is_heard_once(aws):
    """As after a change of the parts' length between a job and its retry."""
    upstream = FalseUpstream(heard("First."), refused(400), refused(400), refused(400))
    place = Place(aws, upstream, pacing=Pacing(part_seconds=40))
    identity = place.upload(long_recording("ogg", 80))
    place.work(place.about(identity))
    assert place.job(identity)["status"] == "failed"
    place.worker = Worker.of(place.services, Pacing(part_seconds=80))
    place.http.post(f"/api/transcriptions/{identity}/retry")
    upstream.replies.clear()
    place.work(place.about(identity))
    assert place.transcript(identity).json() == {"transcript": "Ever tried."}


def test_subtitles_of_what_is_longer_are_another_payment_in_shorter_parts(server):
    upstream, content = (
        FalseUpstream(httpx2.Response(200, json={"text": "Ever tried.", "usage": DURATION})),
        long_recording("ogg", 150),
    )
    place = server(upstream)
    assert place.send(content).json() == {"transcript": "Ever tried."}
    assert place.send(content, response_format="srt").status_code == 200
    assert [parts(call) for call in upstream.calls] == [False, True, True, True]


class AtOpenAI(httpx2.HTTPTransport):
    """A server of this machine in the place of OpenAI's."""

    def __init__(self, url):
        super().__init__(limits=httpx2.Limits(max_keepalive_connections=0))
        self._url = httpx2.URL(url)

    def handle_request(self, request):
        assert request.url.host == "api.openai.com"
        request.url = request.url.copy_with(scheme="http", host=self._url.host, port=self._url.port)
        return super().handle_request(request)


@pytest.mark.parametrize("route", ROUTES)
def test_clients_that_ask_a_dead_model_for_times_have_them_still(server, engine, route):
    place = server(AtOpenAI(engine.url), today=date(2027, 2, 26))
    answer = place.send(asset("beckett.wav"), route, model="whisper-1", response_format="srt")
    assert captions(answer.text) == BECKETT
    assert answer.headers["Steno-Model"] == "gpt-transcribe"


def test_where_there_is_no_bucket_the_refusal_says_what_would_help(client):
    answer = client().post(
        ROUTES[0], files={"file": recording("webm")}, data={"response_format": "srt"}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option")
    assert "has a bucket" in answer.json()["detail"]
    assert "whisper-1" in answer.json()["detail"]


def test_what_no_job_can_do_beside_is_refused_by_name(server):
    fields = {"model": "gpt-4o-transcribe", "response_format": "srt", "chunking_strategy": "auto"}
    answer = server(idle=True).send(recording("webm"), ROUTES[1], **fields)
    assert answer.json()["error"]["param"] == "response_format"
    assert "not beside `chunking_strategy`" in answer.json()["error"]["message"]


def captions(text):
    return [cue.content for cue in srt.parse(text)]
