"""Parses the messages from the SQS queues, and controls when they are delivered again."""

import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any
from urllib.parse import unquote_plus

from handler.jobs.job import job_id_of
from handler.jobs.parts import PartMessage

_MAX_BACKOFF_SECONDS = 900


class InvalidMessage(ValueError):
    """Raised for a message body with an unknown format."""


class RetryLater(Exception):
    """Raised by a step whose message should be delivered again after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Message:
    """A received message. Other consumers do not receive it during its visibility timeout."""

    def __init__(self, record: dict[str, Any], sqs: Any) -> None:
        self.id: str = record["messageId"]
        self.body: str = record["body"]
        self.deliveries = int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))
        self._sqs = sqs
        self._receipt = record["receiptHandle"]
        self._queue = record["eventSourceARN"].rpartition(":")[2]

    def set_visibility(self, seconds: float) -> None:
        """Set the visibility timeout.

        The queue delivers the message again after `seconds`, unless it is deleted before then.
        """
        errors = self._sqs.exceptions
        # A message that is no longer in flight has no visibility timeout.
        with suppress(errors.MessageNotInflight, errors.ReceiptHandleIsInvalid):
            self._sqs.change_message_visibility(
                QueueUrl=self._url, ReceiptHandle=self._receipt, VisibilityTimeout=ceil(seconds)
            )

    def delete(self) -> None:
        """Delete the message from its queue. Errors are ignored.

        If the message could not be deleted and is delivered again, the step detects that the work
        is already done.
        """
        with suppress(Exception):
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=self._receipt)

    def backoff(self, first_seconds: float, max_seconds: float = _MAX_BACKOFF_SECONDS) -> float:
        """Return `first_seconds`, doubled after each delivery, but at most `max_seconds`."""
        doublings = min(self.deliveries - 1, _MAX_BACKOFF_SECONDS.bit_length())
        return min(first_seconds * (1 << doublings), max_seconds)

    @cached_property
    def _url(self) -> str:
        return str(self._sqs.get_queue_url(QueueName=self._queue)["QueueUrl"])


@dataclass(frozen=True)
class SplitRequest:
    """A request to split a part into two pieces, because its transcript was cut off.

    `seconds_paid` is the number of seconds that were billed for the whole part. `entries` are the
    ledger keys of its results.
    """

    part: PartMessage
    seconds_paid: float
    entries: tuple[str, ...]


Content = list[str] | PartMessage | SplitRequest


def parse_body(body: str) -> Content:
    """Return the content of a message: S3 keys of recordings, a part, or a request to split a part.

    Keys that do not contain a job id are left out. When a notification is configured, S3 sends a
    test event without keys. Raises InvalidMessage if the body has an unknown format.
    """
    try:
        content = json.loads(body)
        if isinstance(content, list):  # see the docstring of queues.py
            (content,) = content
        if "part" in content:
            return PartMessage.from_json(content["part"])
        if "halve" in content:
            split = content["halve"]
            part = PartMessage.from_json(split["part"])
            return SplitRequest(part, float(split["seconds_paid"]), tuple(split["entries"]))
        if "key" in content:
            keys = [content["key"]]
        else:
            records = content.get("Records", [])
            keys = [unquote_plus(record["s3"]["object"]["key"]) for record in records]
        return [key for key in keys if job_id_of(key)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidMessage(body[:1000]) from error
