"""worker.py on Lambda: the events that its functions are given."""

import json
import threading

import pytest

from handler.worker import _worker, dead_letters_handler, lambda_handler
from infra.local.worker import Context
from tests.conftest import ROOT
from tests.false_upstream import FalseUpstream, heard
from tests.place import Place
from tests.samples import long_recording, recording

# What `sam local generate-event s3 put` prints, shortened.
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
    """The environment of a function that has just started."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-key")
    _worker.cache_clear()
    yield Place(aws)
    _worker.cache_clear()


@pytest.mark.parametrize("event", [{}, {"Records": []}, {"Records": [{"Sns": {}}]}])
def test_an_event_of_another_service_is_refused_in_one_sentence_with_an_example(event):
    with pytest.raises(ValueError, match="takes events of SQS or S3") as error:
        lambda_handler(event, None)
    assert "events/recording.json" in str(error.value)


def test_an_event_of_the_bucket_itself_is_understood(function):
    identity = function.upload(recording("amr"))
    key = function.jobs.get(identity).key
    event = json.loads(json.dumps(S3_PUT).replace("uploads/x.webm", key))
    assert lambda_handler(event, Context()) == NOTHING_FAILED
    assert function.job(identity)["status"] == "completed"
    assert lambda_handler(S3_PUT, Context()) == NOTHING_FAILED  # it is no job's


@pytest.mark.usefixtures("function")
@pytest.mark.parametrize("name", ["recording", "part", "s3"])
def test_the_examples_of_events_are_worked_on(name):
    assert (
        lambda_handler(json.loads((ROOT / f"events/{name}.json").read_text()), Context())
        == NOTHING_FAILED
    )


@pytest.mark.usefixtures("function")
def test_the_example_of_a_dead_letter_is_worked_on():
    event = json.loads((ROOT / "events/dead_letter.json").read_text())
    assert dead_letters_handler(event, Context()) == NOTHING_FAILED


def test_the_functions_are_built_from_their_environment_and_work_on_their_messages(function):
    silence = function.upload(recording("amr"))
    assert lambda_handler({"Records": [function.about(silence)]}, Context()) == NOTHING_FAILED
    assert function.job(silence)["status"] == "completed"
    lost = function.upload(recording("webm"))
    assert dead_letters_handler({"Records": [function.about(lost)]}, Context()) == NOTHING_FAILED
    assert function.job(lost)["status"] == "failed"


def test_only_the_messages_that_failed_are_reported(function):
    good, bad = function.about(function.upload(recording("amr"))), function.message("hello")
    failed = [{"itemIdentifier": bad["messageId"]}]
    assert lambda_handler({"Records": [bad, good]}, Context()) == {"batchItemFailures": failed}


def test_the_parts_of_a_batch_are_transcribed_at_the_same_time_and_each_is_deleted_when_it_is_done(
    aws,
):
    both = threading.Barrier(2)

    def together(_):
        both.wait(timeout=10)
        return heard("Ever tried.")

    place = Place(aws, FalseUpstream(together, together))
    parts = place.cut(place.upload(long_recording("ogg", 40)))
    nonsense = place.message("hello")
    failed = [{"itemIdentifier": nonsense["messageId"]}]
    assert place.worker.handle({"Records": [nonsense, *parts]}, Context()) == {
        "batchItemFailures": failed
    }
    queued = place.sqs.get_queue_attributes(
        QueueUrl=place.parts_queue, AttributeNames=["ApproximateNumberOfMessagesNotVisible"]
    )
    assert queued["Attributes"] == {"ApproximateNumberOfMessagesNotVisible": "0"}
