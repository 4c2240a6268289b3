"""Tests of finish.py: completing a job only once, deleting its data and settling the budget."""

import threading

import httpx2
import pysubs2
import pytest

from tests.fake_upstream import FakeUpstream, error_response, transcript_response
from tests.harness import Harness, before_call, failing_calls, run_concurrently
from tests.samples import asset, long_recording, recording, wav


@pytest.fixture
def harness(aws):
    return Harness(aws)


def items(harness, prefix):
    """Return the items whose partition key begins with `prefix`."""
    return [item for item in harness.items() if item["pk"].startswith(prefix)]


def spent(harness):
    """Return the seconds spent today, and whether any reservation is unsettled."""
    (item,) = items(harness, "spent#")
    return float(item["seconds"]), "unsettled" in item


def diarized(*speakers):
    """Return an upstream response that contains one word from each speaker."""
    segments = [
        {
            "type": "transcript.text.segment",
            "id": "s",
            "text": "Ever",
            "speaker": name,
            "start": at,
            "end": at + 0.5,
        }
        for at, name in enumerate(speakers)
    ]
    usage = {"type": "tokens", "input_tokens": 1, "output_tokens": 10, "total_tokens": 11}
    return httpx2.Response(
        200, json={"text": " ".join(["Ever"] * len(speakers)), "usage": usage, "segments": segments}
    )


def speakers(harness, job_id):
    segments = harness.transcript(job_id, response_format="verbose_json").json()["segments"]
    return [segment["speaker"] for segment in segments]


# Joining the parts


def test_parts_are_joined_in_the_order_of_the_recording(aws):
    harness = Harness(
        aws,
        FakeUpstream(
            transcript_response("three."), transcript_response("One"), transcript_response("two")
        ),
    )
    job_id = harness.upload(long_recording("ogg", 80))
    first, second, third = harness.cut(job_id)
    for part in (third, first, second):
        assert harness.handle(part) == []
    job = harness.job(job_id)
    assert (job["status"], job["transcript"]) == ("completed", "One two three.")
    assert (job["progress"], job["seconds_paid"]) == ({"done": 3, "total": 3}, 9)
    assert job["duration"] == pytest.approx(80, abs=0.1)


def test_times_refer_to_the_whole_recording_in_every_format(aws):
    segment = {"id": 0, "start": 1.0, "end": 2.5, "text": "Ever tried."}
    harness = Harness(
        aws,
        httpx2.MockTransport(
            lambda _: transcript_response("Ever tried.", segments=[segment], duration=20.0)
        ),
    )
    job_id = harness.upload(long_recording("ogg", 80), model="whisper-1")
    harness.run_worker()
    whole = harness.transcript(job_id, response_format="verbose_json").json()
    starts = [segment["start"] for segment in whole["segments"]]
    assert starts[0] == pytest.approx(1.0, abs=0.01)
    assert starts[1] == pytest.approx(27.7, abs=12.1)
    assert starts[2] == pytest.approx(54.3, abs=12.1)
    for name in ("srt", "vtt"):
        text = harness.transcript(job_id, response_format=name).text
        assert [
            cue.start / 1000 for cue in pysubs2.SSAFile.from_string(text, name)
        ] == pytest.approx(starts, abs=0.001)
    assert (
        harness.transcript(job_id, response_format="text").text
        == "Ever tried. Ever tried. Ever tried.\n"
    )


def test_speakers_of_different_parts_have_different_names(aws):
    harness = Harness(aws, FakeUpstream(diarized("A", "B"), diarized("A")))
    job_id = harness.upload(long_recording("ogg", 40), model="gpt-4o-transcribe-diarize")
    harness.run_worker()
    assert speakers(harness, job_id) == ["1-A", "1-B", "2-A"]


def test_speakers_of_the_only_part_keep_their_names(aws):
    harness = Harness(aws, FakeUpstream(diarized("A", "B")))
    job_id = harness.upload(recording("webm"), model="gpt-4o-transcribe-diarize")
    harness.run_worker()
    assert speakers(harness, job_id) == ["A", "B"]


def test_speakers_keep_their_names_if_the_other_parts_have_no_speech(aws):
    upstream = FakeUpstream(diarized("A", "B"))
    harness = Harness(aws, upstream)
    speech = asset("two_cities.wav")[44 : 44 + 32_000 * 10]
    job_id = harness.upload(wav(bytes(32_000 * 40) + speech), model="gpt-4o-transcribe-diarize")
    harness.run_worker()
    assert harness.job(job_id)["progress"]["total"] > len(upstream.calls) == 1
    assert speakers(harness, job_id) == ["A", "B"]


def test_a_recording_without_text_in_its_parts_has_an_empty_transcript(aws):
    harness = Harness(aws, FakeUpstream(words=""))
    job_id = harness.upload(long_recording("ogg", 40))
    harness.run_worker()
    job = harness.job(job_id)
    assert (job["status"], job["transcript"], job["no_speech"], job["seconds_paid"]) == (
        "completed",
        "",
        True,
        6,
    )


# Completing a job once


def test_two_concurrent_deliveries_complete_a_job_once(aws, caplog):
    """The worker crashes before completing the job. Then both messages arrive concurrently."""
    caplog.set_level("INFO", "steno")
    upstream, both = FakeUpstream(), threading.Barrier(2)
    harness = Harness(aws, upstream, daily_seconds=1000)
    job_id = harness.upload(long_recording("ogg", 40))
    first, second = harness.cut(job_id)
    assert harness.handle(first) == []
    with failing_calls(harness, "s3.PutObject", ConnectionResetError()):
        assert harness.handle(second) == [second["messageId"]]
    with before_call(harness, "s3.PutObject", lambda _: both.wait(60)):
        assert run_concurrently(lambda: harness.handle(first), lambda: harness.handle(second)) == [
            [],
            [],
        ]
    job = harness.job(job_id)
    assert (job["status"], job["transcript"]) == ("completed", "Ever tried. Ever tried.")
    assert caplog.text.count("was completed") == 1
    assert spent(harness) == (6, False)
    assert len(upstream.calls) == 2


@pytest.mark.parametrize(
    ("call", "write"),
    [
        ("s3.PutObject", "transcripts/"),
        ("dynamodb.UpdateItem", "'completed'"),
        ("dynamodb.UpdateItem", "DELETE unsettled"),
        ("s3.DeleteObject", "uploads/"),
        ("s3.DeleteObject", "parts/"),
        ("dynamodb.DeleteItem", "parts#"),
    ],
)
def test_a_crash_while_a_job_is_completed_is_recovered(aws, call, write):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream, daily_seconds=1000)
    job_id = harness.upload(recording("webm"))
    (part,) = harness.cut(job_id)
    with failing_calls(harness, call, ConnectionResetError(), write):
        assert harness.handle(part) == [part["messageId"]]
    assert harness.handle(part) == []
    assert (harness.job(job_id)["status"], harness.transcript(job_id).json()["transcript"]) == (
        "completed",
        "Ever tried.",
    )
    assert harness.objects() == [f"transcripts/{job_id}.json"]
    assert [item["sk"] for item in items(harness, "job#")] == ["job"]
    assert spent(harness) == (3, False)
    assert len(upstream.calls) == 1


# Cleaning up


def test_only_the_transcript_and_the_job_remain_after_completion(harness):
    job_id = harness.upload(long_recording("ogg", 40))
    parts = harness.cut(job_id)
    assert len(harness.objects()) == 3  # the recording and two parts
    for part in parts:
        assert harness.handle(part) == []
    assert harness.objects() == [f"transcripts/{job_id}.json"]
    assert [item["sk"] for item in items(harness, "job#")] == ["job"]


def test_a_failed_job_keeps_its_recording_and_saved_parts_but_no_audio_of_parts(aws):
    harness = Harness(
        aws, FakeUpstream(transcript_response("One."), error_response(400)), daily_seconds=1000
    )
    job_id = harness.upload(long_recording("ogg", 40))
    for part in harness.cut(job_id):
        assert harness.handle(part) == []
    job = harness.job(job_id)
    assert (job["status"], job["transcript"], job["progress"]["done"]) == ("failed", "One.", 1)
    assert harness.objects() == [f"uploads/{job_id}.webm"]
    assert spent(harness) == (3, False)


def test_a_failed_job_keeps_the_first_error(aws):
    """The upstream rejects two parts at the same time."""
    both = threading.Barrier(2)

    def refuse(status):
        def reply(_):
            both.wait(60)
            return error_response(status)

        return reply

    harness = Harness(aws, FakeUpstream(refuse(400), refuse(401)))
    job_id = harness.upload(long_recording("ogg", 40))
    first, second = harness.cut(job_id)
    assert run_concurrently(lambda: harness.handle(first), lambda: harness.handle(second)) == [
        [],
        [],
    ]
    failed = harness.job(job_id)
    assert failed["error"]["code"] in ("unreadable_recording", "upstream_credentials")
    assert harness.handle(first) == harness.handle(second) == []
    assert harness.job(job_id) == failed


def test_a_transcript_is_reused_for_the_same_recording_in_another_job(aws):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    content = long_recording("ogg", 40)
    for _ in range(2):
        job_id = harness.upload(content)
        harness.run_worker(harness.upload_record(job_id))
        job = harness.job(job_id)
        assert (job["status"], job["transcript"]) == ("completed", "Ever tried. Ever tried.")
    assert (job["seconds_paid"], len(upstream.calls)) == (0, 2)


def test_results_of_a_replaced_recording_are_not_kept(aws):
    """A second recording is uploaded after one part of the first has been transcribed."""
    harness = Harness(aws, FakeUpstream(transcript_response("A secret."), words="Ever tried."))
    created = harness.request_upload().json()
    harness.post(created["upload"], long_recording("ogg", 40))
    message = harness.upload_record(created["id"])
    with failing_calls(harness, "dynamodb.UpdateItem", ConnectionResetError(), ":total"):
        assert harness.handle(message) == [message["messageId"]]
    first, _second = harness.part_messages()
    assert harness.handle(first) == []
    harness.post(created["upload"], recording("webm"))
    assert harness.run_worker(harness.upload_record(created["id"])) == []
    assert harness.job(created["id"])["transcript"] == "Ever tried."
    assert harness.http.delete(f"/api/transcriptions/{created['id']}").status_code == 204
    assert harness.items() == []


# The budget


def test_the_budget_is_reserved_once_for_all_deliveries_of_a_recording(aws):
    harness = Harness(aws, daily_seconds=1000)
    job_id = harness.upload(long_recording("ogg", 80))
    message = harness.upload_record(job_id)
    with failing_calls(harness, "dynamodb.UpdateItem", ConnectionResetError(), ":total"):
        for _ in range(2):
            assert harness.handle(message) == [message["messageId"]]
            assert spent(harness) == (pytest.approx(80, abs=0.1), True)
    assert harness.handle(message) == []
    assert spent(harness) == (pytest.approx(80, abs=0.1), True)
    assert len(harness.part_messages()) == 9


def test_a_recording_over_the_daily_budget_is_rejected_before_anything_is_billed(aws):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream, daily_seconds=60)
    job_id = harness.upload(long_recording("ogg", 80))
    assert harness.run_worker() == []
    job = harness.job(job_id)
    assert (job["status"], job["error"]["code"], job["seconds_paid"]) == (
        "failed",
        "budget_exhausted",
        0,
    )
    assert upstream.calls == []
    assert [item["sk"] for item in harness.items() if float(item.get("seconds", 0))] == []


def test_the_budget_is_settled_once_for_all_deliveries(aws):
    harness = Harness(aws, daily_seconds=1000)
    job_ids = [harness.upload(recording("webm"), prompt=str(number)) for number in range(2)]
    messages = harness.messages()
    assert harness.handle(*messages) == []
    assert spent(harness) == (pytest.approx(6, abs=0.1), True)
    first, second = parts = harness.part_messages()
    assert harness.handle(first) == []
    for _ in range(2):
        assert harness.handle(first, *messages) == []
    # 3 s are spent, and 3 s are reserved for the other job.
    assert spent(harness) == (pytest.approx(6, abs=0.1), True)
    assert harness.handle(second) == []
    for _ in range(2):
        assert harness.handle(*parts, *messages) == []
    assert spent(harness) == (6, False)
    assert [harness.job(job_id)["status"] for job_id in job_ids] == ["completed"] * 2


def test_a_retry_reserves_only_the_parts_that_it_sends(aws):
    harness = Harness(
        aws, FakeUpstream(transcript_response("One."), error_response(400)), daily_seconds=1000
    )
    job_id = harness.upload(long_recording("ogg", 40))
    for part in harness.cut(job_id):
        assert harness.handle(part) == []
    assert harness.http.post(f"/api/transcriptions/{job_id}/retry").status_code == 202
    (part,) = harness.cut(job_id)
    seconds, is_reserved = spent(harness)
    assert is_reserved
    assert 3 + 8 < seconds < 3 + 32
    assert harness.handle(part) == []
    assert spent(harness) == (6, False)


def test_a_request_that_may_have_been_billed_is_spent_when_its_job_fails(aws):
    harness = Harness(aws, FakeUpstream(*[httpx2.ReadError("reset")] * 3), daily_seconds=1000)
    job_id = harness.upload(recording("ogg"))
    harness.run_worker()
    assert harness.job(job_id)["status"] == "failed"
    assert spent(harness) == (pytest.approx(9, abs=0.1), False)


# Deleted jobs


def assert_nothing_is_left(harness):
    """Deliver all messages, then check that only budget and upstream items are still stored."""
    while records := harness.messages(wait=0) + harness.part_messages():
        assert harness.handle(*records) == []
    assert harness.objects() == []
    assert {item["pk"].partition("#")[0] for item in harness.items()} <= {"spent", "upstream"}
    assert not any("unsettled" in item for item in harness.items())


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (error_response(400), "failed"),
        (error_response(429, retry_after="0"), "processing"),
        (None, "completed"),
    ],
)
def test_delete_leaves_nothing_in_any_status(aws, reply, status):
    harness = Harness(aws, FakeUpstream(*([reply] if reply else [])), daily_seconds=1000)
    job_id = harness.upload(recording("webm"))
    records = [harness.upload_record(job_id)]
    assert harness.handle(*records) == []
    records += harness.part_messages()
    harness.handle(records[1])
    assert harness.job(job_id)["status"] == status
    assert harness.http.delete(f"/api/transcriptions/{job_id}").status_code == 204
    assert_nothing_is_left(harness)
    assert harness.handle(*records) == []  # SQS may deliver messages again
    assert_nothing_is_left(harness)


def test_delete_leaves_nothing_of_a_job_that_waits_for_its_retry(aws):
    harness = Harness(
        aws, FakeUpstream(transcript_response("One."), error_response(400)), daily_seconds=1000
    )
    job_id = harness.upload(long_recording("ogg", 40))
    harness.run_worker()
    assert harness.http.post(f"/api/transcriptions/{job_id}/retry").status_code == 202
    assert harness.http.delete(f"/api/transcriptions/{job_id}").status_code == 204
    assert_nothing_is_left(harness)


# The AWS calls made for a job whose only part is split in two. Each tuple contains a call, a text
# in the call's parameters, and whether the call is always tested. If not, it is tested only with
# `-m exhaustive`.
CALLS = [
    ("s3.HeadObject", "uploads/", False),
    ("dynamodb.UpdateItem", ":new", False),
    ("dynamodb.UpdateItem", ":parts", False),
    ("dynamodb.UpdateItem", "reserved_on =", False),
    ("dynamodb.UpdateItem", "ADD seconds", False),
    ("s3.PutObject", "parts/", True),
    ("sqs.SendMessage", '"part"', False),
    ("dynamodb.UpdateItem", ":total", False),
    ("dynamodb.UpdateItem", "paid#", False),
    ("s3.HeadObject", "parts/", False),
    ("dynamodb.PutItem", "'crashes'", True),
    ("dynamodb.PutItem", "'paid'", False),
    ("sqs.SendMessage", '"halve"', False),
    ("dynamodb.PutItem", "'heard'", True),
    ("dynamodb.UpdateItem", ":pieces", True),
    ("s3.PutObject", "/10000.flac", False),
    ("sqs.SendMessage", '"number": 10001', True),
    ("dynamodb.PutItem", "#10001", False),
    ("dynamodb.UpdateItem", "{10001}", False),
    ("s3.PutObject", "transcripts/", False),
    ("dynamodb.UpdateItem", "'completed'", True),
    ("dynamodb.UpdateItem", "DELETE unsettled", False),
    ("s3.DeleteObject", "uploads/", True),
    ("dynamodb.DeleteItem", "parts#", False),
]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        pytest.param(*call, marks=[] if is_always_tested else pytest.mark.exhaustive)
        for *call, is_always_tested in CALLS
    ],
)
def test_delete_before_any_aws_call_leaves_nothing(aws, call, text):
    usage = {"type": "tokens", "input_tokens": 1, "output_tokens": 1990, "total_tokens": 1991}
    truncated = {"text": "Ever", "usage": usage}
    harness = Harness(aws, FakeUpstream(httpx2.Response(200, json=truncated)), daily_seconds=1000)
    other = Harness(aws, daily_seconds=1000)
    job_id = harness.upload(wav(asset("two_cities.wav")[44:][: 32_000 * 22]))
    deleted = []

    def delete_once(params):
        if text in str(params) and not deleted:
            deleted.append(other.http.delete(f"/api/transcriptions/{job_id}").status_code)

    with before_call(harness, call, delete_once):
        assert harness.run_worker() == []
    assert deleted == [204]
    assert_nothing_is_left(harness)


@pytest.mark.parametrize(
    "reply",
    [transcript_response("Ever tried."), error_response(400), error_response(429, retry_after="0")],
)
def test_delete_while_a_part_is_transcribed_leaves_nothing(aws, reply):
    def delete_then_respond(_):
        harness.jobs.delete(job_id)
        return reply

    harness = Harness(aws, FakeUpstream(delete_then_respond), daily_seconds=1000)
    job_id = harness.upload(recording("webm"))
    assert harness.run_worker() == []
    assert_nothing_is_left(harness)
