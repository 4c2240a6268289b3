"""stored.py: a reader of stored data ignores the fields that only a later version has."""

import json
import zlib
from dataclasses import asdict

import boto3
import pytest

from handler.job import Heard, Job, from_item, heard_from, packed, to_item
from handler.ledger import Answer, Ledger
from handler.transcript import Segment, Transcript
from tests.place import Place
from tests.recordings import recording

TRANSCRIPT = Transcript("Ever tried.", "gpt-transcribe", (Segment(0.1, 1.4, "Ever tried."),))
LATER = {"added_later": {"by": ["another version"]}}


def of_a_later_version(told):
    """The same data with an unknown field in it, and one in each segment."""
    segments = [{**segment, **LATER} for segment in told["segments"]]
    return json.dumps({**told, **LATER, "segments": segments}).encode()


def test_a_transcript_with_unknown_fields_is_read():
    assert Transcript.from_json(of_a_later_version(asdict(TRANSCRIPT))) == TRANSCRIPT


def test_a_part_with_unknown_fields_is_read():
    part = Heard(0, 0, "Ever tried.", TRANSCRIPT.segments, "en", 3.0, ("entry",), 48_000)
    told = json.loads(zlib.decompress(packed(part)))
    assert heard_from(zlib.compress(of_a_later_version(told))) == part


def test_a_job_with_unknown_fields_is_read():
    error = {"code": "no_audio", "detail": "The recording has no sound track."}
    job = Job("0" * 32, "uploads/x.webm", "", "", "x.webm", {"language": "en"}, 1.0, error=error)
    assert from_item({**to_item(job), **LATER, "error": {**error, **LATER}}) == job


@pytest.fixture
def table(aws):
    return boto3.resource("dynamodb").Table(aws["table_name"])


def test_an_answer_in_the_ledger_with_unknown_fields_is_read(table):
    ledger, answer = Ledger(table.meta.client, table.name), Answer(TRANSCRIPT, "holder", 3.0)
    ledger.keep("key", answer)
    (item,) = table.scan()["Items"]
    table.put_item(Item={**item, **LATER, "transcript": zlib.compress(of_a_later_version(asdict(TRANSCRIPT)))})
    assert ledger.known("key") == answer


def add_an_unknown_field_to_everything(place, table):
    for item in table.scan()["Items"]:
        later = {"options": json.dumps({**json.loads(item["options"]), **LATER})} if "options" in item else {}
        table.put_item(Item={**item, **LATER, **later})
    for key in (key for key in place.objects() if key.startswith("transcripts/")):
        told = json.loads(place.s3.get_object(Bucket="steno", Key=key)["Body"].read())
        place.s3.put_object(Bucket="steno", Key=key, Body=of_a_later_version(told))


def test_a_job_of_a_later_version_is_worked_on_and_read(aws, table):
    place = Place(aws)
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    add_an_unknown_field_to_everything(place, table)
    assert place.work(message) == []
    add_an_unknown_field_to_everything(place, table)
    assert place.job(identity)["transcript"] == "Ever tried."
    assert place.transcript(identity).json() == {"transcript": "Ever tried."}


def delete_before(place, operation, identity):
    """Deletes a job just before an operation of S3, as a request from another tab may."""
    events = place.jobs.objects.client.meta.events

    def delete(**_):
        events.unregister(f"before-call.s3.{operation}", delete)
        place.jobs.delete(identity)

    events.register(f"before-call.s3.{operation}", delete)


@pytest.mark.parametrize("path", ["", "/transcript"])
def test_a_transcript_that_is_deleted_while_it_is_read_is_not_found(aws, path):
    place = Place(aws)
    identity = place.upload(recording("webm"))
    place.work(place.about(identity))
    delete_before(place, "GetObject", identity)
    answer = place.http.get(f"/api/transcriptions/{identity}{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_recording_that_is_deleted_while_its_job_is_retried_is_not_found(aws):
    place = Place(aws)
    identity = place.upload(b"<html>" * 100)
    place.work(place.about(identity))
    delete_before(place, "CopyObject", identity)
    answer = place.http.post(f"/api/transcriptions/{identity}/retry")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_transcript_that_is_deleted_while_a_request_waits_for_it_is_not_found(server):
    place = server()

    def delete(params, **_):
        if params["Key"].startswith("transcripts/"):
            place.s3.delete_object(Bucket="steno", Key=params["Key"])

    place.jobs.objects.client.meta.events.register("provide-client-params.s3.GetObject", delete)
    answer = place.send(recording("aac"))
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
