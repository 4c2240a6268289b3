"""Uploads, jobs and the worker: over a local S3, SQS and DynamoDB, and a false upstream under the real client."""

import itertools
import json
import tempfile
import threading
import time
from dataclasses import replace

import boto3
import httpx2
import pysubs2
import pytest
from botocore.exceptions import EndpointConnectionError
from starlette.testclient import TestClient

from handler.errors import NotFailed, UpstreamFailed
from handler.job import Caller, Heard
from handler.jobs import LEASE_SECONDS, Held, Jobs, Lost
from handler.transcript import Transcript
from handler.worker import Worker
from infra.engine import decode
from tests.conftest import settings
from tests.place import PACING, Gateway, Place
from tests.recordings import asset, long_recording, recording, silent_video, wav
from tests.test_loudness import SILENCES, samples
from tests.upstream import FalseUpstream, heard, refused


@pytest.fixture
def place(aws):
    made = Place(aws)
    made.sqs.purge_queue(QueueUrl=made.queue)
    return made


def notification(identity, key=None):
    return json.dumps({"Records": [{"s3": {"object": {"key": key or f"uploads/{identity}.webm"}}}]})


class TimeIsUp:
    """What Lambda says to a call that has no time left but to hand its job on."""

    def get_remaining_time_in_millis(self):
        return 30_000


# Uploads


def test_an_upload_is_asked_for_sent_and_transcribed_without_another_call(place):
    asked = place.ask(30_000)
    assert asked.status_code == 201
    identity = asked.json()["id"]
    assert asked.headers["Location"] == f"/api/transcriptions/{identity}"
    assert asked.json()["status"] == place.job(identity)["status"] == "awaiting_upload"
    form = asked.json()["upload"]
    httpx2.post(form["url"], data=form["fields"], files={"file": recording("webm")}).raise_for_status()
    assert place.job(identity)["status"] == "queued"
    assert place.transcript(identity).json()["code"] == "not_ready"
    assert place.work() == []
    job = place.job(identity)
    assert (job["status"], job["transcript"], job["error"]) == ("completed", "Ever tried.", None)
    assert (job["progress"], job["seconds_paid"], job["model"]) == ({"done": 1, "total": 1}, 3.0, "gpt-transcribe")
    assert job["duration"] == pytest.approx(3, abs=0.1)
    assert job["no_speech"] is False
    assert place.transcript(identity).json() == {"transcript": "Ever tried."}


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"size": 0}, 422, "empty_recording"),
        ({"size": 2_000_000_001}, 413, "recording_too_large"),
        ({"content_type": "text/html"}, 415, "unsupported_media"),
        ({"content_type": "image/png"}, 415, "unsupported_media"),
        ({"size": "many"}, 422, "invalid_request"),
        ({"model": "whisper-9"}, 422, "invalid_option"),
        ({"model": "whisper-1", "keywords": ["Steno"]}, 422, "invalid_option"),
        ({"response_format": "docx"}, 422, "invalid_option"),
        ({"include": ["logprobs"]}, 422, "invalid_option"),
        ({"language": "english please"}, 422, "invalid_option"),
        ({"unheard_of": 1}, 422, "invalid_request"),
    ],
)
def test_what_cannot_be_transcribed_is_refused_before_an_address_exists(place, more, status, code):
    answer = place.ask(**more)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "upload" not in answer.json()


@pytest.mark.parametrize("content_type", ["audio/webm;codecs=opus", "video/mp4", "application/octet-stream", ""])
def test_every_type_that_a_browser_says_of_a_recording_is_taken_and_pinned(place, content_type):
    form = place.ask(content_type=content_type).json()["upload"]
    assert form["fields"]["Content-Type"] == (content_type or "application/octet-stream")


def test_the_bucket_itself_refuses_another_key_type_or_size(aws):
    small = Place(aws, max_upload_bytes=1000)
    form = small.ask(size=1000).json()["upload"]

    def post(content=b"x" * 1000, **fields):
        return httpx2.post(form["url"], data={**form["fields"], **fields}, files={"file": content}).status_code

    assert post(content=b"x" * 1001) in (400, 403)
    assert post(key="uploads/another.webm") == 403
    assert post(**{"Content-Type": "text/html"}) == 403
    assert post(policy="e30=") in (400, 403)
    assert post() == 204


def test_after_its_time_the_bucket_refuses_the_form(aws):
    _, form = Jobs(settings(**aws), upload_seconds=1).create("a.webm", "audio/webm", {})
    until = time.monotonic() + 20
    while httpx2.post(form["url"], data=form["fields"], files={"file": b"x"}).status_code == 204:
        assert time.monotonic() < until


def test_a_job_whose_recording_never_came_says_so(aws):
    clock = Clock()
    jobs = Jobs(settings(**aws), clock)
    job, _ = jobs.create("a.webm", "audio/webm", {})
    clock.now += 901
    assert jobs.get(job.id).status == "awaiting_upload"  # a slow upload may have begun in time
    clock.now += 7200
    assert (jobs.get(job.id).status, jobs.get(job.id).error["code"]) == ("failed", "invalid_request")


def test_without_a_bucket_there_are_no_uploads(client):
    answer = client().post("/api/uploads", json={"size": 1})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


# What the queue may bring


def test_what_is_no_recording_of_ours_is_left_alone(place):
    test_event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "steno"}
    for body in (
        json.dumps(test_event),
        notification("0" * 32),
        notification("x", key="uploads/..%2F..%2Fetc%2Fpasswd"),
        notification("x", key="elsewhere/file.webm"),
    ):
        assert place.work(place.message(body)) == []


@pytest.mark.parametrize("body", ["hello", "[]", '{"Records": [{}]}', '{"Records": 1}'])
def test_a_message_that_makes_no_sense_is_reported_and_stops_no_other(place, body):
    identity = place.upload(recording("webm"))
    good, bad = place.about(identity), place.message(body)
    assert place.work(bad, good) == [bad["messageId"]]
    assert place.job(identity)["status"] == "completed"


def test_the_same_message_twice_pays_once(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    assert place.work(message) == []
    assert place.work(message) == []
    assert len(upstream.calls) == 1


def test_the_message_of_a_worker_that_may_have_died_comes_again_later(place):
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    place.jobs.take(f"uploads/{identity}.webm", "another worker", message["messageId"])
    assert place.work(message) == [message["messageId"]]


def test_a_second_message_about_a_job_that_is_worked_on_comes_again_in_case_the_worker_dies(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    identity = place.upload(recording("webm"))
    place.jobs.take(f"uploads/{identity}.webm", "another worker", "another message")
    message = place.about(identity)
    assert place.work(message) == [message["messageId"]]
    assert upstream.calls == []
    place.jobs.clock = lambda: time.time() + LEASE_SECONDS + 1
    assert place.work(message) == []
    assert place.job(identity)["status"] == "completed"


def test_a_message_comes_again_within_a_minute_of_a_crash_however_soon(aws):
    """The queue's own visibility is as long as a function may run; the worker shortens it before anything else."""
    seen = []
    place = Place(aws, FalseUpstream(lambda _: seen.append("heard") or heard("Ever tried.")))
    events = place.wiring.sqs.meta.events
    events.register(
        "provide-client-params.sqs.ChangeMessageVisibility",
        lambda params, **_: seen.append(params["VisibilityTimeout"]),
    )
    place.upload(recording("webm"))
    place.work()
    assert seen[0] == LEASE_SECONDS
    assert "heard" in seen


def test_a_recording_that_arrives_after_its_job_was_deleted_goes_too(place):
    asked = place.ask().json()
    assert place.http.delete(f"/api/transcriptions/{asked['id']}").status_code == 204
    form = asked["upload"]
    httpx2.post(form["url"], data=form["fields"], files={"file": recording("webm")}).raise_for_status()
    assert place.work(place.about(asked["id"])) == []
    assert not any(asked["id"] in key for key in place.objects())


def test_what_a_crash_left_of_a_finished_job_goes_when_its_message_comes_again(place):
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    place.work(message)
    place.s3.put_object(Bucket="steno", Key=f"uploads/{identity}.webm", Body=b"x")
    place.work(message)
    assert [key for key in place.objects() if identity in key] == [f"transcripts/{identity}.json"]


def test_calls_that_never_get_anywhere_end_with_a_failed_job(place):
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    for attempt in range(1, 6):
        assert place.work(message, context=TimeIsUp()) == []
        message = place.about(identity)
        assert place.job(identity)["status"] == ("processing" if attempt < 5 else "failed")
    assert place.work(message) == []
    assert (place.job(identity)["status"], place.job(identity)["error"]["code"]) == ("failed", "internal_error")


def test_a_recording_that_is_gone_fails_its_job(place):
    identity = place.upload(recording("webm"))
    place.s3.delete_object(Bucket="steno", Key=f"uploads/{identity}.webm")
    place.work()
    assert (place.job(identity)["status"], place.job(identity)["error"]["code"]) == ("failed", "not_found")


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"<html>" * 100, "unsupported_media"), (silent_video(), "no_audio"), (recording("webm")[:300], None)],
)
def test_a_recording_that_cannot_be_read_fails_with_a_reason(place, content, code):
    identity = place.upload(content)
    assert place.work() == []
    job = place.job(identity)
    assert job["status"] == "failed"
    assert job["error"]["detail"]
    assert code in (None, job["error"]["code"])
    assert place.transcript(identity).status_code == 409


def test_a_recording_longer_than_the_limit_fails(aws):
    place = Place(aws, max_audio_seconds=2)
    identity = place.upload(recording("webm"))
    place.work()
    assert place.job(identity)["error"]["code"] == "recording_too_large"


# Long recordings


def by_part(request):
    """Says how many bytes it got, so that every part has words of its own."""
    return heard(f"Part of {len(request.read())} bytes.")


def test_a_long_recording_goes_up_in_parts_and_comes_back_in_order(aws):
    place = Place(aws, httpx2.MockTransport(by_part))
    identity = place.upload(long_recording("ogg", 80))
    place.work()
    job = place.job(identity)
    assert job["status"] == "completed"
    assert job["progress"] == {"done": 3, "total": 3}
    assert job["transcript"].count("Part of") == 3
    assert job["duration"] == pytest.approx(80, abs=0.1)


def test_a_recorder_that_was_asleep_makes_no_more_parts_than_there_is_sound_for(place):
    identity = place.upload(long_recording("webm", 80, gap=300))
    place.work()
    job = place.job(identity)
    assert job["progress"]["done"] == job["progress"]["total"] <= 3
    assert job["duration"] == pytest.approx(380, abs=1)


def test_a_recording_in_which_nobody_speaks_costs_nothing_and_says_so(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    identity = place.upload(wav(bytes(32_000 * 50)))
    place.work()
    job = place.job(identity)
    assert (job["status"], job["transcript"], job["no_speech"]) == ("completed", "", True)
    assert (job["seconds_paid"], upstream.calls) == (0, [])


def test_silence_of_any_kind_pays_nothing(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    assert len(SILENCES) >= 10
    for silence in SILENCES.values():
        identity = place.upload(wav(samples(silence)))
        place.work(place.about(identity))
        job = place.job(identity)
        assert (job["status"], job["no_speech"], job["seconds_paid"]) == ("completed", True, 0)
    assert upstream.calls == []


def test_a_part_in_which_nobody_speaks_is_not_sent(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    spoken = asset("two_cities.wav")[44:]
    identity = place.upload(wav(spoken[: 32_000 * 20] + bytes(32_000 * 60) + spoken[: 32_000 * 20]))
    place.work()
    job = place.job(identity)
    assert job["progress"]["total"] > len(upstream.calls) >= 2
    assert job["transcript"].count("Ever tried.") == len(upstream.calls)


def test_times_are_those_of_the_whole_recording_in_every_format(aws):
    segment = {"id": 0, "start": 1.0, "end": 2.5, "text": "Ever tried."}
    place = Place(aws, httpx2.MockTransport(lambda _: heard("Ever tried.", segments=[segment], duration=20.0)))
    identity = place.upload(long_recording("ogg", 80), model="whisper-1")
    place.work()
    whole = place.transcript(identity, response_format="verbose_json").json()
    starts = [segment["start"] for segment in whole["segments"]]
    assert starts[0] == pytest.approx(1.0, abs=0.01)
    assert starts[1] == pytest.approx(27.7, abs=12.1)
    assert starts[2] == pytest.approx(54.3, abs=12.1)
    for name in ("srt", "vtt"):
        text = place.transcript(identity, response_format=name).text
        assert [cue.start / 1000 for cue in pysubs2.SSAFile.from_string(text, name)] == pytest.approx(starts, abs=0.001)
    assert place.transcript(identity, response_format="text").text == "Ever tried. Ever tried. Ever tried.\n"


def test_a_format_that_is_none_is_refused(place):
    identity = place.upload(recording("webm"))
    place.work()
    assert place.transcript(identity, response_format="docx").status_code == 422


def test_parts_are_sent_at_the_same_time(aws):
    together = threading.Barrier(3)

    def wait_for_all(request):
        together.wait(timeout=20)
        return by_part(request)

    place = Place(aws, httpx2.MockTransport(wait_for_all))
    identity = place.upload(long_recording("ogg", 80))
    place.work()
    assert place.job(identity)["status"] == "completed"


def test_an_answer_that_was_cut_off_is_asked_for_again_in_two_halves(aws):
    usage = {"type": "tokens", "input_tokens": 1, "output_tokens": 1990, "total_tokens": 1991}
    upstream = FalseUpstream(
        httpx2.Response(200, json={"text": "Ever", "usage": usage}), heard("Ever tried."), heard("Ever failed.")
    )
    place = Place(aws, upstream)
    identity = place.upload(long_recording("ogg", 30))
    place.work()
    assert place.job(identity)["transcript"] == "Ever tried. Ever failed."
    assert len(upstream.calls) == 3
    assert place.job(identity)["seconds_paid"] == pytest.approx(36, abs=0.1)  # what was cut off was paid, too


def test_a_half_in_which_nobody_speaks_is_not_sent(aws):
    usage = {"type": "tokens", "input_tokens": 1, "output_tokens": 1990, "total_tokens": 1991}
    upstream = FalseUpstream(httpx2.Response(200, json={"text": "Ever", "usage": usage}), words="Ever tried.")
    place = Place(aws, upstream)
    place.worker = Worker(place.wiring, replace(PACING, part=60))
    spoken = (decode(asset("endgame_nagg_nell.wav"), "wav") * 32767).astype("<i2").tobytes()
    identity = place.upload(wav(spoken + bytes(32_000 * 26)))
    place.work(place.about(identity))
    assert place.job(identity)["transcript"] == "Ever tried."
    assert len(upstream.calls) == 2


def test_the_times_of_two_halves_are_those_of_the_recording(aws):
    segments = [{"type": "transcript.text.segment", "id": "s", "text": "Ever", "speaker": "A", "start": 1, "end": 2}]

    def cut_off_if_long(request):
        tokens = 1990 if len(request.read()) > 250_000 else 10
        usage = {"type": "tokens", "input_tokens": 1, "output_tokens": tokens, "total_tokens": tokens + 1}
        return httpx2.Response(200, json={"text": "Ever", "usage": usage, "segments": segments})

    place = Place(aws, httpx2.MockTransport(cut_off_if_long))
    identity = place.upload(long_recording("ogg", 80), model="gpt-4o-transcribe-diarize")
    place.work()
    told = place.transcript(identity, response_format="verbose_json").json()["segments"]
    assert len(told) >= 5
    assert all(later["start"] - sooner["start"] > 3 for sooner, later in itertools.pairwise(told))
    assert told[-1]["start"] > 55


@pytest.mark.parametrize("model", ["gpt-transcribe", "whisper-1"])
def test_an_ordinary_text_of_another_script_is_not_taken_for_one_that_was_cut_off(aws, model):
    text = "и снова " * 525  # five minutes of Russian
    segment = {"id": 0, "start": 0, "end": 1, "text": text}
    upstream = FalseUpstream(heard(text, segments=[segment]))
    place = Place(aws, upstream)
    place.upload(long_recording("ogg", 30), model=model)
    place.work()
    assert len(upstream.calls) == 1


def test_what_the_speech_service_asks_to_wait_for_is_waited_for(aws):
    calls = []

    def busy_at_first(_):
        calls.append(time.monotonic())
        return refused(429, retry_after="0.3") if len(calls) == 1 else heard("Ever tried.")

    place = Place(aws, httpx2.MockTransport(busy_at_first))
    identity = place.upload(recording("webm"))
    place.work()
    assert place.job(identity)["status"] == "completed"
    assert calls[1] - calls[0] >= 0.3


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (refused(429, "insufficient_quota"), "upstream_quota"),
        (refused(401), "upstream_credentials"),
        (refused(404), "upstream_model"),
        (refused(400), "unreadable_recording"),
    ],
)
def test_what_never_gets_better_ends_the_job_at_once_and_keeps_the_recording(aws, reply, code):
    upstream = FalseUpstream(reply)
    place = Place(aws, upstream)
    identity = place.upload(recording("webm"))
    assert place.work() == []
    assert (place.job(identity)["status"], place.job(identity)["error"]["code"]) == ("failed", code)
    assert len(upstream.calls) == 1
    assert f"uploads/{identity}.webm" in place.objects()


def test_a_call_that_runs_out_of_time_hands_its_job_on_and_the_next_goes_on(aws):
    """The second part hangs until the time is up; the next call sends that part alone."""
    release, slow = threading.Event(), threading.Event()
    calls = []

    def hang_on_the_second(request):
        calls.append(len(request.read()))
        if len(calls) == 2:
            slow.set()
            release.wait(20)
        return heard(f"Part of {calls[-1]} bytes.")

    place = Place(aws, httpx2.MockTransport(hang_on_the_second))
    identity = place.upload(long_recording("ogg", 40))
    message = place.about(identity)

    class Short:
        def get_remaining_time_in_millis(self):
            return 30_000 + 8_000

    assert place.work(message, context=Short()) == []
    assert slow.is_set()
    job = place.job(identity)
    assert (job["status"], job["progress"]["done"]) == ("processing", 1)
    assert job["transcript"]
    release.set()
    assert place.work(place.about(identity)) == []
    assert place.job(identity)["status"] == "completed"
    assert place.job(identity)["progress"] == {"done": 2, "total": 2}
    assert len(calls) == 3


def test_a_worker_that_stumbles_leaves_its_message_and_the_next_completes_the_job(place):
    identity = place.upload(recording("webm"))
    message = place.about(identity)

    def stumble(**_):
        place.jobs.objects.client.meta.events.unregister("before-call.s3.HeadObject", stumble)
        raise ConnectionResetError

    place.jobs.objects.client.meta.events.register("before-call.s3.HeadObject", stumble)
    assert place.work(message) == [message["messageId"]]
    place.jobs.clock = lambda: time.time() + LEASE_SECONDS + 1
    assert place.work(message) == []
    assert place.job(identity)["status"] == "completed"


def test_a_job_that_takes_long_keeps_its_lease_and_its_message(aws):
    jobs = Jobs(settings(**aws), lease_seconds=1)
    kept = threading.Semaphore(0)

    def wait_until_kept(_):
        for _ in range(4):
            assert kept.acquire(timeout=20)
        with pytest.raises(Held):
            jobs.take(f"uploads/{identity}.webm", "another worker", "another message")
        return heard("Ever tried.")

    place = Place(aws, FalseUpstream(wait_until_kept), jobs)
    place.wiring.sqs.meta.events.register("after-call.sqs.ChangeMessageVisibility", lambda **_: kept.release())
    identity = place.upload(recording("webm"))
    assert place.work(place.about(identity)) == []
    assert place.job(identity)["status"] == "completed"


def test_a_part_goes_from_the_disk_once_it_was_heard(aws, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = []

    def look(_):
        left.append(sorted(path.name for path in tmp_path.glob("steno-*/*.flac")))
        return heard("Ever tried.")

    place = Place(aws, httpx2.MockTransport(look), max_concurrent_calls=1)
    place.upload(long_recording("ogg", 80))
    place.work()
    assert left[-1] == ["0002.flac"]
    assert list(tmp_path.iterdir()) == []


def test_an_outage_of_the_speech_service_is_waited_for_and_then_told(aws):
    """What may have been billed is not sent for ever."""
    upstream = httpx2.MockTransport(unplugged)
    place = Place(aws, upstream)
    identity = place.upload(recording("webm"))
    for _ in range(4):
        assert place.work(place.about(identity)) == []
        assert place.job(identity)["status"] == "processing"
    assert place.work(place.about(identity)) == []
    assert (place.job(identity)["status"], place.job(identity)["error"]["code"]) == ("failed", "upstream_failed")
    assert f"uploads/{identity}.webm" in place.objects()


def unplugged(_):
    raise httpx2.ReadError("unplugged")


def test_what_may_have_been_billed_is_sent_three_times_at_most_by_one_call(aws):
    upstream = FalseUpstream(*[httpx2.ReadError("unplugged")] * 9)
    place = Place(aws, upstream)
    place.upload(recording("webm"))
    place.work()
    assert len(upstream.calls) == 3


def test_what_may_have_been_billed_counts_as_paid_and_what_cannot_does_not(aws):
    for failure, paid in ((httpx2.ReadError("unplugged"), 6), (refused(429, retry_after="0"), 3)):
        place = Place(aws, FalseUpstream(failure))
        identity = place.upload(recording("ogg"), prompt=str(paid))
        place.work(place.about(identity))
        assert place.job(identity)["seconds_paid"] == pytest.approx(paid, abs=0.1)


def test_what_was_heard_just_before_a_crash_is_found_and_counts_as_paid(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    events = place.jobs.client.meta.events

    def stumble(params, **_):
        if "heard" in params["Item"]:
            events.unregister("provide-client-params.dynamodb.PutItem", stumble)
            raise ConnectionResetError

    events.register("provide-client-params.dynamodb.PutItem", stumble)
    assert place.work(message) == [message["messageId"]]
    place.jobs.clock = lambda: time.time() + LEASE_SECONDS + 1
    assert place.work(message) == []
    assert (place.job(identity)["status"], place.job(identity)["seconds_paid"]) == ("completed", 3)
    assert len(upstream.calls) == 1


def test_a_busy_minute_and_a_broken_connection_do_not_end_a_job(aws):
    busy = [refused(429, retry_after="0")] * 3
    place = Place(aws, FalseUpstream(*busy, httpx2.Response(502), httpx2.ReadError("unplugged")))
    identity = place.upload(recording("webm"))
    place.work()
    assert place.job(identity)["status"] == "completed"


# Once more


def test_a_failed_job_is_tried_again_without_an_upload_and_pays_only_for_what_was_not_heard(aws):
    refusing = threading.Event()
    sent = []

    def refuse_the_last_part(request):
        sent.append(len(request.read()))
        return refused(400) if refusing.is_set() and len(sent) == 3 else heard(f"Part of {sent[-1]} bytes.")

    refusing.set()
    place = Place(aws, httpx2.MockTransport(refuse_the_last_part), max_concurrent_calls=1)
    identity = place.upload(long_recording("ogg", 80))
    place.work(place.about(identity))
    failed = place.job(identity)
    assert (failed["status"], failed["progress"]["done"]) == ("failed", 2)
    assert failed["seconds_paid"] == 6
    refusing.clear()
    answer = place.http.post(f"/api/transcriptions/{identity}/retry")
    assert (answer.status_code, answer.json()["status"], answer.json()["error"]) == (202, "queued", None)
    assert answer.headers["Location"] == f"/api/transcriptions/{identity}"
    assert place.work(place.about(identity)) == []
    assert place.job(identity)["status"] == "completed"
    assert place.job(identity)["transcript"].count("Part of") == 3
    assert len(sent) == 4
    again = place.http.post(f"/api/transcriptions/{identity}/retry")
    assert (again.status_code, again.json()["code"]) == (409, "not_failed")


def test_what_is_on_its_way_when_another_part_fails_is_paid_for_and_kept(aws):
    """The third part is refused while the first two are being heard."""
    refused_one = threading.Event()
    sent = []

    def refuse_the_last(request):
        sent.append(len(request.read()))
        if len(sent) == 3:
            refused_one.set()
            return refused(400)
        assert refused_one.wait(20)
        return heard("Ever tried.")

    place = Place(aws, httpx2.MockTransport(refuse_the_last))
    identity = place.upload(long_recording("ogg", 80))
    place.work(place.about(identity))
    job = place.job(identity)
    assert (job["status"], job["progress"]["done"], job["seconds_paid"]) == ("failed", 2, 6)


def test_a_retry_that_was_cut_off_can_be_asked_for_again(place):
    identity = place.upload(b"<html>" * 100)
    place.work(place.about(identity))

    def stumble(**_):
        place.jobs.objects.client.meta.events.unregister("before-call.s3.CopyObject", stumble)
        raise ConnectionResetError

    place.jobs.objects.client.meta.events.register("before-call.s3.CopyObject", stumble)
    address = f"/api/transcriptions/{identity}/retry"
    assert place.http.post(address).status_code == 500
    assert place.http.post(address).status_code == 202


def test_a_retry_takes_no_job_out_of_a_workers_hands(leased):
    jobs, job = leased
    jobs.fail(job, UpstreamFailed("no more"))
    failed = jobs.get(job.id)
    jobs._begin_again(failed, "")
    second = jobs.take(job.key, "second", "2")
    jobs._begin_again(failed, "")  # one that was asked for at the same time, and comes late
    with pytest.raises(Held):
        jobs.take(job.key, "third", "3")
    jobs.complete(second, Transcript("Ever tried.", "gpt-transcribe"))
    jobs._begin_again(failed, "")
    assert jobs.get(job.id).status == "completed"


def test_a_job_whose_recording_is_gone_cannot_be_tried_again(place):
    identity = place.upload(b"<html>" * 100)
    place.work()
    place.s3.delete_object(Bucket="steno", Key=f"uploads/{identity}.webm")
    answer = place.http.post(f"/api/transcriptions/{identity}/retry")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert place.job(identity)["status"] == "failed"


# Leases


class Clock:
    def __init__(self):
        self.now = time.time()

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def leased(aws, clock):
    jobs = Jobs(settings(**aws), clock)
    job, _ = jobs.create("a.webm", "audio/webm", {})
    return jobs, jobs.take(job.key, "first", "1")


def test_one_worker_holds_a_job_until_its_lease_runs_out(leased, clock):
    jobs, job = leased
    with pytest.raises(Held):
        jobs.take(job.key, "second", "2")
    clock.now += LEASE_SECONDS - 1
    jobs.renew(job)
    clock.now += LEASE_SECONDS - 1
    with pytest.raises(Held):
        jobs.take(job.key, "second", "2")
    clock.now += 2
    assert jobs.take(job.key, "second", "2").lease == "second"


def test_who_has_lost_the_lease_can_change_nothing(leased, clock):
    jobs, job = leased
    clock.now += LEASE_SECONDS + 1
    jobs.take(job.key, "second", "2")
    for change in (
        lambda: jobs.renew(job),
        lambda: jobs.cut(job, 3),
        lambda: jobs.hear(job, Heard(0, 0, "late")),
        lambda: jobs.release(job),
    ):
        with pytest.raises(Lost):
            change()
    assert [heard.text for heard in jobs.heard(job.id)] == ["late"]  # what was paid for is of use to the other


def test_who_comes_too_late_to_complete_a_job_takes_nothing_from_it(leased, clock):
    jobs, job = leased
    clock.now += LEASE_SECONDS + 1
    winner = jobs.take(job.key, "second", "2")
    jobs.complete(winner, Transcript("Ever tried.", "gpt-transcribe"))
    with pytest.raises(Lost):
        jobs.complete(job, Transcript("Ever tried.", "gpt-transcribe"))
    assert jobs.transcript(jobs.get(job.id)).text == "Ever tried."


def test_a_transcript_that_comes_after_its_job_was_deleted_is_not_kept(leased):
    jobs, job = leased
    jobs.delete(job.id)
    with pytest.raises(Lost):
        jobs.complete(job, Transcript("Ever tried.", "gpt-transcribe"))
    listed = jobs.objects.client.list_objects_v2(Bucket="steno", Prefix=f"transcripts/{job.id}")
    assert listed["KeyCount"] == 0


def test_a_form_goes_to_the_buckets_own_region(aws, monkeypatch):
    """The global address redirects, and no browser follows that with a form."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    jobs = Jobs(settings(**aws))
    jobs.client.meta.events.register("before-call.dynamodb", lambda **_: (httpx2.Response(200), {}))
    _, form = jobs.create("a.webm", "audio/webm", {})
    assert form["url"] == "https://steno.s3.eu-central-1.amazonaws.com/"


def test_what_was_heard_is_counted_when_the_job_ends(leased):
    jobs, job = leased
    jobs.hear(job, Heard(1, 320_000, "tried.", seconds_paid=2.5))
    jobs.hear(job, Heard(0, 0, "Ever", seconds_paid=3))
    assert [heard.text for heard in jobs.heard(job.id)] == ["Ever", "tried."]
    jobs.fail(job, UpstreamFailed("no more"))
    assert (jobs.get(job.id).done, jobs.get(job.id).seconds_paid) == (2, 5.5)


# Whose, and for how long


def test_a_job_of_somebody_else_is_not_found(aws):
    jobs = Jobs(settings(**aws))
    job, _ = jobs.create("a.webm", "audio/webm", {}, Caller("ada", "ada"))
    assert jobs.get(job.id, "ada").id == job.id
    place = Place(aws)  # where nobody says who is calling
    assert place.job(job.id)["code"] == "not_found"
    assert place.http.delete(f"/api/transcriptions/{job.id}").status_code == 404
    assert place.job("0" * 32)["code"] == place.job("../../etc")["code"] == "not_found"


def test_the_recording_goes_once_its_transcript_is_stored(place):
    identity = place.upload(recording("webm"))
    assert f"uploads/{identity}.webm" in place.objects()
    place.work()
    assert [key for key in place.objects() if identity in key] == [f"transcripts/{identity}.json"]
    assert place.jobs.heard(identity) == []


def test_a_transcript_expires_after_its_days_and_not_before(aws, clock):
    place = Place(aws, jobs=Jobs(settings(**aws), clock))
    identity = place.upload(recording("webm"))
    place.work(place.about(identity))
    clock.now += 29 * 86_400
    assert place.job(identity)["status"] == "completed"
    clock.now += 2 * 86_400
    assert place.job(identity)["code"] == "not_found"


def test_jobs_of_one_subject_are_no_others(aws):
    place = Place(aws, auth="jwt", aws_lambda_function_name="api")
    ada, bob = (TestClient(Gateway(place.app, name)) for name in ("ada", "bob"))
    place.http = ada
    identity = place.upload(recording("webm"))
    place.work(place.about(identity))
    assert bob.post(f"/api/transcriptions/{identity}/retry").status_code == 404
    for address in (f"/api/transcriptions/{identity}", f"/api/transcriptions/{identity}/transcript"):
        assert ada.get(address).status_code == 200
        assert bob.get(address).status_code == 404
    assert bob.delete(f"/api/transcriptions/{identity}").status_code == 404
    assert ada.delete(f"/api/transcriptions/{identity}").status_code == 204


def test_delete_removes_recording_parts_and_transcript(place):
    identity = place.upload(recording("webm"))
    place.work()
    assert place.http.delete(f"/api/transcriptions/{identity}").status_code == 204
    assert place.job(identity)["code"] == "not_found"
    assert not any(identity in key for key in place.objects())
    assert place.http.delete(f"/api/transcriptions/{identity}").status_code == 404


def test_delete_forgets_what_the_ledger_keeps(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    for _ in range(2):
        identity = place.upload(recording("webm"))
        place.work(place.about(identity))
        assert place.http.delete(f"/api/transcriptions/{identity}").status_code == 204
    assert len(upstream.calls) == 2
    assert boto3.resource("dynamodb").Table("steno").scan()["Items"] == []


def test_delete_while_it_is_worked_on_leaves_nothing(aws):
    def delete_then_answer(request):
        place.jobs.delete(identity)
        return by_part(request)

    place = Place(aws, httpx2.MockTransport(delete_then_answer))
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    assert place.work(message) == [message["messageId"]]
    assert place.work(message) == []
    assert place.job(identity)["code"] == "not_found"
    assert not any(identity in key for key in place.objects())
    assert place.jobs.heard(identity) == []


def test_a_form_from_an_allowed_page_may_be_read_by_it(place):
    form = place.ask().json()["upload"]
    preflight = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    allowed = httpx2.options(form["url"], headers=preflight)
    assert allowed.headers["access-control-allow-origin"] in ("http://localhost:3000", "*")


# Delivered twice, lost, or given up by the queue


def other_recording_waits(place):
    """Another caller's upload, whose message is in the queue."""
    place.upload(recording("mp3"))


def bodies_about(place, identity):
    """Of the messages in the queue, without waiting for more."""
    received = place.sqs.receive_message(QueueUrl=place.queue, MaxNumberOfMessages=10)
    bodies = [message["Body"] for message in received.get("Messages", [])]
    return [body for body in bodies if identity in body]


def fails_as_in_an_outage(service, operation, place):
    """Makes one of the worker's calls fail as when AWS does not answer; the function ends that."""
    clients = {"s3": place.jobs.objects.client, "dynamodb": place.jobs.client}
    events, name = clients[service].meta.events, f"before-call.{service}.{operation}"

    def fail(**_):
        raise EndpointConnectionError(endpoint_url="https://aws.example")

    events.register(name, fail)
    return lambda: events.unregister(name, fail)


def kept_back(place):
    """The seconds for which messages are kept back, as they are set."""
    seconds = []
    place.wiring.sqs.meta.events.register(
        "provide-client-params.sqs.ChangeMessageVisibility",
        lambda params, **_: seconds.append(params["VisibilityTimeout"]),
    )
    return seconds


def test_a_job_survives_its_worker_though_its_message_was_delivered_twice(place):
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    place.jobs.take(f"uploads/{identity}.webm", "a worker that will die", message["messageId"])
    other_recording_waits(place)
    assert place.work(message) == [message["messageId"]]
    assert bodies_about(place, identity) == []  # the message was not replaced
    place.jobs.clock = lambda: time.time() + LEASE_SECONDS + 1
    assert place.work(message) == []
    assert place.job(identity)["status"] == "completed"


def test_a_job_that_was_retried_is_given_its_callers_place_in_the_queue(place):
    identity = place.upload(b"<html>" * 100)
    assert place.work(place.about(identity)) == []
    assert place.http.post(f"/api/transcriptions/{identity}/retry").status_code == 202
    message = place.about(identity)
    other_recording_waits(place)
    assert place.work(message) == []
    (replacement,) = bodies_about(place, identity)
    assert json.loads(replacement) == {"key": f"uploads/{identity}.webm"}


def test_jobs_with_the_shared_token_are_not_requeued_by_a_worker_that_nobody_calls(aws):
    place = Place(aws, auth="token", access_token="t")
    place.http.headers["authorization"] = "Bearer t"
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    other_recording_waits(place)
    place.worker = Place(aws, auth="open").worker  # as on AWS
    assert place.work(message) == []
    assert place.job(identity)["status"] == "completed"


def test_a_caller_named_token_is_still_one_of_many(aws):
    place = Place(aws, auth="jwt", aws_lambda_function_name="api")
    place.http = TestClient(Gateway(place.app, "token"))
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    other_recording_waits(place)
    assert place.work(message) == []
    assert len(bodies_about(place, identity)) == 1


def test_a_job_whose_worker_vanished_with_its_message_fails_and_can_be_retried(aws, clock):
    place = Place(aws, jobs=Jobs(settings(**aws), clock))
    identity = place.upload(recording("webm"))
    message = place.about(identity)["messageId"]
    place.jobs.take(f"uploads/{identity}.webm", "a worker that dies", message)
    clock.now += LEASE_SECONDS + 2690
    assert place.job(identity)["status"] == "processing"
    clock.now += 20
    job = place.job(identity)
    assert (job["status"], job["error"]["code"]) == ("failed", "internal_error")
    assert "retry" in job["error"]["detail"].lower()
    answer = place.http.post(f"/api/transcriptions/{identity}/retry")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert place.work(place.about(identity)) == []
    assert place.job(identity)["status"] == "completed"


def test_a_job_that_was_handed_on_fails_if_no_worker_comes_after_the_longest_delay(leased, clock):
    jobs, job = leased
    clock.now += 86_400  # it has been worked on for long
    jobs.release(job)
    clock.now += 2690
    assert jobs.get(job.id).status == "processing"
    clock.now += 20
    assert jobs.get(job.id).status == "failed"
    # A message that had waited in a long queue.
    assert jobs.take(job.key, "late", "2").status == "processing"
    assert jobs.get(job.id).status == "processing"


def test_a_queued_job_waits_for_a_worker_for_a_day_before_it_fails(aws, clock):
    place = Place(aws, jobs=Jobs(settings(**aws), clock))
    identity = place.upload(recording("webm"))
    place.messages()  # and its message is lost
    clock.now += 86_390
    assert place.job(identity)["status"] == "queued"
    clock.now += 20
    assert place.job(identity)["error"]["code"] == "internal_error"
    assert place.http.post(f"/api/transcriptions/{identity}/retry").status_code == 202
    assert place.job(identity)["status"] == "queued"
    place.messages()  # and lost again
    clock.now += 86_410
    assert place.job(identity)["status"] == "failed"
    assert place.http.post(f"/api/transcriptions/{identity}/retry").status_code == 202
    assert place.work(place.about(identity)) == []
    assert place.job(identity)["status"] == "completed"


def test_a_retry_leaves_a_stalled_job_to_the_worker_that_came_at_last(leased, clock):
    jobs, job = leased
    clock.now += LEASE_SECONDS + 2710
    stalled = jobs.get(job.id)
    assert stalled.status == "failed"
    late = jobs.take(job.key, "late", "2")
    jobs._begin_again(stalled, "")
    with pytest.raises(Held):
        jobs.take(job.key, "third", "3")
    jobs.complete(late, Transcript("Ever tried.", "gpt-transcribe"))
    assert jobs.get(job.id).status == "completed"


def test_a_job_that_is_worked_on_cannot_be_retried_however_old_it_is(leased, clock):
    jobs, job = leased
    clock.now += 86_400
    jobs.renew(job)
    with pytest.raises(NotFailed):
        jobs.retry(job.id, Caller())


# Handed on without end


def test_a_job_is_handed_on_a_limited_number_of_times_and_a_retry_begins_anew(place):
    identity = place.upload(recording("webm"))
    job = {"pk": f"job#{identity}", "sk": "job"}
    table = boto3.resource("dynamodb").Table("steno")
    changed = {"UpdateExpression": "SET hand_overs = :n", "ExpressionAttributeValues": {":n": 299}}
    table.update_item(Key=job, **changed)
    assert place.work(place.about(identity), context=TimeIsUp()) == []
    assert place.job(identity)["status"] == "processing"
    assert place.work(place.about(identity), context=TimeIsUp()) == []
    failed = place.job(identity)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "internal_error")
    assert "300" in failed["error"]["detail"]
    assert bodies_about(place, identity) == []
    place.http.post(f"/api/transcriptions/{identity}/retry")
    assert place.work(place.about(identity), context=TimeIsUp()) == []
    assert place.work(place.about(identity)) == []
    assert place.job(identity)["status"] == "completed"


# Outages of AWS


@pytest.mark.parametrize(("deliveries", "seconds"), [(1, 60), (4, 480), (200, 900)])
@pytest.mark.parametrize("call", [("dynamodb", "UpdateItem"), ("s3", "GetObject")])
def test_in_an_outage_a_message_is_kept_back_longer_each_time(place, call, deliveries, seconds):
    identity = place.upload(recording("webm"))
    message = place.about(identity) | {"attributes": {"ApproximateReceiveCount": str(deliveries)}}
    fails_as_in_an_outage(*call, place)
    kept = kept_back(place)
    assert place.work(message) == [message["messageId"]]
    assert kept[-1] == seconds


def test_an_outage_costs_a_job_none_of_its_attempts(place):
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    ends = fails_as_in_an_outage("s3", "GetObject", place)
    for _ in range(6):
        assert place.work(message) == [message["messageId"]]
        assert place.job(identity)["status"] == "processing"
    ends()
    assert place.work(message) == []
    assert place.job(identity)["status"] == "completed"


def test_a_key_that_cannot_be_read_in_an_outage_does_not_end_a_job(aws):
    place = Place(aws, openai_api_key=None, openai_secret_arn="steno")
    identity = place.upload(recording("webm"))
    message = place.about(identity)

    def fail(**_):
        raise EndpointConnectionError(endpoint_url="https://aws.example")

    events = place.wiring._aws._session.events
    events.register("before-call.secretsmanager.GetSecretValue", fail)
    assert place.work(message) == [message["messageId"]]
    assert place.job(identity)["status"] == "processing"
    events.unregister("before-call.secretsmanager.GetSecretValue", fail)
    assert place.work(message) == []
    assert place.job(identity)["status"] == "completed"


def test_a_message_that_makes_no_sense_is_delivered_again_within_seconds(place):
    """So that its two hundred deliveries end within the hour, and not after two days."""
    kept = kept_back(place)
    message = place.message("hello")
    assert place.work(message) == [message["messageId"]]
    assert kept == [10]
