"""The entries for the queues: one function cuts recordings, one transcribes parts, one settles dead letters.

Each takes Lambda's event of its queue, and reports the messages that are to be delivered again.
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
from handler.jobs.messages import InvalidMessage, Message, RetryLater, SplitRequest, read
from handler.jobs.parts import PartMessage
from handler.jobs.store import Jobs
from handler.services import Services, build_services
from handler.settings import read_settings
from handler.steps.cut import Cut
from handler.steps.dead_letters import DeadLetters
from handler.steps.finish import Finish
from handler.steps.pacing import DEFAULT_PACING, Pacing
from handler.steps.transcribe_part import TranscribePart
from handler.upstream.throttle import Throttle

log = logging.getLogger("steno")

END_SECONDS = 30.0  # what a function leaves of its time to end in order
# Nothing else limits a message that makes no sense: the queue gives it up after 200 deliveries,
# which is after about half an hour with this pause. Each of them takes a few milliseconds.
_SENSELESS_SECONDS = 10.0


@dataclass(frozen=True)
class Worker:
    """The steps of the engine, each for its queue."""

    cut: Cut
    transcribe_part: TranscribePart
    dead_letters: DeadLetters
    sqs: Callable[[], Any]
    pacing: Pacing

    @classmethod
    def of(
        cls,
        services: Services,
        pacing: Pacing = DEFAULT_PACING,
        sleep: Callable[[float], None] = time.sleep,
    ) -> "Worker":
        """Build the steps over what the process shares."""
        jobs, metrics, models = services.jobs, services.metrics, services.models
        finish = Finish(jobs, metrics, models)
        busy = Throttle(jobs.client, jobs.table, models.base_url, jobs.clock)
        part = TranscribePart(jobs, finish, busy, services.client, metrics, pacing, models, sleep)
        cut = Cut(jobs, finish, pacing, models)
        return cls(cut, part, DeadLetters(jobs, finish, metrics), lambda: jobs.queues.sqs, pacing)

    def handle(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        """Work on the messages of any queue but that of dead letters."""
        until = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - END_SECONDS
        return self._each(event, lambda message: self._work(message, until))

    def handle_dead_letters(self, event: dict[str, Any]) -> dict[str, Any]:
        return self._each(event, lambda message: self.dead_letters.handle(message.body))

    def _each(self, event: dict[str, Any], work: Callable[[Message], None]) -> dict[str, Any]:
        messages = [Message(record, self.sqs()) for record in event["Records"]]
        done = _at_once(lambda message: self._is_done(message, work), messages)
        again = [message.id for message, ended in zip(messages, done, strict=True) if not ended]
        return {"batchItemFailures": [{"itemIdentifier": identity} for identity in again]}

    def _work(self, message: Message, until: float) -> None:
        content = read(message.body)
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

    def _is_done(self, message: Message, work: Callable[[Message], None]) -> bool:
        """Whether the message can be deleted; if not, how soon it is delivered again is set."""
        try:
            work(message)
        except Exception as error:
            with suppress(Exception):  # then the queue's own visibility timeout applies
                self._give_back(message, error)
            return False
        return True

    def _give_back(self, message: Message, error: Exception) -> None:
        if isinstance(error, RetryLater):
            message.set_visibility(error.seconds)
        elif is_outage(error):
            log.warning("AWS does not respond; a message comes again later: %s", error)
            message.set_visibility(message.backoff(self.pacing.outage_seconds))
        elif isinstance(error, InvalidMessage):
            log.error("A message makes no sense: %s", error)
            message.set_visibility(_SENSELESS_SECONDS)
        else:
            log.error("A message cannot be worked on: %s", message.body[:1000], exc_info=error)


def _at_once(work: Callable[[Message], bool], messages: list[Message]) -> list[bool]:
    """Work on all messages at the same time, and return the results in their order.

    A message that is done waits for the others: it is deleted, so that the queue does not deliver it again meanwhile.
    """
    if len(messages) == 1:
        return [work(messages[0])]

    def work_and_delete(message: Message) -> bool:
        done = work(message)
        if done:
            message.delete()
        return done

    with ThreadPoolExecutor(len(messages) or 1) as threads:
        return list(threads.map(work_and_delete, messages))


@cache
def _worker() -> Worker:
    settings = read_settings()
    logs.configure(on_lambda=True)
    return Worker.of(build_services(settings, jobs=Jobs(settings, limits=WORKER_LIMITS)))


def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The entry of the functions that cut recordings and transcribe parts."""
    given = _of_queue(event)
    return _worker().handle(given, context)


def _of_queue(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event as the queue gives it, also for one of the bucket, such as SAM generates."""
    records = event.get("Records") or [{}]
    if all("body" in record for record in records):
        return event
    if any("s3" not in record for record in records):
        raise ValueError(
            "This function takes events of SQS or S3. events/recording.json is an example."
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
    """The entry of the function that settles dead letters."""
    return _worker().handle_dead_letters(event)
