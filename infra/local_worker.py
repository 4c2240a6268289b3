"""The worker on this machine: polls the real queue as Lambda's event source does, in a thread of its own."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from handler.wiring import Wiring
from handler.worker import Worker
from infra.local_aws import NAME

_CALL_SECONDS = 900  # a Lambda function's longest time


class Context:
    """What the worker asks of Lambda's context."""

    def get_remaining_time_in_millis(self) -> int:
        return _CALL_SECONDS * 1000


@contextmanager
def working(wiring: Wiring) -> Iterator[None]:
    """A worker beside the caller; what it has not finished at the end, the next run goes on with."""
    stopped = threading.Event()
    threading.Thread(target=_poll, args=(wiring, stopped), daemon=True).start()
    try:
        yield
    finally:
        stopped.set()
        logging.disable()  # of the job that is cut off here, and of the queue that goes with us


def _poll(wiring: Wiring, stopped: threading.Event) -> None:
    worker, sqs = Worker(wiring), wiring.sqs
    queue = sqs.get_queue_url(QueueName=NAME)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    while not stopped.is_set():
        try:
            for message in sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages", []):
                if not worker.handle(_event(message, arn), Context())["batchItemFailures"]:
                    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        except Exception:
            if not stopped.wait(1):
                logging.getLogger("steno").exception("The worker stumbled, and goes on:")


def _event(message: dict[str, Any], arn: str) -> dict[str, Any]:
    record = {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
    }
    return {"Records": [record]}
