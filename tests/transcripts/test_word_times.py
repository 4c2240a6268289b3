"""Tests of the timestamps of words, on all routes, for models with and without timestamps."""

import httpx2
import pytest

from handler.steps.pacing import Pacing
from handler.transcripts.transcript import Segment, Transcript, WordTime
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


@pytest.mark.parametrize("model", ["whisper-1", "gpt-transcribe"])
def test_words_are_not_billed_if_segments_were_requested_before(server, model):
    reply = transcript_response("Ever tried.", segments=SEGMENTS, words=MODEL_WORDS)
    upstream = FakeUpstream(reply)
    harness, content = server(upstream), recording("webm")
    form = {"model": model, "response_format": "verbose_json"}
    assert "words" not in harness.send(content, ROUTES[1], **form).json()
    response = harness.send(content, ROUTES[1], model=model, **WORDS)
    assert spoken(response.json()["words"]).startswith("Ever tried")
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
        ["Ever"],
    ],
)
def test_a_paid_transcript_is_kept_if_the_times_of_its_words_are_invalid(client, words):
    reply = transcript_response("Ever tried.", segments=SEGMENTS, words=words)
    response = client(FakeUpstream(reply)).post(
        ROUTES[0], files={"file": recording("webm")}, data={"model": "whisper-1", **WORDS}
    )
    assert response.status_code == 200
    assert spoken(response.json()["words"]) == "Ever tried."


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


def test_a_server_that_returns_only_words_gets_one_segment(client):
    reply = transcript_response("Ever tried.", words=MODEL_WORDS)
    response = client(FakeUpstream(reply)).post(
        ROUTES[0],
        files={"file": recording("webm")},
        data={"model": "whisper-1", "response_format": "verbose_json"},
    )
    assert response.json()["segments"] == [
        {"id": 0, "start": 0.1, "end": 0.9, "text": "Ever tried."}
    ]


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


def test_a_joined_response_has_the_languages_and_usage_of_its_parts(aws):
    replies = [
        httpx2.Response(200, json={"text": "Eins.", "languages": [{"code": "de"}]}),
        httpx2.Response(200, json={"text": "Two.", "languages": [{"code": "en"}]}),
    ]
    harness = Harness(aws, FakeUpstream(*replies), pacing=Pacing(part_seconds=40))
    job_id = harness.upload(long_recording("ogg", 80))
    harness.run_worker(harness.upload_record(job_id))
    joined = harness.jobs.transcript(harness.jobs.get(job_id))
    assert sorted(joined.languages) == ["de", "en"]
