"""The entry points of the Lambda functions that process queue messages.

One function cuts recordings, one transcribes parts and one handles dead letters. Each function
receives a batch of messages as an SQS event, and returns the ids of the messages that SQS should
deliver again.
"""

import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from handler import logs
from handler.aws.clients import WORKER_LIMITS
from handler.aws.outage import is_outage
from handler.jobs.job import job_id_of
from handler.jobs.messages import InvalidMessage, Message, RetryLater, SplitRequest, parse_body
from handler.jobs.parts import PartMessage
from handler.jobs.store import Jobs
from handler.services import Services, build_services, build_throttles
from handler.settings import read_settings
from handler.steps.cut import Cut
from handler.steps.dead_letters import DeadLetters
from handler.steps.finish import Finish
from handler.steps.pacing import DEFAULT_PACING, Pacing
from handler.steps.transcribe_part import TranscribePart

log = logging.getLogger("steno")

SHUTDOWN_SECONDS = 30.0  # steps stop this long before Lambda's timeout, so that they end cleanly
# The queue moves a message to the dead-letter queue after 200 deliveries. With this pause between
# them, 200 deliveries take about half an hour. Processing an invalid message takes only a few
# milliseconds.
_INVALID_MESSAGE_RETRY_SECONDS = 10.0


@dataclass(frozen=True)
class Worker:
    """Runs the steps of jobs when queue messages arrive."""

    cut: Cut
    transcribe_part: TranscribePart
    dead_letters: DeadLetters
    sqs: Callable[[], Any]
    pacing: Pacing

    @classmethod
    def from_services(
        cls,
        services: Services,
        pacing: Pacing = DEFAULT_PACING,
        sleep: Callable[[float], None] = time.sleep,
    ) -> "Worker":
        """Build a worker that uses the shared services of the process."""
        jobs, metrics, models = services.jobs, services.metrics, services.models
        finish = Finish(jobs, metrics, models)
        throttles = build_throttles(models, jobs)
        transcribe_part = TranscribePart(
            jobs, finish, throttles, services.clients, metrics, pacing, models, sleep
        )
        cut = Cut(jobs, finish, pacing, models)
        dead_letters = DeadLetters(jobs, finish, metrics)
        return cls(cut, transcribe_part, dead_letters, lambda: jobs.queues.sqs, pacing)

    def handle(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        """Process a batch of messages from any queue except the dead-letter queue.

        `context` is Lambda's context object. Returns Lambda's partial batch response, which lists
        the messages to deliver again.
        """
        until = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - SHUTDOWN_SECONDS
        return self._process_batch(event, lambda message: self._process(message, until))

    def handle_dead_letters(self, event: dict[str, Any]) -> dict[str, Any]:
        """Process a batch of dead letters. Returns Lambda's partial batch response."""
        return self._process_batch(event, lambda message: self.dead_letters.handle(message.body))

    def _process_batch(
        self, event: dict[str, Any], process: Callable[[Message], None]
    ) -> dict[str, Any]:
        messages = [Message(record, self.sqs()) for record in event["Records"]]
        results = _process_concurrently(
            lambda message: self._process_or_postpone(message, process), messages
        )
        failures = [
            {"itemIdentifier": message.id}
            for message, succeeded in zip(messages, results, strict=True)
            if not succeeded
        ]
        return {"batchItemFailures": failures}

    def _process(self, message: Message, until: float) -> None:
        content = parse_body(message.body)
        if isinstance(content, PartMessage):
            with logs.context(job=content.job, part=content.number):
                self.transcribe_part.run(content, message, until)
        elif isinstance(content, SplitRequest):
            with logs.context(job=content.part.job, part=content.part.number):
                self.cut.split_part(content, message, until)
        else:
            for key in content:
                with logs.context(job=job_id_of(key)):
                    self.cut.cut_recording(key, message, until)

    def _process_or_postpone(self, message: Message, process: Callable[[Message], None]) -> bool:
        """Process a message, and return whether it succeeded.

        After a failure, set the time at which the queue will deliver the message again.
        """
        try:
            process(message)
        except Exception as error:
            # If this call fails, the default visibility timeout of the queue applies.
            with suppress(Exception):
                self._postpone(message, error)
            return False
        return True

    def _postpone(self, message: Message, error: Exception) -> None:
        if isinstance(error, RetryLater):
            message.set_visibility(error.seconds)
        elif is_outage(error):
            log.warning("AWS is unavailable. The queue message will be retried: %s", error)
            message.set_visibility(message.backoff(self.pacing.outage_seconds))
        elif isinstance(error, InvalidMessage):
            log.error("The queue message is invalid: %s", error)
            message.set_visibility(_INVALID_MESSAGE_RETRY_SECONDS)
        else:
            log.error(
                "Processing the queue message failed. It will be delivered again: %s",
                message.body[:1000],
                exc_info=error,
            )


def _process_concurrently(
    process: Callable[[Message], bool], messages: list[Message]
) -> list[bool]:
    """Process all messages concurrently, and return the results in the order of the messages.

    If there are several messages, each of them is deleted as soon as it is processed. Otherwise,
    the queue could deliver it again before the whole batch is processed.
    """
    if len(messages) == 1:
        return [process(messages[0])]

    def process_and_delete(message: Message) -> bool:
        succeeded = process(message)
        if succeeded:
            message.delete()
        return succeeded

    with ThreadPoolExecutor(len(messages) or 1) as threads:
        return list(threads.map(process_and_delete, messages))


@cache
def _worker() -> Worker:
    settings = read_settings()
    logs.configure(on_lambda=True)
    services = build_services(settings, jobs=Jobs(settings, limits=WORKER_LIMITS))
    return Worker.from_services(services)


def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle an invocation of a function that cuts recordings or transcribes parts."""
    sqs_event = _to_sqs_event(event)
    return _worker().handle(sqs_event, context)


def _to_sqs_event(event: dict[str, Any]) -> dict[str, Any]:
    """Return an SQS event unchanged. Wrap an S3 event, such as one from SAM, in an SQS event.

    Raises ValueError for events from other services.
    """
    records = event.get("Records") or [{}]
    if all("body" in record for record in records):
        return event
    if any("s3" not in record for record in records):
        raise ValueError(
            "The event is neither an SQS nor an S3 event. See events/recording.json for an example."
        )
    queue = _worker().cut.jobs.queues.recordings.rpartition("/")[2]
    message = {
        "messageId": "s3",
        "body": json.dumps(event),
        "receiptHandle": "none",
        "eventSourceARN": f":{queue}",
    }
    return {"Records": [message]}


def dead_letters_handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Handle an invocation of the function that processes dead letters."""
    return _worker().handle_dead_letters(event)
