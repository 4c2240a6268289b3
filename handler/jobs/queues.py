"""Sends messages to the SQS queues.

A message that release 0.1 cannot process is sent to the recordings queue as a list with one object.
While a stack is updated, a worker of release 0.1 may receive such a message. That worker returns a
list to the queue, but deletes any other message that it cannot process.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from handler.errors import UnreadableRecording
from handler.jobs.job import is_from_request
from handler.jobs.messages import SplitRequest
from handler.jobs.parts import PartMessage

# SQS accepts messages of up to 262,144 bytes in all regions. The message for a five-minute part is
# 2 to 10 KB long.
_MAX_BODY_BYTES = 250_000


@dataclass
class Queues:
    """Sends messages to the queues whose URLs are `recordings`, `parts` and `express`.

    The `express` queue is for parts that a request is waiting for, and for recordings that have
    only one part. `build_client` returns an SQS client.
    """

    build_client: Callable[[], Any]
    recordings: str
    parts: str
    express: str

    @cached_property
    def sqs(self) -> Any:
        return self.build_client()

    def send_recording(self, key: str, account: str) -> None:
        content = {"key": key}
        self._send(self.recordings, [content] if is_from_request(key) else content, account)

    def send_part(self, part: PartMessage, account: str, *, express: bool) -> None:
        """Send the message for a part.

        Raises UnreadableRecording if the part has so many gaps that the message is too large.
        """
        self._send(self.express if express else self.parts, {"part": part.to_json()}, account)

    def send_split(self, split: SplitRequest, account: str) -> None:
        content = {
            "part": split.part.to_json(),
            "seconds_paid": split.seconds_paid,
            "entries": split.entries,
        }
        self._send(self.recordings, [{"halve": content}], account)

    def _send(self, queue: str, content: Any, account: str) -> None:
        """Send a message with a hash of the caller as its group id, for SQS fair queues.

        https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
        """
        body = json.dumps(content)
        if len(body) > _MAX_BODY_BYTES:
            raise UnreadableRecording(
                "The timestamps of the recording have too many gaps. Re-encode the recording, and"
                " upload it again."
            )
        group = hashlib.sha256(account.encode()).hexdigest()
        self.sqs.send_message(QueueUrl=queue, MessageBody=body, MessageGroupId=group)
