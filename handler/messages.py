"""Messages of the queue: which recordings one is about, when it is delivered again, and how another
one about the same job is sent."""

import hashlib
import json
from contextlib import suppress
from functools import cached_property
from math import ceil
from typing import Any
from urllib.parse import unquote_plus

from handler.job import Job, identity_of

LONGEST_DELAY_SECONDS = 900  # of SQS, for a new message
_WAITING = "ApproximateNumberOfMessages"


class Senseless(ValueError):
    """A message that neither the bucket nor a worker can have sent."""


class Message:
    """A delivered message, which the queue keeps from other workers while its job is worked on."""

    def __init__(self, record: dict[str, Any], sqs: Any) -> None:
        self.id: str = record["messageId"]
        self.body: str = record["body"]
        self.deliveries = int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))
        self._sqs = sqs
        self._receipt = record["receiptHandle"]
        self._queue = record["eventSourceARN"].rpartition(":")[2]

    @property
    def is_from_bucket(self) -> bool:
        return "key" not in json.loads(self.body)

    def keep(self, seconds: int) -> None:
        """Makes the queue deliver it again after so many seconds, if it is not deleted before."""
        known = self._sqs.exceptions
        # Not in the queue any more: the job's lease is what counts.
        with suppress(known.MessageNotInflight, known.ReceiptHandleIsInvalid):
            self._sqs.change_message_visibility(
                QueueUrl=self._url, ReceiptHandle=self._receipt, VisibilityTimeout=seconds
            )

    def back_off(self, first: int) -> None:
        """Makes the queue deliver it again after `first` seconds, doubled each time, up to 900."""
        doublings = min(self.deliveries - 1, LONGEST_DELAY_SECONDS.bit_length())
        self.keep(min(first << doublings, LONGEST_DELAY_SECONDS))

    def hand_on(self, job: Job, delay: float = 0) -> None:
        """Sends another message about the same recording, because the deliveries of one message are
        limited and a long job needs many.

        Its group is the caller, so that the queue serves callers in turn.
        https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
        """
        self._sqs.send_message(
            QueueUrl=self._url,
            MessageBody=json.dumps({"key": job.key}),
            DelaySeconds=min(ceil(delay), LONGEST_DELAY_SECONDS),
            MessageGroupId=hashlib.sha256(job.account.encode()).hexdigest(),
        )

    def others_wait(self) -> bool:
        asked = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=[_WAITING])
        return int(asked["Attributes"][_WAITING]) > 0

    @cached_property
    def _url(self) -> str:
        return str(self._sqs.get_queue_url(QueueName=self._queue)["QueueUrl"])


def keys_in(body: str) -> list[str]:
    """Return the recordings that a message is about, whether the bucket or a worker sent it.

    None for the test event that S3 sends when the notification is configured, and for objects that
    cannot be a job's. Senseless for everything else.
    """
    try:
        content = json.loads(body)
        if "key" in content:
            keys = [content["key"]]
        else:
            records = content.get("Records", [])
            keys = [unquote_plus(record["s3"]["object"]["key"]) for record in records]
        return [key for key in keys if identity_of(key)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Senseless(body[:1000]) from error
