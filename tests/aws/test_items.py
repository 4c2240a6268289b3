"""items.py: a reader of stored data ignores the fields that only a later version has."""

import json
import zlib
from dataclasses import asdict

import boto3
import pytest

from handler.billing.ledger import Ledger, PaidAnswer
from handler.jobs.job import Job, from_item, to_item
from handler.jobs.messages import SplitRequest, read
from handler.jobs.parts import PartMessage, PartTranscript
from handler.recordings.speech_activity import SpeechInterval
from handler.transcripts.transcript import Segment, Transcript
from tests.place import Place
from tests.samples import long_recording, recording

TRANSCRIPT = Transcript("Ever tried.", "gpt-transcribe", (Segment(0.1, 1.4, "Ever tried."),))
LATER = {"added_later": {"by": ["another version"]}}


def of_a_later_version(told):
    """The same data with an unknown field in it, and one in each segment."""
    segments = [{**segment, **LATER} for segment in told["segments"]]
    return json.dumps({**told, **LATER, "segments": segments}).encode()


def test_a_transcript_with_unknown_fields_is_read():
    assert Transcript.from_json(of_a_later_version(asdict(TRANSCRIPT))) == TRANSCRIPT


def test_a_part_with_unknown_fields_is_read():
    part = PartTranscript(0, 0, "Ever tried.", TRANSCRIPT.segments, "en", 3.0, ("entry",), 48_000)
    told = json.loads(zlib.decompress(part.packed()))
    assert PartTranscript.unpacked(zlib.compress(of_a_later_version(told))) == part


def test_a_part_of_release_0_1_is_read():
    """It has neither `samples` nor `reused`."""
    told = {
        "number": 1,
        "start": 16_000,
        "text": "Ever",
        "segments": [],
        "language": None,
        "seconds_paid": 3.0,
    }
    part = PartTranscript.unpacked(
        zlib.compress(json.dumps({**told, "entries": ["entry"]}).encode())
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
    assert read(json.dumps({"part": part, **LATER})) == SENT
    split = {"part": part, "seconds_paid": 3, "entries": ["entry"], **LATER}
    assert read(json.dumps({"halve": split, **LATER})) == SplitRequest(SENT, 3.0, ("entry",))


def test_a_job_with_unknown_fields_is_read():
    error = {"code": "no_audio", "detail": "The recording has no sound track."}
    job = Job("0" * 32, "uploads/x.webm", "", "", "x.webm", {"language": "en"}, 1.0, error=error)
    assert from_item({**to_item(job), **LATER, "error": {**error, **LATER}}) == job


@pytest.fixture
def table(aws):
    return boto3.resource("dynamodb").Table(aws["table_name"])


def test_an_answer_in_the_ledger_with_unknown_fields_is_read(table):
    ledger, answer = Ledger(table.meta.client, table.name), PaidAnswer(TRANSCRIPT, "holder", 3.0)
    ledger.store("key", answer)
    (item,) = table.scan()["Items"]
    table.put_item(
        Item={**item, **LATER, "transcript": zlib.compress(of_a_later_version(asdict(TRANSCRIPT)))}
    )
    assert ledger.find("key") == answer


def add_an_unknown_field_to_everything(place, table):
    for item in table.scan(ConsistentRead=True)["Items"]:
        later = (
            {"options": json.dumps({**json.loads(item["options"]), **LATER})}
            if "options" in item
            else {}
        )
        table.put_item(Item={**item, **LATER, **later})
    for key in (key for key in place.objects() if key.startswith("transcripts/")):
        told = json.loads(place.s3.get_object(Bucket="steno", Key=key)["Body"].read())
        place.s3.put_object(Bucket="steno", Key=key, Body=of_a_later_version(told))


def test_a_job_of_a_later_version_is_worked_on_and_read(aws, table):
    place = Place(aws)
    identity = place.upload(long_recording("ogg", 50))
    message = place.about(identity)
    for _ in range(2):
        add_an_unknown_field_to_everything(place, table)
        assert place.handle(message) == []
    for part in place.part_messages():
        add_an_unknown_field_to_everything(place, table)
        assert place.handle(part) == []
    add_an_unknown_field_to_everything(place, table)
    transcript = place.job(identity)["transcript"]
    assert (set(transcript.split(". ")), place.job(identity)["status"]) == (
        {"Ever tried", "Ever tried."},
        "completed",
    )
    assert place.transcript(identity).json() == {"transcript": transcript}


def delete_before(place, client, operation, identity):
    """Deletes a job just before an operation, as a request from another tab may."""
    event = f"before-call.{client.meta.service_model.service_name}.{operation}"

    def delete(**_):
        client.meta.events.unregister(event, delete)
        place.jobs.delete(identity)

    client.meta.events.register(event, delete)


@pytest.mark.parametrize("path", ["", "/transcript"])
def test_a_transcript_that_is_deleted_while_it_is_read_is_not_found(aws, path):
    place = Place(aws)
    identity = place.upload(recording("webm"))
    place.work(place.about(identity))
    delete_before(place, place.jobs.objects.client, "GetObject", identity)
    answer = place.http.get(f"/api/transcriptions/{identity}{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("operation", ["HeadObject", "UpdateItem"])
def test_a_job_that_is_deleted_while_it_is_retried_is_not_found(aws, table, operation):
    place = Place(aws)
    identity = place.upload(b"<html>" * 100)
    place.work(place.about(identity))
    client = place.jobs.objects.client if operation == "HeadObject" else place.jobs.client
    delete_before(place, client, operation, identity)
    answer = place.http.post(f"/api/transcriptions/{identity}/retry")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    place.work()
    assert (table.scan()["Items"], place.objects()) == ([], [])


def test_a_transcript_that_is_deleted_while_a_request_waits_for_it_is_not_found(server):
    place = server()

    def delete(params, **_):
        if params["Key"].startswith("transcripts/"):
            place.s3.delete_object(Bucket="steno", Key=params["Key"])

    place.jobs.objects.client.meta.events.register("provide-client-params.s3.GetObject", delete)
    answer = place.send(recording("aac"))
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
