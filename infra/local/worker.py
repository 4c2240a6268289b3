"""The worker on this machine: polls the queues as Lambda's event sources do, through the same entry."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from handler.services import Services
from handler.steps.pacing import DEFAULT_PACING, Pacing
from handler.upstream.daemon_threads import DaemonThreads
from handler.worker import Worker

_CALL_SECONDS = 900  # a Lambda function's longest time
_CUTTERS = 2  # recordings that are cut at the same time: one decodes, one is fetched or uploaded
_MOST_TRANSCRIBERS = 16  # as on AWS
_ARN = "arn:aws:sqs:us-east-1:000000000000:"

log = logging.getLogger("steno")


class Context:
    """What the worker asks of Lambda's context."""

    def get_remaining_time_in_millis(self) -> int:
        return _CALL_SECONDS * 1000


@contextmanager
def working(
    services: Services, pacing: Pacing = DEFAULT_PACING
) -> Iterator[list[threading.Thread]]:
    """A worker beside the caller. What it has not finished at the end, the next run goes on with.

    Yields the threads that poll the queues; they end within a second after the block.
    """
    worker, queues = Worker.of(services, pacing), services.jobs.queues
    at_once = min(_MOST_TRANSCRIBERS, services.settings.max_concurrent_calls)
    stopped = threading.Event()
    threads = []
    for url, most in (
        (queues.recordings, _CUTTERS),
        (queues.parts, at_once),
        (queues.express, at_once),
    ):
        poller = _Poller(queues.sqs, url, worker, most)
        threads.append(threading.Thread(target=poller.run, args=(stopped,), daemon=True))
        threads[-1].start()
    try:
        yield threads
    finally:
        stopped.set()


class _Poller:
    """Hands the messages of one queue to the worker, `most` at the same time."""

    def __init__(self, sqs: Any, url: str, worker: Worker, most: int) -> None:
        self._sqs = sqs
        self._url = url
        self._worker = worker
        self._most = most
        self._free = threading.Semaphore(most)

    def run(self, stopped: threading.Event) -> None:
        threads = DaemonThreads(self._most, "worker")
        while not stopped.is_set():
            self._free.acquire()
            message = None
            try:
                message = self._receive()
            except Exception:
                if not stopped.wait(1):
                    log.exception("The queue cannot be read, and is read again:")
            if message:
                threads.submit(self._work, message)
            else:
                self._free.release()
        for _ in range(self._most):  # what is under way ends
            self._free.acquire()

    def _receive(self) -> dict[str, Any] | None:
        answer = self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=1,
            WaitTimeSeconds=1,
            AttributeNames=["ApproximateReceiveCount"],
        )
        found: list[dict[str, Any]] = answer.get("Messages", [])
        return found[0] if found else None

    def _work(self, message: dict[str, Any]) -> None:
        try:
            if not self._worker.handle({"Records": [record_of(message, self._url)]}, Context())[
                "batchItemFailures"
            ]:
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        except Exception:
            log.exception("A message is delivered again:")
        finally:
            self._free.release()


def record_of(message: dict[str, Any], url: str) -> dict[str, Any]:
    """Return a received message as Lambda's event has it."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes", {}),
        "eventSource": "aws:sqs",
        "eventSourceARN": _ARN + url.rpartition("/")[2],
    }
