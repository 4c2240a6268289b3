"""The second step of a job: transcribe one part and save its transcript."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import anyio

from handler.aws.metrics import Metrics
from handler.aws.outage import is_outage, retry_through_outage
from handler.billing.ledger import ClaimHeld, PaidAnswer, sha256_of
from handler.errors import (
    EmptyRecording,
    StenoError,
    UpstreamBusy,
    UpstreamError,
    UpstreamFailed,
    UpstreamTimeout,
)
from handler.jobs.job import Job
from handler.jobs.messages import Message, RetryLater, SplitRequest
from handler.jobs.parts import PartAttempts, PartMessage, PartTranscript, part_transcript
from handler.jobs.progress import Superseded
from handler.jobs.store import Jobs
from handler.recordings.container import FLAC
from handler.recordings.workspace import scratch_folder
from handler.steps.finish import Finish
from handler.steps.heartbeat import heartbeat
from handler.steps.pacing import Pacing
from handler.steps.upstream_request import UpstreamRequest
from handler.transcripts.transcript import Transcript
from handler.upstream.lazy_client import LazyClient
from handler.upstream.models import Models
from handler.upstream.throttle import Throttle, with_jitter

log = logging.getLogger("steno")

_MAX_CRASHES = 5
_MAX_UNANSWERED = 3  # failed requests that may have been billed
_MAX_REFUSED = 10  # failed requests that were not billed, with pauses of 2 to 60 s between them
_MAX_BACKOFF_SECONDS = 60.0
_MAX_UNSPLIT_SECONDS = 20.0  # a part of at most this length is not split
_MAX_SPLITS = 5  # Lambda stops a chain of messages that invokes a function 16 times
_CRASHED = (
    "The server crashed several times while transcribing a part. See the server log for the reason."
)
_TRANSIENT = UpstreamBusy | UpstreamFailed | UpstreamTimeout


@dataclass(frozen=True)
class _Call:
    """One request for a part. `until` is the deadline on the `time.monotonic` clock."""

    part: PartMessage
    attempts: PartAttempts
    message: Message
    until: float
    path: Path
    request: UpstreamRequest
    has_fallback: bool


@dataclass(frozen=True)
class TranscribePart:
    """Transcribes parts.

    `clients` and `throttles` map the name of each upstream to its client and its throttle. A
    throttle limits the rate of requests after its upstream has reported that it is busy.
    """

    jobs: Jobs
    finish: Finish
    throttles: Mapping[str, Throttle]
    clients: Mapping[str, LazyClient]
    metrics: Metrics
    pacing: Pacing
    models: Models
    sleep: Callable[[float], None] = time.sleep

    def run(self, part: PartMessage, message: Message, until: float) -> None:
        """Transcribe the part, save its transcript, and finish the job if no other part is missing.

        `until` is the deadline on the `time.monotonic` clock. Raises RetryLater if the message
        should be delivered again, for example because the upstream is busy. If the part cannot be
        transcribed, the job fails.
        """
        message.set_visibility(self.pacing.claim_seconds)
        job = self.jobs.progress.job(part.job)
        if job is None or job.status != "processing" or job.generation != part.generation:
            self.finish.clean_up_after_part(part)
            return
        if part.number in job.saved:
            self.finish.finish_if_all_saved(job)
            return
        saved = self.jobs.parts.find(part)
        try:
            if isinstance(saved, PartAttempts):
                transcript = self._transcribe(job, part, saved, message, until)
                if transcript is None:
                    return
                self.jobs.parts.save(job.id, job.generation, transcript, int(self.jobs.expiry()))
            job = self.jobs.progress.add_saved(job, part.number)
        except Superseded:
            self.finish.clean_up_after_part(part)
            return
        except StenoError as error:
            if is_outage(error):
                raise
            self.finish.fail(job, error)
            self.finish.clean_up_after_part(part)  # the ledger may contain a claim of a deleted job
            return
        log.info("Part %d of job %s was transcribed.", part.number, job.id)
        self.metrics.emit(Parts=1)
        self.finish.finish_if_all_saved(job)

    def _transcribe(
        self, job: Job, part: PartMessage, attempts: PartAttempts, message: Message, until: float
    ) -> PartTranscript | None:
        """Return the transcript of a part, or send a request to split the part and return None."""
        claim_seconds = self.pacing.claim_seconds
        ledger_keys: tuple[str, ...] = (part.entry,)
        payer = f"{job.id}/{part.generation}/{part.number}/"
        holder = f"{payer}{uuid4().hex}"
        try:
            claimed = self.jobs.ledger.claim(part.entry, holder, 0.0, claim_seconds)
        except ClaimHeld:
            raise RetryLater(message.backoff(5.0, claim_seconds)) from None
        if isinstance(claimed, PaidAnswer):
            transcript = claimed.transcript
            # In an earlier delivery, the worker may have paid for the result but crashed before
            # it saved the transcript.
            paid = claimed.seconds if claimed.holder.startswith(payer) else 0.0
        else:

            def renew() -> None:
                self.jobs.ledger.renew(part.entry, holder, claim_seconds)
                message.set_visibility(claim_seconds)

            try:
                with heartbeat(claim_seconds / 3, renew):
                    key, transcript, paid = self._request(job, part, attempts, message, until)
                    answer = PaidAnswer(transcript, holder, paid)
                    retry_through_outage(self.jobs.ledger.store, key, answer, until=until)
            except Exception:
                self.jobs.ledger.release(part.entry, holder, 0.0)
                raise
            if key != part.entry:  # a fallback was used
                self.jobs.ledger.release(part.entry, holder, 0.0)
                ledger_keys = (part.entry, key)
        if (
            transcript.cut_off
            and part.seconds > _MAX_UNSPLIT_SECONDS
            and part.split_depth < _MAX_SPLITS
        ):
            self.jobs.queues.send_split(SplitRequest(part, paid, ledger_keys), job.account)
            return None
        return part_transcript(part, transcript, paid, ledger_keys)

    def _request(
        self, job: Job, part: PartMessage, attempts: PartAttempts, message: Message, until: float
    ) -> tuple[str, Transcript, float]:
        """Send the part to the upstream, or to a fallback if the upstream cannot be used.

        Returns the ledger key of the result, the transcript, and the seconds that were billed for
        the part. The seconds include failed attempts that may have been billed.
        """
        if attempts.crashes >= _MAX_CRASHES:
            raise StenoError(_CRASHED)
        with scratch_folder() as folder:
            path = folder / "part.flac"
            own = (part.entry, UpstreamRequest.for_job(job, self.models))
            fallbacks = self._fallbacks(job, part, path) if self.models.fallbacks else []
            for key, _ in fallbacks:
                if answer := self.jobs.ledger.find(key):  # paid for in an earlier delivery
                    return key, answer.transcript, answer.seconds
            # Do not use fallbacks if an earlier attempt may have been billed.
            if attempts.crashes + attempts.unanswered > 0:
                fallbacks = []
            candidates = self._without_resting([own, *fallbacks])
            for key, request in candidates:
                has_fallback = request is not candidates[-1][1]
                call = _Call(part, attempts, message, until, path, request, has_fallback)
                try:
                    return key, *self._call(call)
                except UpstreamError as error:
                    if not (has_fallback and error.allows_fallback):
                        raise
                    log.warning("%s cannot be used: %s", request.model.full_name, error)
                    self.throttles[request.model.upstream].rest()
        raise AssertionError("The last candidate neither returned a result nor raised an error.")

    def _fallbacks(
        self, job: Job, part: PartMessage, path: Path
    ) -> list[tuple[str, UpstreamRequest]]:
        """Return the requests to the fallbacks, each with the ledger key of its result."""
        self._download(part, path)
        with path.open("rb") as file:
            digest = sha256_of(file)
        requests = UpstreamRequest.fallbacks(job, self.models)
        return [(request.answer_key(job.owner, digest), request) for request in requests]

    def _without_resting(
        self, candidates: list[tuple[str, UpstreamRequest]]
    ) -> list[tuple[str, UpstreamRequest]]:
        """Remove candidates whose upstream failed in the last minute. Keep the last candidate."""
        *others, last = candidates
        usable = [
            (key, request)
            for key, request in others
            if not self.throttles[request.model.upstream].is_resting()
        ]
        return [*usable, last]

    def _download(self, part: PartMessage, path: Path) -> None:
        if not path.exists():
            with path.open("w+b") as file:
                self.jobs.objects.download(part.key, file)

    def _call(self, call: "_Call") -> tuple[Transcript, float]:
        """Send the part to one upstream. Return the transcript and the seconds that were billed."""
        part, attempts, request = call.part, call.attempts, call.request
        self._wait_for_turn(call)
        self._download(part, call.path)
        # Record a crash before the request is sent, because a crashed worker cannot record it.
        running = replace(attempts, crashes=attempts.crashes + 1, seconds=part.seconds)
        self._record(part, running)
        started = time.monotonic()
        timeout = min(self.pacing.call_seconds, call.until - started)
        try:
            transcript = self._send(call.path, request, timeout)
        except EmptyRecording:  # the last part of a recording may be too short for a word
            silent = Transcript("", request.model.full_name, seconds_billed=0.0)
            return silent, attempts.seconds_paid
        except Exception as error:
            self._record_failure(call, error)
            raise
        billed = part.seconds if transcript.seconds_billed is None else transcript.seconds_billed
        milliseconds = round((time.monotonic() - started) * 1000)
        self.metrics.emit(UpstreamMilliseconds=milliseconds, SecondsPaid=billed)
        return transcript, attempts.seconds_paid + billed

    def _wait_for_turn(self, call: "_Call") -> None:
        """Wait until a request may be sent.

        If the wait would be too long, raises UpstreamBusy (if there is a fallback) or RetryLater.
        Waiting here is better than returning the message to the queue: SQS distributes new messages
        fairly among callers, but not returned messages.
        """
        throttle = self.throttles[call.request.model.upstream]
        waited = 0.0
        while seconds := throttle.acquire():
            waited += seconds
            if waited > self.pacing.turn_seconds:
                if call.has_fallback:
                    raise UpstreamBusy("Too many parts are waiting.", safe_to_retry=True)
                raise self._retry_when_free(call.message, seconds)
            self.sleep(seconds)

    def _retry_when_free(self, message: Message, seconds: float) -> RetryLater:
        """Return a RetryLater with a pause of at least `seconds`.

        SQS moves a message to the dead-letter queue after 200 deliveries. The pause grows with each
        delivery, so that 200 deliveries take about a day.
        """
        pause = 2 * self.pacing.first_backoff_seconds * message.deliveries
        return RetryLater(with_jitter(max(seconds, pause)))

    def _send(self, path: Path, request: UpstreamRequest, timeout: float) -> Transcript:
        async def transcribe() -> Transcript:
            with path.open("rb") as file:
                client = self.clients[request.model.upstream].get()
                return await client.transcribe(
                    file, FLAC, request.model, request.parameters, timeout, attempts=1
                )

        return anyio.run(transcribe)

    def _record_failure(self, call: "_Call", error: Exception) -> None:
        """Record a failed request.

        Raises RetryLater if the part should be sent to the same upstream again.
        """
        part, attempts, message = call.part, call.attempts, call.message
        throttle = self.throttles[call.request.model.upstream]
        log.info("The request for part %d of job %s failed: %s", part.number, part.job, error)
        if not (isinstance(error, StenoError) or is_outage(error)):
            return  # this attempt is still counted as a crash
        # Requests interrupted by a crash may have been billed, so they count as unanswered.
        attempts = replace(
            attempts,
            crashes=0,
            seconds=part.seconds,
            unanswered=attempts.unanswered + attempts.crashes,
        )
        if is_outage(error) or not isinstance(error, _TRANSIENT):
            self._record(part, attempts)
            return
        if call.has_fallback and self._can_fall_back(error):
            self._record(part, attempts)
            return
        if isinstance(error, UpstreamBusy):
            wait = error.retry_after or message.backoff(
                self.pacing.first_backoff_seconds, _MAX_BACKOFF_SECONDS
            )
            throttle.slow_down(wait)
            self._record(part, attempts)
            raise self._retry_when_free(message, wait) from None
        if error.safe_to_retry:
            attempts = replace(attempts, refused=attempts.refused + 1)
        else:
            attempts = replace(attempts, unanswered=attempts.unanswered + 1)
        self._record(part, attempts)
        if attempts.unanswered < _MAX_UNANSWERED and attempts.refused < _MAX_REFUSED:
            wait = error.retry_after or message.backoff(
                self.pacing.first_backoff_seconds, _MAX_BACKOFF_SECONDS
            )
            raise RetryLater(with_jitter(wait)) from None

    def _can_fall_back(self, error: Exception) -> bool:
        """Return whether to use a fallback. It is not used if the upstream is busy only briefly."""
        if not isinstance(error, UpstreamError) or not error.allows_fallback:
            return False
        pause = error.retry_after or 0.0
        return not isinstance(error, UpstreamBusy) or pause > self.pacing.turn_seconds

    def _record(self, part: PartMessage, attempts: PartAttempts) -> None:
        self.jobs.parts.record_attempts(part, attempts, int(self.jobs.expiry()))
