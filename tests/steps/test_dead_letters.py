"""dead_letters.py: the job of a message that the queue gave up fails, and can be retried."""

import io
import json
from dataclasses import replace

import httpx2
import pytest

from handler.aws.metrics import Metrics
from tests.false_upstream import FalseUpstream
from tests.place import PACING, Place
from tests.samples import long_recording, recording


@pytest.fixture
def place(aws):
    return Place(aws)


def is_given_up(place, *messages):
    """Hand messages to the function for dead letters. Return whether they are deleted then."""
    return place.worker.handle_dead_letters({"Records": list(messages)}) == {
        "batchItemFailures": []
    }


def cut_off(_request):
    usage = {"type": "tokens", "input_tokens": 1, "output_tokens": 1990, "total_tokens": 1991}
    return httpx2.Response(200, json={"text": "Ever", "usage": usage})


def test_a_job_that_was_never_begun_fails_and_can_be_retried(place):
    identity = place.upload(recording("webm"))
    assert is_given_up(place, place.about(identity))
    job = place.job(identity)
    assert (job["status"], job["error"]["code"]) == ("failed", "internal_error")
    assert "Retry it" in job["error"]["detail"]
    assert place.http.post(f"/api/transcriptions/{identity}/retry").status_code == 202
    assert place.work(place.about(identity)) == []
    assert place.job(identity)["status"] == "completed"


def test_a_letter_about_a_part_fails_the_job_which_keeps_what_was_transcribed(place):
    identity = place.upload(long_recording("ogg", 50))
    first, second, *_ = place.cut(identity)
    assert place.handle(first) == []
    assert is_given_up(place, second)
    failed = place.job(identity)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "internal_error")
    assert (failed["transcript"], failed["seconds_paid"]) == ("Ever tried.", 3)
    assert [key for key in place.objects() if identity in key] == [f"uploads/{identity}.webm"]


def test_a_letter_about_a_part_to_be_halved_fails_the_job(aws):
    place = Place(aws, FalseUpstream(cut_off), pacing=replace(PACING, part_seconds=30))
    identity = place.upload(long_recording("ogg", 30))
    (whole,) = place.cut(identity)
    assert place.handle(whole) == []
    (split,) = place.messages()
    assert is_given_up(place, split)
    assert place.job(identity)["status"] == "failed"


def test_a_letter_about_a_part_whose_pieces_were_not_all_sent_fails_the_job(aws):
    """No other message would send them."""
    place = Place(aws, FalseUpstream(cut_off), pacing=replace(PACING, part_seconds=30))
    identity = place.upload(long_recording("ogg", 30))
    (whole,) = place.cut(identity)
    assert place.handle(whole) == []
    (split,) = place.messages()

    def stumble(**_):
        raise ValueError("as a bug would")

    events = place.jobs.queues.sqs.meta.events
    events.register("provide-client-params.sqs.SendMessage", stumble)
    assert place.handle(split) == [split["messageId"]]
    events.unregister("provide-client-params.sqs.SendMessage", stumble)
    assert is_given_up(place, split)
    assert place.job(identity)["status"] == "failed"


def test_a_letter_about_a_recording_whose_parts_are_all_sent_leaves_the_job_to_them(place):
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    assert place.handle(message) == []
    assert is_given_up(place, message)
    assert place.job(identity)["status"] == "processing"
    assert place.work_on_parts()
    assert place.job(identity)["status"] == "completed"


def test_a_letter_about_a_part_that_is_saved_leaves_the_job_to_the_others(place):
    identity = place.upload(long_recording("ogg", 50))
    first, *others = place.cut(identity)
    assert place.handle(first) == []
    assert is_given_up(place, first)
    for other in others:
        assert place.handle(other) == []
    assert place.job(identity)["status"] == "completed"


def test_a_letter_about_a_part_of_an_earlier_try_changes_nothing(place):
    identity = place.upload(recording("webm"))
    (part,) = place.cut(identity)
    assert is_given_up(place, part)
    assert place.http.post(f"/api/transcriptions/{identity}/retry").status_code == 202
    for status in ("queued", "processing"):
        assert is_given_up(place, part)
        assert place.job(identity)["status"] == status
        if status == "queued":
            place.cut(identity)


@pytest.mark.parametrize("dies_before", ["s3.PutObject", "dynamodb.PutItem"])
def test_a_job_whose_parts_are_saved_but_that_cannot_be_finished_fails(place, dies_before):
    """No other message would end it."""
    identity = place.upload(recording("webm"))
    (part,) = place.cut(identity)

    def stumble(params, **_):
        if (
            params.get("Key", "").startswith("transcripts/")
            or params.get("Item", {}).get("holder") == identity
        ):
            raise ValueError("as a bug would")

    service = place.jobs.objects.client if dies_before == "s3.PutObject" else place.jobs.client
    service.meta.events.register(f"provide-client-params.{dies_before}", stumble)
    assert place.handle(part) == [part["messageId"]]
    assert is_given_up(place, part)
    assert place.job(identity)["status"] == "failed"
    service.meta.events.unregister(f"provide-client-params.{dies_before}", stumble)
    place.http.post(f"/api/transcriptions/{identity}/retry")
    place.work(place.about(identity))
    assert (place.job(identity)["status"], place.job(identity)["seconds_paid"]) == ("completed", 3)


def test_a_letter_about_a_completed_job_changes_nothing_and_leaves_no_recording(place):
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    assert place.work(message) == []
    left_by_a_crash = f"uploads/{identity}.webm"
    place.s3.put_object(Bucket="steno", Key=left_by_a_crash, Body=b"x")
    assert is_given_up(place, message)
    assert place.job(identity)["status"] == "completed"
    assert [key for key in place.objects() if identity in key] == [f"transcripts/{identity}.json"]


def test_letters_about_a_deleted_job_leave_nothing(place):
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    assert place.handle(message) == []
    (part,) = place.part_messages()
    place.jobs.client.delete_item(TableName="steno", Key={"pk": f"job#{identity}", "sk": "job"})
    assert is_given_up(place, part)
    assert place.objects() == [f"uploads/{identity}.webm"]
    assert is_given_up(place, message)
    assert place.objects() == []


def test_a_job_that_failed_keeps_its_own_reason(place):
    identity = place.upload(b"<html>" * 100)
    message = place.about(identity)
    assert place.work(message) == []
    assert is_given_up(place, message)
    assert place.job(identity)["error"]["code"] == "unsupported_media"


@pytest.mark.parametrize(
    "body", ["hello", "[]", '{"Records": 1}', '{"key": 5}', '{"part": 1}', '{"halve": {}}']
)
def test_a_letter_that_makes_no_sense_is_logged_counted_and_dropped(aws, body, caplog):
    place = Place(aws, metrics=Metrics(out := io.StringIO()))
    assert is_given_up(place, place.message(body))
    assert body in caplog.text
    assert json.loads(out.getvalue())["Failures"] == 1


def test_a_job_that_is_given_up_is_counted_as_a_failure(aws):
    place = Place(aws, metrics=Metrics(out := io.StringIO()))
    assert is_given_up(place, place.about(place.upload(recording("webm"))))
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["Code"] for line in told if "Failures" in line] == ["internal_error"]
    assert [line["JobsFailed"] for line in told if "JobsFailed" in line] == [1]


def test_a_letter_that_meets_an_outage_comes_again(place):
    identity = place.upload(recording("webm"))
    message = place.about(identity)

    def stumble(**_):
        raise ConnectionResetError

    events = place.jobs.client.meta.events
    events.register("provide-client-params.dynamodb.UpdateItem", stumble)
    assert not is_given_up(place, message)
    events.unregister("provide-client-params.dynamodb.UpdateItem", stumble)
    assert is_given_up(place, message)
    assert place.job(identity)["status"] == "failed"
