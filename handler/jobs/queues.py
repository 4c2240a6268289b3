"""The queues: recordings to be cut, and parts to be transcribed.

A message of the recordings' queue that release 0.1 does not understand is a list of one object:
while a stack is updated, the old worker gives it back to the queue, and would delete anything else.
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

# SQS takes 262,144 bytes in each of its regions. A part of five minutes has 2 to 10 KB.
_MOST_BYTES = 250_000


@dataclass
class Queues:
    """Sends messages. Parts that somebody waits for go to the `express` queue."""

    build: Callable[[], Any]
    recordings: str
    parts: str
    express: str

    @cached_property
    def sqs(self) -> Any:
        return self.build()

    def send_recording(self, key: str, account: str) -> None:
        content = {"key": key}
        self._send(self.recordings, [content] if is_from_request(key) else content, account)

    def send_part(self, part: PartMessage, account: str, *, express: bool) -> None:
        """UnreadableRecording if there is more to say of the part than a message takes."""
        self._send(self.express if express else self.parts, {"part": part.to_json()}, account)

    def send_split(self, split: SplitRequest, account: str) -> None:
        told = {
            "part": split.part.to_json(),
            "seconds_paid": split.seconds_paid,
            "entries": split.entries,
        }
        self._send(self.recordings, [{"halve": told}], account)

    def _send(self, queue: str, content: Any, account: str) -> None:
        """Send a message in its caller's group, so that the queue serves callers roughly in turn.

        https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
        """
        body = json.dumps(content)
        if len(body) > _MOST_BYTES:
            raise UnreadableRecording("The recording has more gaps than any recorder leaves.")
        group = hashlib.sha256(account.encode()).hexdigest()
        self.sqs.send_message(QueueUrl=queue, MessageBody=body, MessageGroupId=group)
