"""Messages of the SQS queues: their contents, and when they are delivered again."""

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
    """Raised by a step to have its message delivered again after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Message:
    """A received message. The queue hides it from other consumers during its visibility timeout."""

    def __init__(self, record: dict[str, Any], sqs: Any) -> None:
        self.id: str = record["messageId"]
        self.body: str = record["body"]
        self.deliveries = int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))
        self._sqs = sqs
        self._receipt = record["receiptHandle"]
        self._queue = record["eventSourceARN"].rpartition(":")[2]

    def set_visibility(self, seconds: float) -> None:
        """Set the visibility timeout.

        The queue delivers the message again after `seconds`, unless it is deleted before.
        """
        errors = self._sqs.exceptions
        # A message that is not in the queue any more has no visibility timeout.
        with suppress(errors.MessageNotInflight, errors.ReceiptHandleIsInvalid):
            self._sqs.change_message_visibility(
                QueueUrl=self._url, ReceiptHandle=self._receipt, VisibilityTimeout=ceil(seconds)
            )

    def delete(self) -> None:
        """Delete the message from its queue. Errors are ignored.

        If the message is delivered again, the step finds that its work is done.
        """
        with suppress(Exception):
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=self._receipt)

    def backoff(self, first_seconds: float, max_seconds: float = _MAX_BACKOFF_SECONDS) -> float:
        """Return `first_seconds`, doubled after each delivery, up to `max_seconds`."""
        doublings = min(self.deliveries - 1, _MAX_BACKOFF_SECONDS.bit_length())
        return min(first_seconds * (1 << doublings), max_seconds)

    @cached_property
    def _url(self) -> str:
        return str(self._sqs.get_queue_url(QueueName=self._queue)["QueueUrl"])


@dataclass(frozen=True)
class SplitRequest:
    """A request to split a part into two pieces, because its transcript was cut off.

    `seconds_paid` were paid for the whole part. `entries` are the ledger keys of its answers.
    """

    part: PartMessage
    seconds_paid: float
    entries: tuple[str, ...]


Content = list[str] | PartMessage | SplitRequest


def parse_body(body: str) -> Content:
    """Return the content of a message: the keys of recordings, a part, or a part to split.

    Keys without a job id are left out. The test event that S3 sends when a notification
    is configured has no keys. Raises InvalidMessage if the body has another format.
    """
    try:
        content = json.loads(body)
        if isinstance(content, list):  # queues.py explains these lists of one object
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
