"""Tests of the timestamps of words, on all routes, for models with and without timestamps."""

import random
from dataclasses import replace

import httpx2
import pytest
from openai.types.audio import TranscriptionSegment

from handler.billing.ledger import PaidAnswer, answer_key
from handler.jobs.parts import part_transcript
from handler.recordings.section import Section
from handler.steps.finish import join_parts
from handler.steps.pacing import Pacing
from handler.transcripts.transcript import Segment, Transcript, WordTime
from handler.upstream.models import OPENAI_URL, Upstream
from handler.upstream.response import parse_response
from tests.fake_upstream import FakeUpstream, transcript_response
from tests.harness import Harness
from tests.samples import asset, long_recording, recording, wav

ROUTES = ["/api/transcribe", "/v1/audio/transcriptions"]
WORDS = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
QUERY = "response_format=verbose_json&timestamp_granularities[]=word"
SEGMENTS = [{"start": 0.0, "end": 1.0, "text": "Ever tried."}]
MODEL_WORDS = [
    {"word": "Ever", "start": 0.1, "end": 0.4},
    {"word": "tried", "start": 0.5, "end": 0.9},
]

WHISPER = Upstream(OPENAI_URL).find("whisper-1")
SECTION = Section(number=0, start=0, samples=48_000, timeline=((0, 0.0),))
TIMED_SEGMENT = Segment(0.0, 1.0, "Ever.", words=(WordTime("Ever.", 0.0, 1.0),))


def spoken(words):
    return " ".join(word["word"] for word in words)


@pytest.mark.parametrize("route", ROUTES)
def test_a_model_without_timestamps_gets_the_times_of_words(server, engine, route):
    harness = server(openai_base_url=engine.url)
    response = harness.send(asset("beckett.wav"), route, model="gpt-transcribe", **WORDS)
    assert response.headers["Steno-Timestamps"] == "aligned"
    words = response.json()["words"]
    text = response.json().get("text") or response.json()["transcript"]
    assert spoken(words) == text
    times = [time for word in words for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert times[-1] <= response.json()["duration"]
    # The pause before "Ever failed." is at about 1.9 s in the recording.
    assert words[2]["word"] == "Ever"
    assert words[2]["start"] - words[1]["end"] > 0.3


@pytest.mark.parametrize("route", ROUTES)
def test_the_times_of_words_are_those_of_the_model_if_it_returns_them(client, route):
    reply = transcript_response("Ever tried.", segments=SEGMENTS, words=MODEL_WORDS)
    response = client(FakeUpstream(reply)).post(
        route, files={"file": recording("webm")}, data={"model": "whisper-1", **WORDS}
    )
    assert response.headers["Steno-Timestamps"] == "model"
    assert response.json()["words"] == MODEL_WORDS


@pytest.mark.parametrize(
    ("granularities", "fields"),
    [
        ([], {"segments"}),
        (["segment"], {"segments"}),
        (["word"], {"words"}),
        (["word", "segment"], {"words", "segments"}),
    ],
)
@pytest.mark.parametrize("model", ["whisper-1", "gpt-transcribe"])
def test_the_openai_route_returns_the_requested_timestamps(server, model, granularities, fields):
    reply = transcript_response("Ever tried.", segments=SEGMENTS, words=MODEL_WORDS)
    if model == "gpt-transcribe":
        reply = transcript_response("Ever tried.")
    form = {"response_format": "verbose_json", "timestamp_granularities[]": granularities}
    response = server(FakeUpstream(reply)).send(recording("webm"), ROUTES[1], model=model, **form)
    assert response.json().keys() & {"words", "segments"} == fields


def test_aligned_segments_have_all_fields_that_openai_specifies(server):
    form = {"model": "gpt-transcribe", "response_format": "verbose_json"}
    segments = server().send(recording("webm"), ROUTES[1], **form).json()["segments"]
    assert " ".join(segment["text"] for segment in segments) == "Ever tried."
    for segment in segments:
        parsed = TranscriptionSegment.model_validate(segment, strict=True)
        # Clients ignore segments beyond these thresholds, which are those of OpenAI's reference.
        assert parsed.avg_logprob >= -1
        assert parsed.compression_ratio <= 2.4
        assert parsed.no_speech_prob < 1


@pytest.mark.parametrize("model", ["whisper-1", "gpt-transcribe"])
def test_words_are_not_billed_if_segments_were_requested_before(server, model):
    times = {"segments": SEGMENTS, "words": MODEL_WORDS} if model == "whisper-1" else {}
    upstream = FakeUpstream(transcript_response("Ever tried.", **times))
    harness, content = server(upstream), recording("webm")
    form = {"model": model, "response_format": "verbose_json"}
    assert "words" not in harness.send(content, ROUTES[1], **form).json()
    words = harness.send(content, ROUTES[1], model=model, **WORDS).json()["words"]
    assert spoken(words) == ("Ever tried" if model == "whisper-1" else "Ever tried.")
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("model", ["gpt-transcribe", "whisper-1", "gpt-4o-transcribe-diarize"])
def test_the_transcript_of_an_upload_has_the_times_of_words(aws, engine, model):
    harness = Harness(aws, openai_base_url=engine.url)
    job_id = harness.upload(
        asset("beckett.wav"),
        model=model,
        response_format="verbose_json",
        timestamp_granularities=["word"],
    )
    harness.run_worker(harness.upload_record(job_id))
    for query in (QUERY, QUERY.replace("[]", "")):
        response = harness.http.get(f"/api/transcriptions/{job_id}/transcript?{query}")
        assert spoken(response.json()["words"]) == response.json()["transcript"]
        assert response.headers["Steno-Timestamps"] == (
            "model" if model == "whisper-1" else "aligned"
        )
    segments = harness.http.get(
        f"/api/transcriptions/{job_id}/transcript?response_format=verbose_json"
    )
    assert "words" not in segments.json()
    assert segments.headers["Steno-Timestamps"] == (
        "aligned" if model == "gpt-transcribe" else "model"
    )


def test_the_words_of_every_part_refer_to_the_whole_recording(aws):
    reply = transcript_response("Ever tried.", segments=SEGMENTS, words=MODEL_WORDS)
    upstream = FakeUpstream(lambda _request: reply)
    upstream.replies.extend([lambda _request: reply] * 3)
    harness = Harness(aws, upstream, pacing=Pacing(part_seconds=40))
    job_id = harness.upload(long_recording("ogg", 80), model="whisper-1", response_format="srt")
    harness.run_worker(harness.upload_record(job_id))
    body = harness.http.get(f"/api/transcriptions/{job_id}/transcript?{QUERY}").json()
    segments, words = body["segments"], body["words"]
    assert len(segments) == len(upstream.calls) > 1
    assert words[-1]["start"] == pytest.approx(segments[-1]["start"] + 0.5)


@pytest.mark.parametrize("query", ["", "response_format=srt&"])
def test_word_timestamps_of_a_transcript_without_verbose_json_are_rejected(aws, query):
    path = f"/api/transcriptions/{'0' * 32}/transcript?{query}timestamp_granularities[]=word"
    response = Harness(aws).http.get(path)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_option")
    assert "response_format=verbose_json" in response.json()["detail"]


def test_an_unknown_granularity_of_a_transcript_is_rejected_by_its_name(aws):
    path = f"/api/transcriptions/{'0' * 32}/transcript?response_format=verbose_json"
    response = Harness(aws).http.get(f"{path}&timestamp_granularities[]=letter")
    assert response.json()["code"] == "invalid_option"
    assert "`timestamp_granularities`" in response.json()["detail"]


def test_without_a_bucket_words_are_spread_over_the_segments_of_the_model(client):
    reply = transcript_response("Ever tried.", segments=SEGMENTS)
    response = client(FakeUpstream(reply)).post(
        ROUTES[1],
        files={"file": recording("webm")},
        data={"model": "gpt-4o-transcribe-diarize", **WORDS},
    )
    assert response.headers["Steno-Timestamps"] == "aligned"
    first, second = response.json()["words"]
    assert (first["word"], first["start"]) == ("Ever", 0.0)
    assert (second["word"], second["end"]) == ("tried.", 1.0)


@pytest.mark.parametrize(
    "words",
    [
        [{"word": "Ever"}, {"word": "tried", "start": None, "end": None}],
        [{"text": "Ever", "start": 0, "end": 1}],
        [{"word": "Ever", "start": 0, "end": 10**400}],
        [{"word": "Ever", "start": "nan", "end": 1}],
        ["Ever"],
    ],
)
@pytest.mark.parametrize("route", ROUTES)
def test_a_paid_transcript_is_kept_if_the_times_of_its_words_are_invalid(client, words, route):
    reply = transcript_response("Ever tried.", segments=SEGMENTS, words=words)
    response = client(FakeUpstream(reply)).post(
        route, files={"file": recording("webm")}, data={"model": "whisper-1", **WORDS}
    )
    assert response.status_code == 200
    assert response.headers["Steno-Timestamps"] == "aligned"
    assert spoken(response.json()["words"]) == "Ever tried."
    assert response.json()["words"][1]["end"] == 1.0


def test_a_paid_text_is_kept_if_it_has_only_invalid_times(client):
    reply = transcript_response("Ever tried.", words=[{"word": "Ever"}])
    response = client(FakeUpstream(reply)).post(
        ROUTES[1], files={"file": recording("webm")}, data={"model": "whisper-1", **WORDS}
    )
    assert (response.status_code, response.json()["text"]) == (200, "Ever tried.")


def test_words_outside_their_segment_are_moved_into_it(client):
    words = [
        {"word": " Ever", "start": -0.2, "end": 0.4},
        {"word": "tried", "start": 0.9, "end": 1.3},
    ]
    reply = transcript_response("Ever tried.", segments=SEGMENTS, words=words)
    response = client(FakeUpstream(reply)).post(
        ROUTES[0], files={"file": recording("webm")}, data={"model": "whisper-1", **WORDS}
    )
    assert response.json()["words"] == [
        {"word": "Ever", "start": 0.0, "end": 0.4},
        {"word": "tried", "start": 0.9, "end": 1.0},
    ]


@pytest.mark.parametrize("route", ROUTES)
def test_a_server_that_returns_only_words_gets_one_segment(client, route):
    reply = transcript_response("Ever tried.", words=MODEL_WORDS)
    response = client(FakeUpstream(reply)).post(
        route,
        files={"file": recording("webm")},
        data={"model": "whisper-1", "response_format": "verbose_json"},
    )
    (segment,) = response.json()["segments"]
    assert (segment["start"], segment["end"], segment["text"]) == (0.1, 0.9, "Ever tried.")
    assert "words" not in response.json()


def test_empty_words_and_the_ends_before_their_starts_are_corrected(client):
    words = [
        {"word": " ", "start": 0, "end": 0.1},
        {"word": "Ever", "start": 0.5, "end": 0.2},
    ]
    reply = transcript_response("Ever tried.", words=words)
    response = client(FakeUpstream(reply)).post(
        ROUTES[0], files={"file": recording("webm")}, data={"model": "whisper-1", **WORDS}
    )
    assert response.json()["words"] == [{"word": "Ever", "start": 0.5, "end": 0.5}]


def test_a_transcript_of_an_earlier_release_gets_words_without_a_payment(aws):
    """Transcripts that were stored before Steno had word timestamps have segments only."""
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    job_id = harness.upload(wav(bytes(32_000)), response_format="verbose_json")
    harness.run_worker(harness.upload_record(job_id))
    calls = len(upstream.calls)
    old = Transcript("Ever tried.", "gpt-transcribe", (Segment(0.5, 1.5, "Ever tried."),))
    harness.jobs.objects.put_transcript(job_id, old)
    response = harness.http.get(f"/api/transcriptions/{job_id}/transcript?{QUERY}")
    assert spoken(response.json()["words"]) == "Ever tried."
    assert "Steno-Timestamps" not in response.headers
    assert len(upstream.calls) == calls


def test_a_stored_transcript_is_read_with_its_words():
    words = (WordTime("Ever", 0.0, 0.4), WordTime("tried.", 0.4, 1.0))
    transcript = Transcript(
        "Ever tried.",
        "whisper-1",
        (Segment(0.0, 1.0, "Ever tried.", words=words),),
        aligned=("word",),
        languages=("en",),
    )
    assert Transcript.from_json(transcript.to_json()) == transcript


def test_a_joined_response_has_the_languages_and_usage_of_its_parts(server):
    replies = [
        httpx2.Response(200, json={"text": "Eins.", "languages": [{"code": "de"}]}),
        httpx2.Response(200, json={"text": "Two.", "languages": [{"code": "en"}]}),
    ]
    response = server(FakeUpstream(*replies)).send(
        recording("aac", "two_cities.wav", 45), ROUTES[1], model="gpt-transcribe"
    )
    body = response.json()
    assert sorted(language["code"] for language in body["languages"]) == ["de", "en"]
    assert body["usage"] == {"type": "duration", "seconds": 45}


def test_a_silent_part_does_not_change_the_source_of_the_timestamps():
    part = part_transcript(SECTION, Transcript("", "whisper-1", aligned=()))
    assert part.aligned == ()
    model = part_transcript(SECTION, Transcript("Ever.", "whisper-1", (TIMED_SEGMENT,)))
    assert join_parts([part, model], "whisper-1", 3.0).aligned == ()


def test_the_source_of_timestamps_is_unknown_if_a_part_is_from_release_0_1():
    known = part_transcript(SECTION, Transcript("Ever.", "gpt-transcribe"))
    assert join_parts([known], "gpt-transcribe", 3.0).aligned == ("segment", "word")
    old = replace(known, aligned=None)
    assert join_parts([old, known], "gpt-transcribe", 3.0).aligned is None


@pytest.mark.parametrize("hours", [1, 6])
def test_a_result_that_is_too_long_for_the_ledger_is_stored_without_words(aws, hours):
    number = random.Random(1).randrange
    words = [
        WordTime(f"{number(5_000):x}", second / 2.5, round(second / 2.5 + number(400) / 1000, 3))
        for second in range(9_000 * hours)
    ]
    segments = tuple(
        Segment(part[0].start, part[-1].end, " ".join(word.text for word in part), words=part)
        for part in (tuple(words[start : start + 9]) for start in range(0, len(words), 9))
    )
    transcript = Transcript("text", "whisper-1", segments, aligned=())
    ledger = Harness(aws).jobs.ledger
    ledger.claim("key", "holder", 0.0, 60)
    ledger.store("key", PaidAnswer(transcript, "holder", 3600.0))
    stored = ledger.find("key").transcript
    assert stored.lacks_words == (hours > 1)
    assert stored.without_words() == transcript.without_words()


def test_the_words_of_a_response_are_stored_once():
    reply = transcript_response("Ever tried.", segments=SEGMENTS, words=MODEL_WORDS)
    transcript = parse_response(reply.content, WHISPER, {"response_format": "verbose_json"})
    assert "words" not in transcript.answer
    assert [word.text for word in transcript.segments[0].words] == ["Ever", "tried"]


def test_results_of_release_0_1_are_used_for_requests_with_words():
    old = {"model": "whisper-1", "response_format": "verbose_json"}
    new = {**old, "timestamp_granularities": ["word", "segment"]}
    assert answer_key("", "digest", new, "url") == answer_key("", "digest", old, "url")
    mistral = {**old, "timestamp_granularities": ["segment"]}
    assert answer_key("", "digest", mistral, "url") != answer_key("", "digest", old, "url")
