"""Tests of dead_letters.py: the job of a dead letter is set to `failed` and can be retried."""

import io
import json
from dataclasses import replace

import httpx2
import pytest

from handler.aws.metrics import Metrics
from tests.fake_upstream import FakeUpstream
from tests.harness import PACING, Harness
from tests.samples import long_recording, recording


@pytest.fixture
def harness(aws):
    return Harness(aws)


def handle_dead_letters(harness, *messages):
    """Pass messages to the dead-letter function. Return whether it processed all of them."""
    return harness.worker.handle_dead_letters({"Records": list(messages)}) == {
        "batchItemFailures": []
    }


def truncated_response(_request):
    usage = {"type": "tokens", "input_tokens": 1, "output_tokens": 1990, "total_tokens": 1991}
    return httpx2.Response(200, json={"text": "Ever", "usage": usage})


def test_a_job_that_was_never_started_fails_and_can_be_retried(harness):
    job_id = harness.upload(recording("webm"))
    assert handle_dead_letters(harness, harness.upload_record(job_id))
    job = harness.job(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "internal_error")
    assert "Retry it" in job["error"]["detail"]
    assert harness.http.post(f"/api/transcriptions/{job_id}/retry").status_code == 202
    assert harness.run_worker(harness.upload_record(job_id)) == []
    assert harness.job(job_id)["status"] == "completed"


def test_a_dead_letter_of_a_part_fails_the_job_and_keeps_transcribed_parts(harness):
    job_id = harness.upload(long_recording("ogg", 50))
    first, second, *_ = harness.cut(job_id)
    assert harness.handle(first) == []
    assert handle_dead_letters(harness, second)
    failed = harness.job(job_id)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "internal_error")
    assert (failed["transcript"], failed["seconds_paid"]) == ("Ever tried.", 3)
    assert [key for key in harness.objects() if job_id in key] == [f"uploads/{job_id}.webm"]


def test_a_dead_letter_of_a_split_request_fails_the_job(aws):
    harness = Harness(
        aws, FakeUpstream(truncated_response), pacing=replace(PACING, part_seconds=30)
    )
    job_id = harness.upload(long_recording("ogg", 30))
    (whole,) = harness.cut(job_id)
    assert harness.handle(whole) == []
    (split,) = harness.messages()
    assert handle_dead_letters(harness, split)
    assert harness.job(job_id)["status"] == "failed"


def test_a_dead_letter_of_a_split_request_whose_pieces_were_not_all_sent_fails_the_job(aws):
    """The worker sends the missing pieces only if it receives this message again."""
    harness = Harness(
        aws, FakeUpstream(truncated_response), pacing=replace(PACING, part_seconds=30)
    )
    job_id = harness.upload(long_recording("ogg", 30))
    (whole,) = harness.cut(job_id)
    assert harness.handle(whole) == []
    (split,) = harness.messages()

    def fail(**_):
        raise ValueError("simulated bug")

    events = harness.jobs.queues.sqs.meta.events
    events.register("provide-client-params.sqs.SendMessage", fail)
    assert harness.handle(split) == [split["messageId"]]
    events.unregister("provide-client-params.sqs.SendMessage", fail)
    assert handle_dead_letters(harness, split)
    assert harness.job(job_id)["status"] == "failed"


def test_a_dead_letter_of_a_recording_whose_parts_are_all_sent_changes_nothing(harness):
    job_id = harness.upload(recording("webm"))
    message = harness.upload_record(job_id)
    assert harness.handle(message) == []
    assert handle_dead_letters(harness, message)
    assert harness.job(job_id)["status"] == "processing"
    assert harness.handle_part_records()
    assert harness.job(job_id)["status"] == "completed"


def test_a_dead_letter_of_a_saved_part_changes_nothing(harness):
    job_id = harness.upload(long_recording("ogg", 50))
    first, *others = harness.cut(job_id)
    assert harness.handle(first) == []
    assert handle_dead_letters(harness, first)
    for other in others:
        assert harness.handle(other) == []
    assert harness.job(job_id)["status"] == "completed"


def test_a_dead_letter_of_a_part_of_an_earlier_generation_changes_nothing(harness):
    job_id = harness.upload(recording("webm"))
    (part,) = harness.cut(job_id)
    assert handle_dead_letters(harness, part)
    assert harness.http.post(f"/api/transcriptions/{job_id}/retry").status_code == 202
    for status in ("queued", "processing"):
        assert handle_dead_letters(harness, part)
        assert harness.job(job_id)["status"] == status
        if status == "queued":
            harness.cut(job_id)


@pytest.mark.parametrize("dies_before", ["s3.PutObject", "dynamodb.PutItem"])
def test_a_job_with_all_parts_saved_that_cannot_be_finished_fails(harness, dies_before):
    """No other message would cause the worker to finish the job."""
    job_id = harness.upload(recording("webm"))
    (part,) = harness.cut(job_id)

    def fail(params, **_):
        if (
            params.get("Key", "").startswith("transcripts/")
            or params.get("Item", {}).get("holder") == job_id
        ):
            raise ValueError("simulated bug")

    service = harness.jobs.objects.client if dies_before == "s3.PutObject" else harness.jobs.client
    service.meta.events.register(f"provide-client-params.{dies_before}", fail)
    assert harness.handle(part) == [part["messageId"]]
    assert handle_dead_letters(harness, part)
    assert harness.job(job_id)["status"] == "failed"
    service.meta.events.unregister(f"provide-client-params.{dies_before}", fail)
    harness.http.post(f"/api/transcriptions/{job_id}/retry")
    harness.run_worker(harness.upload_record(job_id))
    assert (harness.job(job_id)["status"], harness.job(job_id)["seconds_paid"]) == ("completed", 3)


def test_a_dead_letter_of_a_completed_job_deletes_only_its_recording(harness):
    job_id = harness.upload(recording("webm"))
    message = harness.upload_record(job_id)
    assert harness.run_worker(message) == []
    recording_key = f"uploads/{job_id}.webm"
    harness.s3.put_object(Bucket="steno", Key=recording_key, Body=b"x")
    assert handle_dead_letters(harness, message)
    assert harness.job(job_id)["status"] == "completed"
    assert [key for key in harness.objects() if job_id in key] == [f"transcripts/{job_id}.json"]


def test_dead_letters_of_a_deleted_job_delete_its_objects(harness):
    job_id = harness.upload(recording("webm"))
    message = harness.upload_record(job_id)
    assert harness.handle(message) == []
    (part,) = harness.part_messages()
    harness.jobs.client.delete_item(TableName="steno", Key={"pk": f"job#{job_id}", "sk": "job"})
    assert handle_dead_letters(harness, part)
    assert harness.objects() == [f"uploads/{job_id}.webm"]
    assert handle_dead_letters(harness, message)
    assert harness.objects() == []


def test_a_failed_job_keeps_its_error(harness):
    job_id = harness.upload(b"<html>" * 100)
    message = harness.upload_record(job_id)
    assert harness.run_worker(message) == []
    assert handle_dead_letters(harness, message)
    assert harness.job(job_id)["error"]["code"] == "unsupported_media"


@pytest.mark.parametrize(
    "body", ["hello", "[]", '{"Records": 1}', '{"key": 5}', '{"part": 1}', '{"halve": {}}']
)
def test_an_invalid_dead_letter_is_logged_counted_and_deleted(aws, body, caplog):
    harness = Harness(aws, metrics=Metrics(out := io.StringIO()))
    assert handle_dead_letters(harness, harness.message(body))
    assert body in caplog.text
    assert json.loads(out.getvalue())["Failures"] == 1


def test_a_job_that_fails_by_a_dead_letter_is_counted(aws):
    harness = Harness(aws, metrics=Metrics(out := io.StringIO()))
    assert handle_dead_letters(harness, harness.upload_record(harness.upload(recording("webm"))))
    metrics = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["Code"] for line in metrics if "Failures" in line] == ["internal_error"]
    assert [line["JobsFailed"] for line in metrics if "JobsFailed" in line] == [1]


def test_a_dead_letter_is_delivered_again_after_an_outage(harness):
    job_id = harness.upload(recording("webm"))
    message = harness.upload_record(job_id)

    def fail(**_):
        raise ConnectionResetError

    events = harness.jobs.client.meta.events
    events.register("provide-client-params.dynamodb.UpdateItem", fail)
    assert not handle_dead_letters(harness, message)
    events.unregister("provide-client-params.dynamodb.UpdateItem", fail)
    assert handle_dead_letters(harness, message)
    assert harness.job(job_id)["status"] == "failed"
