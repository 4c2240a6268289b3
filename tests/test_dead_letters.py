"""dead_letters.py: the job of a message that the queue gave up fails, and can be retried."""

import io
import json

import boto3
import pytest

from handler.dead_letters import DeadLetters
from handler.job import Heard
from handler.metrics import Metrics
from tests.place import Place
from tests.recordings import recording


@pytest.fixture
def place(aws):
    return Place(aws)


def is_given_up(place, message):
    """Hands a message to the consumer of dead letters; whether it is deleted then."""
    event = {"Records": [message]}
    return DeadLetters(place.wiring).handle(event) == {"batchItemFailures": []}


def test_a_job_that_no_worker_began_fails_and_can_be_retried(place):
    identity = place.upload(recording("webm"))
    assert is_given_up(place, place.about(identity))
    job = place.job(identity)
    assert (job["status"], job["error"]["code"]) == ("failed", "internal_error")
    assert "Retry it" in job["error"]["detail"]
    assert place.http.post(f"/api/transcriptions/{identity}/retry").status_code == 202
    assert place.work(place.about(identity)) == []
    assert place.job(identity)["status"] == "completed"


def test_a_job_whose_worker_died_fails_and_keeps_what_was_transcribed(place):
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    job = place.jobs.take(f"uploads/{identity}.webm", "a worker that dies", message["messageId"])
    place.jobs.hear(job, Heard(0, 0, "Ever", seconds_paid=3))
    place.jobs.release(job)
    assert is_given_up(place, message)
    failed = place.job(identity)
    assert (failed["status"], failed["transcript"], failed["seconds_paid"]) == ("failed", "Ever", 3)
    assert f"uploads/{identity}.webm" in place.objects()


def test_a_job_that_is_worked_on_is_left_to_its_worker_and_the_letter_comes_again(place):
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    job = place.jobs.take(f"uploads/{identity}.webm", "a worker", "another message")
    assert not is_given_up(place, message)
    assert place.job(identity)["status"] == "processing"
    place.jobs.renew(job)  # it still has the lease


def test_a_letter_about_a_completed_job_changes_nothing_and_leaves_no_recording(place):
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    assert place.work(message) == []
    left_by_a_crash = f"uploads/{identity}.webm"
    place.s3.put_object(Bucket="steno", Key=left_by_a_crash, Body=b"x")
    assert is_given_up(place, message)
    assert place.job(identity)["status"] == "completed"
    assert [key for key in place.objects() if identity in key] == [f"transcripts/{identity}.json"]


def test_a_letter_about_a_deleted_job_leaves_no_recording(place):
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    table = boto3.resource("dynamodb").Table("steno")
    table.delete_item(Key={"pk": f"job#{identity}", "sk": "job"})
    assert is_given_up(place, message)
    assert not any(identity in key for key in place.objects())


def test_a_job_that_failed_keeps_its_own_reason(place):
    identity = place.upload(b"<html>" * 100)
    message = place.about(identity)
    assert place.work(message) == []
    assert is_given_up(place, message)
    assert place.job(identity)["error"]["code"] == "unsupported_media"


@pytest.mark.parametrize("body", ["hello", "[]", '{"Records": 1}', '{"key": 5}'])
def test_a_letter_that_makes_no_sense_is_logged_counted_and_dropped(place, body, caplog):
    place.wiring.metrics = Metrics(out := io.StringIO())
    assert is_given_up(place, {"messageId": "1", "body": body})
    assert body in caplog.text
    assert json.loads(out.getvalue())["Failures"] == 1


def test_a_job_that_is_given_up_is_counted_as_a_failure(place):
    place.wiring.metrics = Metrics(out := io.StringIO())
    assert is_given_up(place, place.about(place.upload(recording("webm"))))
    assert [json.loads(line)["Code"] for line in out.getvalue().splitlines()] == ["internal_error"]
