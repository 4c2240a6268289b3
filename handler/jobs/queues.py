"""The SQS queues, and how messages are sent to them.

Messages of the recordings queue that release 0.1 cannot process are lists of one object. While a
stack is updated, a worker of release 0.1 returns such a list to the queue. It would delete any
other message that it cannot process.
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

# SQS accepts messages of 262,144 bytes in all regions. The message about a part of five minutes has
# 2 to 10 KB.
_MAX_BODY_BYTES = 250_000


@dataclass
class Queues:
    """Sends messages to the queues whose URLs are `recordings`, `parts` and `express`.

    The `express` queue is for parts that a request waits for, and for the only part of a recording.
    `build_client` returns an SQS client.
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
        """Send a message about a part.

        Raises UnreadableRecording if the message is too large, because the part has too many gaps.
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
        """Send a message, with the caller as its group, so that SQS serves callers roughly in turn.

        https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
        """
        body = json.dumps(content)
        if len(body) > _MAX_BODY_BYTES:
            raise UnreadableRecording(
                "The recording has too many gaps. Re-encode it, and upload it again."
            )
        group = hashlib.sha256(account.encode()).hexdigest()
        self.sqs.send_message(QueueUrl=queue, MessageBody=body, MessageGroupId=group)
