"""The entry for the queue: which job a message is about, who works on it, and how that ends."""

import logging
from contextlib import suppress
from functools import cache
from time import monotonic
from typing import Any
from uuid import uuid4

import anyio
import anyio.to_thread

from handler.aws import WORKER_S3
from handler.errors import NotFound, StenoError, UpstreamBusy, UpstreamFailed, UpstreamTimeout
from handler.job import Job, has_shared_account, identity_of
from handler.jobs import Held, Jobs, Lost
from handler.messages import Message, Senseless, keys_in
from handler.outage import is_outage, outlasting
from handler.settings import read_settings
from handler.stalled import GAVE_UP, MOST_ATTEMPTS
from handler.transcription import USUAL, Pacing, Transcription
from handler.wiring import Wiring

log = logging.getLogger("steno")

HAND_ON_SECONDS = 30.0  # what a call leaves of its time to end in order
# A job that gets nowhere fails after five attempts, but nothing else limits a message that makes no
# sense: the queue gives it up after 200 deliveries (infra/stack.py), which is after about half an
# hour with this pause. Each of them takes a few milliseconds.
_SENSELESS_SECONDS = 10
# Lambda's own detection of recursive loops is off for the worker (infra/stack.py), because it
# would end a long job after 16 messages. The longest recording, of twelve hours, needs 93 by a
# model of a slow speech service. Three times as many cost at most $7 of Lambda.
MOST_HAND_OVERS = 300
_ENDLESS = (
    f"The job was handed on {MOST_HAND_OVERS} times and is still not finished."
    " Retry it: finished parts are not billed again."
)


class Worker:
    """Does jobs, one after another."""

    def __init__(self, wiring: Wiring, pacing: Pacing = USUAL) -> None:
        self._wiring = wiring
        self._pacing = pacing
        self._jobs = wiring.jobs

    def handle(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        """Lambda's event of the queue; messages that are to come again are reported, the others are done."""
        failures = []
        for record in event["Records"]:
            until = monotonic() + context.get_remaining_time_in_millis() / 1000 - HAND_ON_SECONDS
            if not self._is_done(Message(record, self._wiring.sqs), until):
                failures.append({"itemIdentifier": record["messageId"]})
        return {"batchItemFailures": failures}

    def _is_done(self, message: Message, until: float) -> bool:
        try:
            done = [anyio.run(self.work, key, until, message) for key in keys_in(message.body)]
            return all(done)
        except Exception as error:
            if is_outage(error):
                log.warning("AWS does not respond; a message comes again later: %s", error)
            else:
                log.exception("A message cannot be worked on: %s", message.body[:1000])
            with suppress(Exception):  # then the queue's own visibility timeout applies
                self._keep_back(message, error)
        return False

    def _keep_back(self, message: Message, error: Exception) -> None:
        if is_outage(error):
            message.back_off(self._jobs.lease_seconds)
        elif isinstance(error, Senseless):
            message.keep(_SENSELESS_SECONDS)

    async def work(self, key: str, until: float, message: Message) -> bool:
        """Does the job of the recording `key` until `until` (of the monotonic clock).

        False if its message is to come again.
        """
        # From now on the message comes again within a minute, should this process die.
        await anyio.to_thread.run_sync(message.keep, self._jobs.lease_seconds)
        if await anyio.to_thread.run_sync(self._line_up, key, message):
            return True
        try:
            job = await anyio.to_thread.run_sync(self._jobs.take, key, uuid4().hex, message.id)
        except Held as held:
            # The worker that has the job may die. Only a finished job needs no message any more.
            if held.message != message.id:
                await anyio.to_thread.run_sync(message.back_off, self._jobs.lease_seconds)
            return False
        except NotFound as nothing:
            log.info("The recording %s is left alone: %s", key, nothing.detail)
            await anyio.to_thread.run_sync(self._jobs.tidy, key)
            return True
        try:
            if job.attempts > MOST_ATTEMPTS:
                raise StenoError(GAVE_UP)
            await self._complete(job, until, message)
        except Exception as error:
            return await self._ended(job, _innermost(error), message)
        return True

    def _line_up(self, key: str, message: Message) -> bool:
        """Whether the message was replaced by one in its caller's group; the bucket's have none.

        Not if the job was ever leased: the queue may deliver the message of a running job again,
        and that message must stay in the queue in case the worker dies.
        """
        if not message.is_from_bucket:
            return False
        with suppress(NotFound):
            job = self._jobs.get(identity_of(key))
            never_leased = not job.message and not job.finished
            if never_leased and not has_shared_account(job) and message.others_wait():
                message.hand_on(job)
                return True
        return False

    async def _ended(self, job: Job, error: BaseException, message: Message) -> bool:
        """What becomes of a job that was not completed; False if its message is to come again."""
        try:
            if is_outage(error):
                await anyio.to_thread.run_sync(self._jobs.give_back, job)
                raise error
            delay = await anyio.to_thread.run_sync(self._delay, job, error)
            if delay is not None and job.hand_overs >= MOST_HAND_OVERS:
                delay, error = None, StenoError(_ENDLESS)
            if delay is not None:
                await anyio.to_thread.run_sync(self._jobs.release, job)
                await anyio.to_thread.run_sync(message.hand_on, job, delay)
                return True
            if isinstance(error, StenoError):
                log.warning("Job %s failed: %s: %s", job.id, error.code, error.detail, extra={"job": job.id})
                self._wiring.metrics.tell(error.code, Failures=1)
                await anyio.to_thread.run_sync(self._jobs.fail, job, error)
                return True
            if isinstance(error, Lost):
                raise error
        except Lost:
            # If another worker was given the same message, it is that worker's; if the job is gone, it ends next time.
            log.info("Job %s was deleted, or taken over by another worker.", job.id, extra={"job": job.id})
            return False
        log.error("Job %s was interrupted.", job.id, exc_info=error, extra={"job": job.id})
        return False

    def _delay(self, job: Job, error: BaseException) -> float | None:
        """The seconds after which the job is gone on with; None where that helps no more."""
        if isinstance(error, TimeoutError):
            return 0
        if not isinstance(error, UpstreamBusy | UpstreamFailed | UpstreamTimeout):
            return None
        with suppress(NotFound):
            attempts = self._jobs.get(job.id).attempts
            if attempts < MOST_ATTEMPTS:
                return max(error.retry_after or 0.0, self._pacing.later * (1 << attempts))
        return None

    async def _complete(self, job: Job, until: float, message: Message) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep, job, message)
            with anyio.fail_after(until - monotonic() + self._pacing.last):
                transcript, entry = await Transcription(self._wiring, job, self._pacing).run(until)
            await anyio.to_thread.run_sync(self._jobs.complete, job, transcript, entry)
            tasks.cancel_scope.cancel()

    async def _keep(self, job: Job, message: Message) -> None:
        """Renews lease and message, so that a crash is noticed within a minute and nothing else is taken for one."""
        while True:
            await anyio.sleep(self._jobs.lease_seconds / 3)
            await outlasting(self._jobs.renew, job)
            await outlasting(message.keep, self._jobs.lease_seconds)


def _innermost(error: BaseException) -> BaseException:
    """The first error of those that ended a group of tasks."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@cache
def _worker() -> Worker:
    settings = read_settings()
    return Worker(Wiring(settings, jobs=Jobs(settings, s3_limits=WORKER_S3)))


def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    if any("body" not in record for record in event.get("Records", [{}])):
        raise ValueError(
            "This function takes SQS events. Put the S3 event, as text, into the `body` of an SQS"
            " record. tests/events/recording.json is an example."
        )
    return _worker().handle(event, context)
