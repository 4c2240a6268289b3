"""worker.py on Lambda: the events that it is given."""

import json

import pytest

from handler.worker import lambda_handler
from tests.conftest import ROOT

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


@pytest.mark.parametrize("event", [S3_PUT, {}], ids=["S3", "an empty event"])
def test_an_event_that_did_not_come_by_sqs_is_refused_in_one_sentence_with_an_example(event):
    with pytest.raises(ValueError, match="takes SQS events") as error:
        lambda_handler(event, None)
    example = json.loads((ROOT / "tests/events/recording.json").read_text())
    assert "tests/events/recording.json" in str(error.value)
    assert all("body" in record for record in example["Records"])
