"""Messages of the queues: what one asks for, and when it is delivered again."""

import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any
from urllib.parse import unquote_plus

from handler.jobs.job import job_id_of
from handler.jobs.parts import PartMessage

LONGEST_DELAY_SECONDS = 900


class InvalidMessage(ValueError):
    """A message that neither the bucket nor Steno can have sent."""


class RetryLater(Exception):
    """Ends a step whose message is to be delivered again after so many `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Message:
    """A delivered message, which the queue keeps from other functions while it is worked on."""

    def __init__(self, record: dict[str, Any], sqs: Any) -> None:
        self.id: str = record["messageId"]
        self.body: str = record["body"]
        self.deliveries = int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))
        self._sqs = sqs
        self._receipt = record["receiptHandle"]
        self._queue = record["eventSourceARN"].rpartition(":")[2]

    def set_visibility(self, seconds: float) -> None:
        """Make the queue deliver it again after so many seconds, if it is not deleted before."""
        known = self._sqs.exceptions
        # It may not be in the queue any more: then there is nothing to keep.
        with suppress(known.MessageNotInflight, known.ReceiptHandleIsInvalid):
            self._sqs.change_message_visibility(
                QueueUrl=self._url, ReceiptHandle=self._receipt, VisibilityTimeout=ceil(seconds)
            )

    def delete(self) -> None:
        """Delete it from its queue. Does nothing if AWS fails: a message that comes again finds its work done."""
        with suppress(Exception):
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=self._receipt)

    def backoff(self, first: float, most: float = LONGEST_DELAY_SECONDS) -> float:
        """Return `first` seconds, doubled with each delivery, `most` seconds at most."""
        doublings = min(self.deliveries - 1, LONGEST_DELAY_SECONDS.bit_length())
        return min(first * (1 << doublings), most)

    @cached_property
    def _url(self) -> str:
        return str(self._sqs.get_queue_url(QueueName=self._queue)["QueueUrl"])


@dataclass(frozen=True)
class SplitRequest:
    """Asks for a part in two pieces, because its answer was cut off; `seconds_paid` were paid for it."""

    part: PartMessage
    seconds_paid: float
    entries: tuple[str, ...]


Content = list[str] | PartMessage | SplitRequest


def read(body: str) -> Content:
    """Return what a message is about: the keys of recordings, a part, or a part to be halved.

    There is no key in the test event that S3 sends when the notification is configured, and keys
    that cannot be a job's are left out. InvalidMessage for everything else.
    """
    try:
        content = json.loads(body)
        if isinstance(content, list):
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
