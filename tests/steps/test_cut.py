"""Tests of cut.py: messages in the recordings queue, and cutting a recording into parts."""

import itertools
import json
import tempfile
import threading
from dataclasses import replace
from io import BytesIO

import httpx2
import pytest
from starlette.testclient import TestClient

from handler.jobs.job import ANONYMOUS
from handler.recordings.container import identify
from infra.local.recognizer import decode
from tests.fake_upstream import FakeUpstream, error_response, transcript_response
from tests.harness import (
    PACING,
    Harness,
    JwtGateway,
    before_call,
    failing_calls,
    outage,
    run_concurrently,
    visibility_timeouts,
)
from tests.recordings.test_speech_activity import SILENCES, samples
from tests.samples import asset, long_recording, recording, silent_video, wav

SPOKEN = (decode(asset("endgame_nagg_nell.wav"), "wav") * 32767).astype("<i2").tobytes()


@pytest.fixture
def harness(aws):
    return Harness(aws)


def notification(job_id, key=None):
    return json.dumps({"Records": [{"s3": {"object": {"key": key or f"uploads/{job_id}.webm"}}}]})


def by_size(request):
    """Return a response that contains the request's size, so each part has a different text."""
    return transcript_response(f"Part of {len(request.read())} bytes.")


def truncated_response(_request):
    usage = {"type": "tokens", "input_tokens": 1, "output_tokens": 1990, "total_tokens": 1991}
    return httpx2.Response(200, json={"text": "Ever", "usage": usage})


def part_of(record):
    return json.loads(record["body"])["part"]


def numbers(records):
    return [part_of(record)["number"] for record in records]


# Messages in the queue


def test_a_message_about_an_unknown_object_changes_nothing(harness):
    test_event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "steno"}
    for body in (
        json.dumps(test_event),
        notification("0" * 32),
        notification("x", key="uploads/..%2F..%2Fetc%2Fpasswd"),
        notification("x", key="elsewhere/file.webm"),
    ):
        assert harness.handle(harness.message(body)) == []
    assert harness.items() == []


@pytest.mark.parametrize(
    "body",
    [
        "hello",
        "[]",
        '{"Records": [{}]}',
        '{"Records": 1}',
        '{"key": 5}',
        '{"part": {}}',
        '{"halve": 1}',
    ],
)
def test_an_invalid_message_is_reported_and_does_not_affect_others(harness, body):
    job_id = harness.upload(recording("webm"))
    good, bad = harness.upload_record(job_id), harness.message(body)
    assert harness.run_worker(bad, good) == [bad["messageId"]]
    assert harness.job(job_id)["status"] == "completed"


def test_an_invalid_message_is_delivered_again_within_seconds(harness):
    """Without this short timeout, the 200 deliveries of an invalid message would take two days."""
    message = harness.message("hello")
    with visibility_timeouts(harness) as timeouts:
        assert harness.handle(message) == [message["messageId"]]
    assert timeouts == [10]


def test_the_same_message_twice_sends_each_part_once(harness):
    job_id = harness.upload(long_recording("ogg", 40))
    message = harness.upload_record(job_id)
    assert harness.handle(message) == []
    assert harness.handle(message) == []
    assert numbers(harness.part_messages()) == [0, 1]


def test_two_concurrent_deliveries_are_billed_once(aws):
    upstream, both = FakeUpstream(), threading.Barrier(2)
    harness = Harness(aws, upstream)
    job_id = harness.upload(long_recording("ogg", 40))
    message = harness.upload_record(job_id)
    with before_call(harness, "s3.HeadObject", lambda _: both.wait(60)):
        assert run_concurrently(*[lambda: harness.handle(message)] * 2) == [[], []]
    while harness.handle_part_records():
        pass
    assert harness.job(job_id)["status"] == "completed"
    assert len(upstream.calls) == 2


def test_a_message_is_delivered_again_soon_after_a_crash(harness):
    """The worker first shortens the visibility timeout, because the queue's default is longer."""
    harness.upload(recording("webm"))
    with visibility_timeouts(harness) as timeouts:
        harness.run_worker()
    recording_seconds, part_seconds = timeouts
    assert recording_seconds == part_seconds == PACING.claim_seconds


def test_the_message_is_kept_invisible_while_a_recording_is_cut(aws):
    renewals = threading.Semaphore(0)
    harness = Harness(aws, pacing=replace(PACING, claim_seconds=0.06))
    harness.upload(recording("webm"))
    events = harness.jobs.queues.sqs.meta.events
    events.register("after-call.sqs.ChangeMessageVisibility", lambda **_: renewals.release())

    def wait_for_renewals(_):
        assert all(renewals.acquire(timeout=60) for _ in range(4))

    with before_call(harness, "s3.PutObject", wait_for_renewals):
        assert harness.handle(*harness.messages()) == []


def test_a_recording_that_arrives_after_its_job_was_deleted_is_deleted(harness):
    created = harness.request_upload().json()
    assert harness.http.delete(f"/api/transcriptions/{created['id']}").status_code == 204
    harness.post(created["upload"], recording("webm"))
    assert harness.run_worker(harness.upload_record(created["id"])) == []
    assert (harness.objects(), harness.items()) == ([], [])


def test_remaining_objects_of_a_completed_job_are_deleted_on_the_next_delivery(harness):
    job_id = harness.upload(recording("webm"))
    message = harness.upload_record(job_id)
    harness.run_worker(message)
    for paths in (f"uploads/{job_id}.webm", f"parts/{job_id}/x/0000.flac"):
        harness.s3.put_object(Bucket="steno", Key=paths, Body=b"x")
    assert harness.handle(message) == []
    assert harness.objects() == [f"transcripts/{job_id}.json"]


def test_a_job_fails_after_five_failed_attempts_to_cut(harness):
    job_id = harness.upload(recording("webm"))
    message = harness.upload_record(job_id)
    with failing_calls(harness, "s3.HeadObject", ConnectionResetError()):
        for _ in range(5):
            assert harness.handle(message) == [message["messageId"]]
            assert harness.job(job_id)["status"] == "processing"
    assert harness.handle(message) == []
    assert (harness.job(job_id)["status"], harness.job(job_id)["error"]["code"]) == (
        "failed",
        "internal_error",
    )
    assert harness.http.post(f"/api/transcriptions/{job_id}/retry").status_code == 202
    assert harness.run_worker(harness.upload_record(job_id)) == []
    assert harness.job(job_id)["status"] == "completed"


def test_a_missing_recording_fails_its_job(harness):
    job_id = harness.upload(recording("webm"))
    harness.s3.delete_object(Bucket="steno", Key=f"uploads/{job_id}.webm")
    assert harness.run_worker() == []
    assert (harness.job(job_id)["status"], harness.job(job_id)["error"]["code"]) == (
        "failed",
        "not_found",
    )


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"<html>" * 100, "unsupported_media"),
        (silent_video(), "no_audio"),
        (recording("webm")[:300], None),
    ],
)
def test_an_unreadable_recording_fails_its_job_with_a_reason(harness, content, code):
    job_id = harness.upload(content)
    assert harness.run_worker() == []
    job = harness.job(job_id)
    assert job["status"] == "failed"
    assert job["error"]["detail"]
    assert code in (None, job["error"]["code"])
    assert harness.transcript(job_id).status_code == 409


def test_a_recording_longer_than_the_limit_fails(aws):
    harness = Harness(aws, max_audio_seconds=2)
    job_id = harness.upload(recording("webm"))
    harness.run_worker()
    assert harness.job(job_id)["error"]["code"] == "recording_too_large"


@pytest.mark.parametrize(("deliveries", "seconds"), [(1, 60), (4, 480), (200, 900)])
def test_in_an_outage_the_visibility_timeout_increases_with_each_delivery(
    harness, deliveries, seconds
):
    job_id = harness.upload(recording("webm"))
    message = harness.upload_record(job_id) | {
        "attributes": {"ApproximateReceiveCount": str(deliveries)}
    }
    with outage(harness, "dynamodb.UpdateItem"), visibility_timeouts(harness) as timeouts:
        assert harness.handle(message) == [message["messageId"]]
    assert timeouts == [PACING.claim_seconds, seconds]


@pytest.mark.parametrize("call", ["s3.HeadObject", "s3.PutObject", "sqs.SendMessage"])
def test_an_outage_does_not_count_as_an_attempt(harness, call):
    job_id = harness.upload(recording("webm"))
    message = harness.upload_record(job_id)
    with outage(harness, call), visibility_timeouts(harness) as timeouts:
        for _ in range(6):
            assert harness.handle(message) == [message["messageId"]]
            assert harness.job(job_id)["status"] == "processing"
    assert timeouts == [PACING.claim_seconds, 60] * 6
    assert harness.run_worker(message) == []
    assert harness.job(job_id)["status"] == "completed"


# Parts


def test_the_number_of_parts_is_stored_before_the_first_part_is_sent(harness):
    job_id = harness.upload(long_recording("ogg", 80))
    seen = []
    with before_call(
        harness, "sqs.SendMessage", lambda _: seen.append(harness.job(job_id)["progress"])
    ):
        assert numbers(harness.cut(job_id)) == [0, 1, 2]
    assert seen == [{"done": 0, "total": 3}] * 3


def test_a_gap_in_the_timestamps_makes_no_additional_parts(harness):
    job_id = harness.upload(long_recording("webm", 80, gap=300))
    harness.run_worker()
    job = harness.job(job_id)
    assert job["progress"]["done"] == job["progress"]["total"] <= 3
    assert job["duration"] == pytest.approx(380, abs=1)


def test_a_part_is_deleted_from_disk_after_it_is_sent(harness, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    paths = []

    def list_files(_):
        paths.append(sorted(path.name for path in tmp_path.glob("steno-*/*.flac")))

    job_id = harness.upload(long_recording("ogg", 80))
    with before_call(harness, "s3.PutObject", list_files):
        harness.cut(job_id)
    assert paths[-1] == ["0002.flac"]
    assert list(tmp_path.iterdir()) == []


def test_a_recording_without_speech_is_completed_without_a_request(aws):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    job_id = harness.upload(wav(bytes(32_000 * 50)))
    assert harness.cut(job_id) == []
    job = harness.job(job_id)
    assert (job["status"], job["transcript"], job["no_speech"]) == ("completed", "", True)
    assert (job["seconds_paid"], upstream.calls) == (0, [])


def test_silence_of_any_kind_is_not_billed(aws):
    """This test takes several seconds, because each recording is cut in a separate process."""
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    assert len(SILENCES) >= 10
    for silence in SILENCES.values():
        job_id = harness.upload(wav(samples(silence)))
        assert harness.handle(harness.upload_record(job_id)) == []
        job = harness.job(job_id)
        assert (job["status"], job["no_speech"], job["seconds_paid"]) == ("completed", True, 0)
    assert harness.part_messages() == []


def test_a_part_without_speech_is_not_sent(aws):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    speech = asset("two_cities.wav")[44:]
    job_id = harness.upload(wav(speech[: 32_000 * 20] + bytes(32_000 * 60) + speech[: 32_000 * 20]))
    harness.run_worker()
    job = harness.job(job_id)
    assert job["progress"]["total"] > len(upstream.calls) >= 2
    assert job["transcript"].count("Ever tried.") == len(upstream.calls)


def test_parts_of_short_and_direct_recordings_go_to_the_express_queue(harness):
    """Short recordings, and recordings sent to /api/transcribe, do not wait behind long jobs."""
    short_job, long_job = (
        harness.upload(recording("webm")),
        harness.upload(long_recording("ogg", 40)),
    )
    request = BytesIO(long_recording("ogg", 40))
    direct_job = harness.jobs.create_from_request(
        "f" * 32, request, identify(request), {}, ANONYMOUS
    ).id
    assert harness.handle(*harness.messages()) == []
    express, parts = harness.messages(harness.express_queue), harness.messages(harness.parts_queue)
    assert sorted(part_of(record)["job"] for record in express) == sorted(
        [short_job, direct_job, direct_job]
    )
    assert [part_of(record)["job"] for record in parts] == [long_job, long_job]


def test_the_message_group_is_the_caller(aws):
    harness = Harness(aws, auth="jwt", aws_lambda_function_name="api")
    groups = []
    for name in ("ada", "bob"):
        harness.http = TestClient(JwtGateway(harness.app, name))
        job_id = harness.upload(long_recording("ogg", 40))
        with before_call(
            harness,
            "sqs.SendMessage",
            lambda sent, name=name: groups.append((name, sent["MessageGroupId"])),
        ):
            assert harness.handle(harness.upload_record(job_id)) == []
    ada, bob = ([group for name, group in groups if name == caller] for caller in ("ada", "bob"))
    assert (len(ada), len(bob)) == (2, 2)
    assert (len(set(ada)), len(set(bob)), len({*ada, *bob})) == (1, 1, 2)


# Splitting a part


def test_a_part_with_a_truncated_response_is_split_in_two(aws):
    upstream = FakeUpstream(
        truncated_response, transcript_response("Ever tried."), transcript_response("Ever failed.")
    )
    harness = Harness(aws, upstream)
    job_id = harness.upload(long_recording("ogg", 30))
    harness.run_worker()
    job = harness.job(job_id)
    assert job["transcript"] == "Ever tried. Ever failed."
    assert len(upstream.calls) == 3
    # 30 s are billed for the truncated response, and 3 s for each half.
    assert job["seconds_paid"] == pytest.approx(36, abs=0.1)


def test_a_split_part_counts_as_done_and_adds_two_parts(aws):
    harness = Harness(aws, FakeUpstream(truncated_response))
    job_id = harness.upload(long_recording("ogg", 30))
    (whole,) = harness.cut(job_id)
    assert harness.handle(whole) == []
    assert harness.job(job_id)["progress"] == {"done": 0, "total": 1}
    (split,) = harness.messages()
    for _ in range(2):  # SQS may deliver a message twice
        assert harness.handle(split) == []
        assert harness.job(job_id)["progress"] == {"done": 1, "total": 3}
    assert harness.handle(whole) == []  # SQS may also redeliver the original message
    assert harness.messages(wait=0) == []
    while harness.handle_part_records():
        pass
    assert harness.job(job_id)["progress"] == {"done": 3, "total": 3}
    assert harness.handle(split) == []
    assert harness.job(job_id)["status"] == "completed"


def test_a_half_without_speech_is_not_sent(aws):
    upstream = FakeUpstream(truncated_response)
    harness = Harness(aws, upstream, pacing=replace(PACING, part_seconds=60))
    job_id = harness.upload(wav(SPOKEN + bytes(32_000 * 26)))
    harness.run_worker(harness.upload_record(job_id))
    assert harness.job(job_id)["transcript"] == "Ever tried."
    assert len(upstream.calls) == 2


def test_the_times_of_two_halves_are_those_of_the_recording(aws):
    segments = [
        {
            "type": "transcript.text.segment",
            "id": "s",
            "text": "Ever",
            "speaker": "A",
            "start": 1,
            "end": 2,
        }
    ]

    def truncated_if_long(request):
        tokens = 1990 if len(request.read()) > 250_000 else 10
        usage = {
            "type": "tokens",
            "input_tokens": 1,
            "output_tokens": tokens,
            "total_tokens": tokens + 1,
        }
        return httpx2.Response(200, json={"text": "Ever", "usage": usage, "segments": segments})

    harness = Harness(aws, httpx2.MockTransport(truncated_if_long))
    job_id = harness.upload(long_recording("ogg", 80), model="gpt-4o-transcribe-diarize")
    harness.run_worker()
    result = harness.transcript(job_id, response_format="verbose_json").json()["segments"]
    assert len(result) >= 5
    pairs = itertools.pairwise(result)
    assert all(later["start"] - earlier["start"] > 3 for earlier, later in pairs)
    assert result[-1]["start"] > 55
    assert len({segment["speaker"] for segment in result}) == len(result)


@pytest.mark.parametrize("model", ["gpt-transcribe", "whisper-1"])
def test_a_long_cyrillic_text_is_not_taken_for_a_truncated_response(aws, model):
    text = "и снова " * 525  # as long as a transcript of five minutes of Russian speech
    segment = {"id": 0, "start": 0, "end": 1, "text": text}
    upstream = FakeUpstream(transcript_response(text, segments=[segment]))
    harness = Harness(aws, upstream)
    harness.upload(long_recording("ogg", 30), model=model)
    harness.run_worker()
    assert len(upstream.calls) == 1


def test_a_split_request_of_an_ended_or_deleted_job_changes_nothing(aws):
    harness = Harness(aws, FakeUpstream(truncated_response, error_response(400)))
    job_id = harness.upload(long_recording("ogg", 60))
    whole, other = harness.cut(job_id)
    assert harness.handle(whole) == []
    (split,) = harness.messages()
    assert harness.handle(other) == []
    failed = harness.job(job_id)
    assert failed["status"] == "failed"
    assert harness.handle(split) == []
    assert harness.job(job_id) == failed
    harness.jobs.delete(job_id)
    assert harness.handle(split) == []
    assert (harness.objects(), harness.items(), harness.part_messages()) == ([], [], [])


# Generations


def test_a_form_used_again_before_all_parts_are_cut_replaces_the_recording(aws):
    """While the first recording is being cut, another worker cuts a second one."""
    upstream = httpx2.MockTransport(by_size)
    harness, other = Harness(aws, upstream), Harness(aws, upstream)
    created = harness.request_upload().json()
    harness.post(created["upload"], long_recording("ogg", 80))
    message = harness.upload_record(created["id"])
    replacements = iter([recording("webm")])

    def replace_recording(_):
        for content in replacements:
            other.post(created["upload"], content)
            other.handle(other.upload_record(created["id"]))

    with before_call(harness, "s3.PutObject", replace_recording):
        assert harness.run_worker(message) == []
    job = harness.job(created["id"])
    assert (job["status"], job["progress"]) == ("completed", {"done": 1, "total": 1})
    assert job["duration"] == pytest.approx(3, abs=0.1)
    assert harness.objects() == [f"transcripts/{created['id']}.json"]


def test_a_form_used_again_after_all_parts_are_cut_is_ignored(aws):
    harness = Harness(aws, httpx2.MockTransport(by_size))
    created = harness.request_upload().json()
    harness.post(created["upload"], recording("webm"))
    (part,) = harness.cut(created["id"])
    harness.post(created["upload"], long_recording("ogg", 80))
    assert harness.cut(created["id"]) == []
    assert harness.handle(part) == []
    assert harness.job(created["id"])["duration"] == pytest.approx(3, abs=0.1)
    assert harness.objects() == [f"transcripts/{created['id']}.json"]


def test_saved_parts_are_not_used_for_another_recording_of_the_same_length(aws):
    """The worker crashes after sending the only part. Then the form is used for a new upload."""
    harness = Harness(
        aws, FakeUpstream(transcript_response("The first."), transcript_response("The second."))
    )
    created = harness.request_upload().json()
    harness.post(created["upload"], wav(SPOKEN[: 32_000 * 5]))
    message = harness.upload_record(created["id"])
    with failing_calls(harness, "dynamodb.UpdateItem", ConnectionResetError(), ":total"):
        assert harness.handle(message) == [message["messageId"]]
    assert harness.handle_part_records()
    harness.post(created["upload"], wav(SPOKEN[32_000 * 5 : 32_000 * 10]))
    assert harness.run_worker(harness.upload_record(created["id"])) == []
    assert harness.job(created["id"])["transcript"] == "The second."


def test_after_a_crash_between_two_parts_no_part_is_billed_again(aws):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    job_id = harness.upload(long_recording("ogg", 80))
    message = harness.upload_record(job_id)
    with failing_calls(harness, "sqs.SendMessage", ConnectionResetError(), '"number": 1'):
        assert harness.handle(message) == [message["messageId"]]
    assert harness.job(job_id)["progress"]["total"] == 3
    assert harness.handle_part_records()
    assert harness.job(job_id)["progress"]["done"] == 1
    assert harness.run_worker(message) == []
    assert harness.job(job_id)["status"] == "completed"
    assert len(upstream.calls) == 3


def test_a_retry_sends_only_the_parts_that_were_not_transcribed(aws):
    upstream = FakeUpstream(transcript_response("One."), error_response(400), words="Two.")
    harness = Harness(aws, upstream)
    job_id = harness.upload(long_recording("ogg", 40))
    for part in harness.cut(job_id):
        assert harness.handle(part) == []
    failed = harness.job(job_id)
    assert (failed["status"], failed["progress"]["done"], failed["seconds_paid"]) == (
        "failed",
        1,
        3,
    )
    assert harness.http.post(f"/api/transcriptions/{job_id}/retry").status_code == 202
    (part,) = harness.cut(job_id)
    assert part_of(part)["number"] == 1
    assert harness.job(job_id)["progress"] == {"done": 1, "total": 2}
    assert harness.handle(part) == []
    job = harness.job(job_id)
    assert (job["transcript"], job["seconds_paid"]) == ("One. Two.", 6)
    assert len(upstream.calls) == 3
