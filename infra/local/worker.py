"""Run the worker locally: like Lambda, poll the queues and pass the messages to the worker."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from handler.services import Services
from handler.steps.pacing import DEFAULT_PACING, Pacing
from handler.upstream.daemon_threads import DaemonThreads
from handler.worker import Worker

_INVOCATION_SECONDS = 900  # Lambda's maximum timeout
_CUTTERS = 2  # so that one recording is decoded while another is transferred
_MAX_TRANSCRIBERS = 16  # the default of -c concurrency on AWS
_ARN = "arn:aws:sqs:us-east-1:000000000000:"

log = logging.getLogger("steno")


class Context:
    """A replacement for Lambda's context object, with the only method that the worker uses."""

    def get_remaining_time_in_millis(self) -> int:
        return _INVOCATION_SECONDS * 1000


@contextmanager
def local_worker(
    services: Services, pacing: Pacing = DEFAULT_PACING
) -> Iterator[list[threading.Thread]]:
    """Run a worker in background threads until the block ends.

    Yields the threads that poll the queues. After the block ends, each thread processes the
    messages that it has received, then exits. The next run continues unfinished jobs.
    """
    worker, queues = Worker.from_services(services, pacing), services.jobs.queues
    transcribers = min(_MAX_TRANSCRIBERS, services.settings.max_concurrent_calls)
    stop = threading.Event()
    threads = []
    for url, max_messages in (
        (queues.recordings, _CUTTERS),
        (queues.parts, transcribers),
        (queues.express, transcribers),
    ):
        poller = _Poller(queues.sqs, url, worker, max_messages)
        threads.append(threading.Thread(target=poller.run, args=(stop,), daemon=True))
        threads[-1].start()
    try:
        yield threads
    finally:
        stop.set()


class _Poller:
    """Passes the messages of one queue to the worker, at most `max_messages` at the same time."""

    def __init__(self, sqs: Any, url: str, worker: Worker, max_messages: int) -> None:
        self._sqs = sqs
        self._url = url
        self._worker = worker
        self._max_messages = max_messages
        self._free = threading.Semaphore(max_messages)

    def run(self, stop: threading.Event) -> None:
        threads = DaemonThreads(self._max_messages, "worker")
        while not stop.is_set():
            self._free.acquire()
            message = None
            try:
                message = self._receive()
            except Exception:
                if not stop.wait(1):
                    log.exception("Could not receive messages from the queue. Retrying:")
            if message:
                threads.submit(self._work, message)
            else:
                self._free.release()
        for _ in range(self._max_messages):  # wait until all received messages are processed
            self._free.acquire()

    def _receive(self) -> dict[str, Any] | None:
        response = self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=1,
            WaitTimeSeconds=1,
            AttributeNames=["ApproximateReceiveCount"],
        )
        messages: list[dict[str, Any]] = response.get("Messages", [])
        return messages[0] if messages else None

    def _work(self, message: dict[str, Any]) -> None:
        try:
            event = {"Records": [lambda_record(message, self._url)]}
            if not self._worker.handle(event, Context())["batchItemFailures"]:
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        except Exception:
            log.exception("The worker failed. SQS will deliver the message again:")
        finally:
            self._free.release()


def lambda_record(message: dict[str, Any], url: str) -> dict[str, Any]:
    """Convert a received SQS message to the format of a record in a Lambda event."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes", {}),
        "eventSource": "aws:sqs",
        "eventSourceARN": _ARN + url.rpartition("/")[2],
    }
