"""The second step of a job: transcribe one part and save its transcript."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import anyio

from handler.aws.metrics import Metrics
from handler.aws.outage import is_outage, retry_through_outage
from handler.billing.ledger import ClaimHeld, PaidAnswer
from handler.errors import EmptyRecording, StenoError, UpstreamBusy, UpstreamFailed, UpstreamTimeout
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
_MAX_SPLITS = 5  # AWS stops a chain of messages in which a function runs 16 times
_CRASHED = (
    "The server crashed several times while it transcribed a part. See the server log for the"
    " reason."
)
_TRANSIENT = UpstreamBusy | UpstreamFailed | UpstreamTimeout


@dataclass(frozen=True)
class TranscribePart:
    """Transcribes parts.

    `throttle` limits the rate of requests after the upstream has responded that it is busy.
    """

    jobs: Jobs
    finish: Finish
    throttle: Throttle
    client: LazyClient
    metrics: Metrics
    pacing: Pacing
    models: Models
    sleep: Callable[[float], None] = time.sleep

    def run(self, part: PartMessage, message: Message, until: float) -> None:
        """Transcribe the part, save its transcript, and finish the job if no other part is missing.

        `until` is the deadline by `time.monotonic`. Raises RetryLater if the message should be
        delivered again, for example because the upstream is busy. If the part cannot be
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
            self.finish.clean_up_after_part(part)  # the ledger may have a claim of a deleted job
            return
        log.info("Part %d of job %s was transcribed.", part.number, job.id)
        self.metrics.emit(Parts=1)
        self.finish.finish_if_all_saved(job)

    def _transcribe(
        self, job: Job, part: PartMessage, attempts: PartAttempts, message: Message, until: float
    ) -> PartTranscript | None:
        """Return the transcript of a part; None if the part is sent back to be split."""
        claim_seconds = self.pacing.claim_seconds
        payer = f"{job.id}/{part.generation}/{part.number}/"
        holder = f"{payer}{uuid4().hex}"
        try:
            claimed = self.jobs.ledger.claim(part.entry, holder, 0.0, claim_seconds)
        except ClaimHeld:
            raise RetryLater(message.backoff(5.0, claim_seconds)) from None
        if isinstance(claimed, PaidAnswer):
            transcript = claimed.transcript
            # An earlier delivery may have paid for the answer and crashed before it was saved.
            paid = claimed.seconds if claimed.holder.startswith(payer) else 0.0
        else:

            def renew() -> None:
                self.jobs.ledger.renew(part.entry, holder, claim_seconds)
                message.set_visibility(claim_seconds)

            try:
                with heartbeat(claim_seconds / 3, renew):
                    transcript, paid = self._request(job, part, attempts, message, until)
                    answer = PaidAnswer(transcript, holder, paid)
                    retry_through_outage(self.jobs.ledger.store, part.entry, answer, until=until)
            except Exception:
                self.jobs.ledger.release(part.entry, holder, 0.0)
                raise
        if (
            transcript.cut_off
            and part.seconds > _MAX_UNSPLIT_SECONDS
            and part.split_depth < _MAX_SPLITS
        ):
            self.jobs.queues.send_split(SplitRequest(part, paid, (part.entry,)), job.account)
            return None
        return part_transcript(part, transcript, paid, (part.entry,))

    def _request(
        self, job: Job, part: PartMessage, attempts: PartAttempts, message: Message, until: float
    ) -> tuple[Transcript, float]:
        """Send the part to the upstream.

        Return the transcript, and the seconds that were paid for the part. They include failed
        attempts that may have been billed.
        """
        self._wait_for_turn(message)
        if attempts.crashes >= _MAX_CRASHES:
            raise StenoError(_CRASHED)
        request = UpstreamRequest.for_job(job, self.models)
        with scratch_folder() as folder:
            path = folder / "part.flac"
            with path.open("w+b") as file:
                self.jobs.objects.download(part.key, file)
            # Count a crash before the request: a process that crashes cannot count it afterwards.
            running = replace(attempts, crashes=attempts.crashes + 1, seconds=part.seconds)
            self._record(part, running)
            started = time.monotonic()
            timeout = min(self.pacing.call_seconds, until - started)
            try:
                transcript = self._send(path, request, timeout)
            except EmptyRecording:  # the last part of a recording may be too short for a word
                return Transcript("", request.model, seconds_billed=0.0), attempts.seconds_paid
            except Exception as error:
                self._record_failure(part, attempts, error, message)
                raise
        billed = part.seconds if transcript.seconds_billed is None else transcript.seconds_billed
        milliseconds = round((time.monotonic() - started) * 1000)
        self.metrics.emit(UpstreamMilliseconds=milliseconds, SecondsPaid=billed)
        return transcript, attempts.seconds_paid + billed

    def _wait_for_turn(self, message: Message) -> None:
        """Wait until a request may be sent. Raises RetryLater if that takes too long.

        Waiting here is better than a return to the queue: SQS serves new messages roughly in turn
        for all callers, but not returned ones.
        """
        waited = 0.0
        while seconds := self.throttle.acquire():
            waited += seconds
            if waited > self.pacing.turn_seconds:
                raise self._retry_when_free(message, seconds)
            self.sleep(seconds)

    def _retry_when_free(self, message: Message, seconds: float) -> RetryLater:
        """Return a RetryLater of at least `seconds`.

        SQS gives up a message after 200 deliveries. The pause grows with each delivery, so that
        this takes about a day.
        """
        pause = 2 * self.pacing.first_backoff_seconds * message.deliveries
        return RetryLater(with_jitter(max(seconds, pause)))

    def _send(self, path: Path, request: UpstreamRequest, timeout: float) -> Transcript:
        async def transcribe() -> Transcript:
            with path.open("rb") as file:
                return await self.client.get().transcribe(
                    file, FLAC, request.parameters, timeout, attempts=1
                )

        return anyio.run(transcribe)

    def _record_failure(
        self, part: PartMessage, attempts: PartAttempts, error: Exception, message: Message
    ) -> None:
        """Store the result of a failed request. Raises RetryLater if the part should be retried."""
        log.info("The request for part %d of job %s failed: %s", part.number, part.job, error)
        if not (isinstance(error, StenoError) or is_outage(error)):
            return  # it stays counted as a crash
        # Earlier crashes may have been billed, so they count as unanswered requests.
        attempts = replace(
            attempts,
            crashes=0,
            seconds=part.seconds,
            unanswered=attempts.unanswered + attempts.crashes,
        )
        if is_outage(error) or not isinstance(error, _TRANSIENT):
            self._record(part, attempts)
            return
        if isinstance(error, UpstreamBusy):
            wait = error.retry_after or message.backoff(
                self.pacing.first_backoff_seconds, _MAX_BACKOFF_SECONDS
            )
            self.throttle.slow_down(wait)
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

    def _record(self, part: PartMessage, attempts: PartAttempts) -> None:
        self.jobs.parts.record_attempts(part, attempts, int(self.jobs.expiry()))
