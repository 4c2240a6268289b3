"""The entry for dead letters: messages that the queue gave up, and what becomes of their jobs."""

import logging
from functools import cache
from typing import Any
from uuid import uuid4

from handler.errors import NotFound, StenoError
from handler.jobs import Held, Lost
from handler.messages import Senseless, keys_in
from handler.settings import read_settings
from handler.wiring import Wiring

log = logging.getLogger("steno")

_DEAD = (
    "The server tried to process this job many times without success. Retry it: parts that were"
    " transcribed are not billed again. If it fails again, see the log of the worker."
)


class DeadLetters:
    """Fails the jobs of dead letters, so that they can be retried."""

    def __init__(self, wiring: Wiring) -> None:
        self._metrics = wiring.metrics
        self._jobs = wiring.jobs

    def handle(self, event: dict[str, Any]) -> dict[str, Any]:
        """Lambda's event of the queue of dead letters; those to be delivered again are reported."""
        again = [record for record in event["Records"] if not self._is_settled(record)]
        return {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in again]}

    def _is_settled(self, record: dict[str, Any]) -> bool:
        try:
            keys = keys_in(record["body"])
        except Senseless:
            log.error("A dead letter that makes no sense is dropped: %s", record["body"][:1000])
            self._metrics.tell(StenoError.code, Failures=1)
            return True
        settled = [self._fail(key, record["messageId"]) for key in keys]
        return all(settled)

    def _fail(self, key: str, message: str) -> bool:
        """Fails the job of the recording `key`, unless it is finished.

        False while a worker has it: the letter comes again, in case that worker dies.
        """
        error = StenoError(_DEAD)
        try:
            job = self._jobs.take(key, uuid4().hex, message)
            self._jobs.fail(job, error)
        except NotFound:
            self._jobs.tidy(key)
            return True
        except (Held, Lost):
            return False
        log.error("Job %s failed: its message was given up.", job.id, extra={"job": job.id})
        self._metrics.tell(error.code, Failures=1)
        return True


@cache
def _dead_letters() -> DeadLetters:
    return DeadLetters(Wiring(read_settings()))


def lambda_handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    return _dead_letters().handle(event)
