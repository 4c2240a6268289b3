"""Tests of the Lambda functions in worker.py: which events they accept and reject."""

import json
import threading

import pytest

from handler.worker import _worker, dead_letters_handler, lambda_handler
from infra.local.worker import Context
from tests.conftest import ROOT
from tests.fake_upstream import FakeUpstream, transcript_response
from tests.harness import Harness
from tests.samples import long_recording, recording

# The output of `sam local generate-event s3 put`, shortened.
S3_PUT = {
    "Records": [
        {
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "steno"}, "object": {"key": "uploads/x.webm", "size": 1024}},
        }
    ]
}
NOTHING_FAILED = {"batchItemFailures": []}


@pytest.fixture
def function(aws, monkeypatch):
    """Set up the environment of a Lambda function that has just started."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-key")
    _worker.cache_clear()
    yield Harness(aws)
    _worker.cache_clear()


@pytest.mark.parametrize("event", [{}, {"Records": []}, {"Records": [{"Sns": {}}]}])
def test_an_event_of_another_service_is_rejected_with_an_example_of_a_valid_one(event):
    with pytest.raises(ValueError, match="neither an SQS nor an S3 event") as error:
        lambda_handler(event, None)
    assert "events/recording.json" in str(error.value)


def test_an_s3_event_is_handled(function):
    job_id = function.upload(recording("amr"))
    key = function.jobs.get(job_id).key
    event = json.loads(json.dumps(S3_PUT).replace("uploads/x.webm", key))
    assert lambda_handler(event, Context()) == NOTHING_FAILED
    assert function.job(job_id)["status"] == "completed"
    assert lambda_handler(S3_PUT, Context()) == NOTHING_FAILED  # no job has this key


@pytest.mark.usefixtures("function")
@pytest.mark.parametrize("name", ["recording", "part", "s3"])
def test_the_example_events_are_handled(name):
    assert (
        lambda_handler(json.loads((ROOT / f"events/{name}.json").read_text()), Context())
        == NOTHING_FAILED
    )


@pytest.mark.usefixtures("function")
def test_the_example_dead_letter_event_is_handled():
    event = json.loads((ROOT / "events/dead_letter.json").read_text())
    assert dead_letters_handler(event, Context()) == NOTHING_FAILED


def test_the_functions_read_their_environment_and_handle_their_messages(function):
    silence = function.upload(recording("amr"))
    assert (
        lambda_handler({"Records": [function.upload_record(silence)]}, Context()) == NOTHING_FAILED
    )
    assert function.job(silence)["status"] == "completed"
    lost = function.upload(recording("webm"))
    assert (
        dead_letters_handler({"Records": [function.upload_record(lost)]}, Context())
        == NOTHING_FAILED
    )
    assert function.job(lost)["status"] == "failed"


def test_only_failed_messages_are_reported(function):
    good, bad = function.upload_record(function.upload(recording("amr"))), function.message("hello")
    failed = [{"itemIdentifier": bad["messageId"]}]
    assert lambda_handler({"Records": [bad, good]}, Context()) == {"batchItemFailures": failed}


def test_the_parts_of_a_batch_are_transcribed_concurrently_and_deleted_when_done(
    aws,
):
    both = threading.Barrier(2)

    def together(_):
        both.wait(timeout=10)
        return transcript_response("Ever tried.")

    harness = Harness(aws, FakeUpstream(together, together))
    parts = harness.cut(harness.upload(long_recording("ogg", 40)))
    nonsense = harness.message("hello")
    failed = [{"itemIdentifier": nonsense["messageId"]}]
    assert harness.worker.handle({"Records": [nonsense, *parts]}, Context()) == {
        "batchItemFailures": failed
    }
    queued = harness.sqs.get_queue_attributes(
        QueueUrl=harness.parts_queue, AttributeNames=["ApproximateNumberOfMessagesNotVisible"]
    )
    assert queued["Attributes"] == {"ApproximateNumberOfMessagesNotVisible": "0"}
