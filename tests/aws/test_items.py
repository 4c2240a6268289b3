"""Tests that stored data can be read even if a later version has added fields to it."""

import json
import zlib
from dataclasses import asdict

import boto3
import pytest

from handler.billing.ledger import Ledger, PaidAnswer
from handler.jobs.job import Job, from_item, to_item
from handler.jobs.messages import SplitRequest, parse_body
from handler.jobs.parts import PartMessage, PartTranscript
from handler.recordings.speech_activity import SpeechInterval
from handler.transcripts.transcript import Segment, Transcript
from tests.harness import Harness
from tests.samples import long_recording, recording

TRANSCRIPT = Transcript("Ever tried.", "gpt-transcribe", (Segment(0.1, 1.4, "Ever tried."),))
LATER = {"added_later": {"by": ["another version"]}}


def of_a_later_version(fields):
    """Return the data as JSON, with an unknown field added to it and to each segment."""
    segments = [{**segment, **LATER} for segment in fields["segments"]]
    return json.dumps({**fields, **LATER, "segments": segments}).encode()


def test_a_transcript_with_unknown_fields_is_read():
    assert Transcript.from_json(of_a_later_version(asdict(TRANSCRIPT))) == TRANSCRIPT


def test_a_part_with_unknown_fields_is_read():
    part = PartTranscript(0, 0, "Ever tried.", TRANSCRIPT.segments, "en", 3.0, ("entry",), 48_000)
    fields = json.loads(zlib.decompress(part.to_bytes()))
    assert PartTranscript.from_bytes(zlib.compress(of_a_later_version(fields))) == part


def test_a_part_of_release_0_1_is_read():
    """Parts stored by release 0.1 contain neither `samples` nor `reused`."""
    fields = {
        "number": 1,
        "start": 16_000,
        "text": "Ever",
        "segments": [],
        "language": None,
        "seconds_paid": 3.0,
    }
    part = PartTranscript.from_bytes(
        zlib.compress(json.dumps({**fields, "entries": ["entry"]}).encode())
    )
    assert part == PartTranscript(1, 16_000, "Ever", seconds_paid=3.0, entries=("entry",))


SENT = PartMessage(
    job="0" * 32,
    generation="generation",
    entry="entry",
    number=7,
    start=16_000,
    samples=48_000,
    timeline=((0, 1.0), (16_000, 5.5)),
    speech=(SpeechInterval(0.5, 2.5, 1.0),),
)


def test_messages_about_a_part_with_unknown_fields_are_read():
    part = {**SENT.to_json(), **LATER}
    assert parse_body(json.dumps({"part": part, **LATER})) == SENT
    split = {"part": part, "seconds_paid": 3, "entries": ["entry"], **LATER}
    assert parse_body(json.dumps({"halve": split, **LATER})) == SplitRequest(SENT, 3.0, ("entry",))


def test_a_job_with_unknown_fields_is_read():
    error = {"code": "no_audio", "detail": "The recording has no sound track."}
    job = Job("0" * 32, "uploads/x.webm", "", "", "x.webm", {"language": "en"}, 1.0, error=error)
    assert from_item({**to_item(job), **LATER, "error": {**error, **LATER}}) == job


@pytest.fixture
def table(aws):
    return boto3.resource("dynamodb").Table(aws["table_name"])


def test_a_ledger_item_with_unknown_fields_is_read(table):
    ledger, paid = Ledger(table.meta.client, table.name), PaidAnswer(TRANSCRIPT, "holder", 3.0)
    ledger.store("key", paid)
    (item,) = table.scan()["Items"]
    table.put_item(
        Item={**item, **LATER, "transcript": zlib.compress(of_a_later_version(asdict(TRANSCRIPT)))}
    )
    assert ledger.find("key") == paid


def add_an_unknown_field_to_everything(harness, table):
    for item in table.scan(ConsistentRead=True)["Items"]:
        later = (
            {"options": json.dumps({**json.loads(item["options"]), **LATER})}
            if "options" in item
            else {}
        )
        table.put_item(Item={**item, **LATER, **later})
    for key in (key for key in harness.objects() if key.startswith("transcripts/")):
        fields = json.loads(harness.s3.get_object(Bucket="steno", Key=key)["Body"].read())
        harness.s3.put_object(Bucket="steno", Key=key, Body=of_a_later_version(fields))


def test_a_job_of_a_later_version_is_transcribed_and_read(aws, table):
    harness = Harness(aws)
    job_id = harness.upload(long_recording("ogg", 50))
    message = harness.upload_record(job_id)
    for _ in range(2):
        add_an_unknown_field_to_everything(harness, table)
        assert harness.handle(message) == []
    for part in harness.part_messages():
        add_an_unknown_field_to_everything(harness, table)
        assert harness.handle(part) == []
    add_an_unknown_field_to_everything(harness, table)
    transcript = harness.job(job_id)["transcript"]
    assert (set(transcript.split(". ")), harness.job(job_id)["status"]) == (
        {"Ever tried", "Ever tried."},
        "completed",
    )
    assert harness.transcript(job_id).json() == {"transcript": transcript}


def delete_before(harness, client, operation, job_id):
    """Delete a job just before an AWS operation, to simulate a concurrent request."""
    event = f"before-call.{client.meta.service_model.service_name}.{operation}"

    def delete(**_):
        client.meta.events.unregister(event, delete)
        harness.jobs.delete(job_id)

    client.meta.events.register(event, delete)


@pytest.mark.parametrize("path", ["", "/transcript"])
def test_a_transcript_that_is_deleted_while_it_is_read_is_not_found(aws, path):
    harness = Harness(aws)
    job_id = harness.upload(recording("webm"))
    harness.run_worker(harness.upload_record(job_id))
    delete_before(harness, harness.jobs.objects.client, "GetObject", job_id)
    response = harness.http.get(f"/api/transcriptions/{job_id}{path}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("operation", ["HeadObject", "UpdateItem"])
def test_a_job_that_is_deleted_while_it_is_retried_is_not_found(aws, table, operation):
    harness = Harness(aws)
    job_id = harness.upload(b"<html>" * 100)
    harness.run_worker(harness.upload_record(job_id))
    client = harness.jobs.objects.client if operation == "HeadObject" else harness.jobs.client
    delete_before(harness, client, operation, job_id)
    response = harness.http.post(f"/api/transcriptions/{job_id}/retry")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    harness.run_worker()
    assert (table.scan()["Items"], harness.objects()) == ([], [])


def test_a_transcript_that_is_deleted_while_a_request_waits_for_it_is_not_found(server):
    harness = server()

    def delete(params, **_):
        if params["Key"].startswith("transcripts/"):
            harness.s3.delete_object(Bucket="steno", Key=params["Key"])

    harness.jobs.objects.client.meta.events.register("provide-client-params.s3.GetObject", delete)
    response = harness.send(recording("aac"))
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
