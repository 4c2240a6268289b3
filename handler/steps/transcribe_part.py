"""The middle step of a job: transcribe one part, save the words, and finish the job with its last part."""

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

_MOST_CRASHES = 5
_MOST_UNANSWERED = 3  # requests that may have been billed
_MOST_REFUSED = 10  # requests that were not billed, with pauses of 2 to 60 s between them
_LONGEST_PAUSE_SECONDS = 60.0
_SHORTEST_SECONDS = 20.0  # a part that is not halved any more
_MOST_HALVINGS = 5  # AWS ends a chain of messages in which a function runs 16 times
_CRASHED = "The server stopped several times while it transcribed a part. Its log has the reason."
_TRANSIENT = UpstreamBusy | UpstreamFailed | UpstreamTimeout


@dataclass(frozen=True)
class TranscribePart:
    """Transcribes parts, each in one delivery of its message."""

    jobs: Jobs
    finish: Finish
    busy: Throttle
    client: LazyClient
    metrics: Metrics
    pacing: Pacing
    models: Models
    sleep: Callable[[float], None] = time.sleep

    def run(self, part: PartMessage, message: Message, until: float) -> None:
        """Transcribe the part. `until` is when the function ends, by `time.monotonic`.

        RetryLater if that has to be done later.
        """
        message.set_visibility(self.pacing.claim_seconds)
        job = self.jobs.progress.job(part.job)
        if job is None or job.status != "processing" or job.generation != part.generation:
            self.finish.clean_up_after_part(part)
            return
        if part.number in job.saved:
            self.finish.finish_if_all_saved(job)
            return
        found = self.jobs.parts.find(part)
        try:
            if isinstance(found, PartAttempts):
                transcript = self._transcribe(job, part, found, message, until)
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
            self.finish.clean_up_after_part(part)  # if the job was deleted, its claim is left
            return
        log.info("Part %d of job %s is transcribed.", part.number, job.id)
        self.metrics.emit(Parts=1)
        self.finish.finish_if_all_saved(job)

    def _transcribe(
        self, job: Job, part: PartMessage, tries: PartAttempts, message: Message, until: float
    ) -> PartTranscript | None:
        """Return the transcript of a part; None if it is cut in halves first."""
        claim_seconds = self.pacing.claim_seconds
        payer = f"{job.id}/{part.generation}/{part.number}/"
        holder = f"{payer}{uuid4().hex}"
        try:
            claimed = self.jobs.ledger.claim(part.entry, holder, 0.0, claim_seconds)
        except ClaimHeld:
            raise RetryLater(message.backoff(5.0, claim_seconds)) from None
        if isinstance(claimed, PaidAnswer):
            transcript = claimed.transcript
            paid = (
                claimed.seconds if claimed.holder.startswith(payer) else 0.0
            )  # it crashed before it was saved
        else:

            def renew() -> None:
                self.jobs.ledger.renew(part.entry, holder, claim_seconds)
                message.set_visibility(claim_seconds)

            try:
                with heartbeat(claim_seconds / 3, renew):
                    transcript, paid = self._request(job, part, tries, message, until)
                    answer = PaidAnswer(transcript, holder, paid)
                    retry_through_outage(self.jobs.ledger.store, part.entry, answer, until=until)
            except Exception:
                self.jobs.ledger.release(part.entry, holder, 0.0)
                raise
        if (
            transcript.cut_off
            and part.seconds > _SHORTEST_SECONDS
            and part.split_depth < _MOST_HALVINGS
        ):
            self.jobs.queues.send_split(SplitRequest(part, paid, (part.entry,)), job.account)
            return None
        return part_transcript(part, transcript, paid, (part.entry,))

    def _request(
        self, job: Job, part: PartMessage, tries: PartAttempts, message: Message, until: float
    ) -> tuple[Transcript, float]:
        """Ask the upstream. Return its answer, and the seconds that were paid for the part in all."""
        self._wait_for_turn(message)
        if tries.crashes >= _MOST_CRASHES:
            raise StenoError(_CRASHED)
        request = UpstreamRequest.of(job, self.models)
        with scratch_folder() as folder:
            path = folder / "part.flac"
            with path.open("w+b") as file:
                self.jobs.objects.fetch(part.key, file)
            begun = replace(tries, crashes=tries.crashes + 1, seconds=part.seconds)
            self._record(part, begun)
            began = time.monotonic()
            try:
                transcript = self._send(path, request, min(self.pacing.call_seconds, until - began))
            except EmptyRecording:  # a last part too short to have a word
                return Transcript("", request.model, seconds_billed=0.0), tries.seconds_paid
            except Exception as error:
                self._record_failure(part, tries, error, message)
                raise
        billed = part.seconds if transcript.seconds_billed is None else transcript.seconds_billed
        milliseconds = round((time.monotonic() - began) * 1000)
        self.metrics.emit(UpstreamMilliseconds=milliseconds, SecondsPaid=billed)
        return transcript, tries.seconds_paid + billed

    def _wait_for_turn(self, message: Message) -> None:
        """Wait until the upstream can be asked. RetryLater if that takes long.

        A message that waits in the queue is served in its caller's turn; one that was given back is not.
        """
        waited = 0.0
        while left := self.busy.turn():
            waited += left
            if waited > self.pacing.turn_seconds:
                raise self._retry_when_free(message, left)
            self.sleep(left)

    def _retry_when_free(self, message: Message, seconds: float) -> RetryLater:
        """Return what gives the message back for so many seconds at least.

        It takes longer with each delivery: 200 of them, after which the queue gives a message up, last a day.
        """
        return RetryLater(
            with_jitter(max(seconds, 2 * self.pacing.first_backoff_seconds * message.deliveries))
        )

    def _send(self, path: Path, request: UpstreamRequest, within: float) -> Transcript:
        async def ask() -> Transcript:
            with path.open("rb") as file:
                return await self.client.get().transcribe(
                    file, FLAC, request.parameters, within, attempts=1
                )

        return anyio.run(ask)

    def _record_failure(
        self, part: PartMessage, tries: PartAttempts, error: Exception, message: Message
    ) -> None:
        """Write down how a request ended. RetryLater if the part is to be sent again."""
        log.info("Part %d of job %s got no transcript: %s", part.number, part.job, error)
        if not (isinstance(error, StenoError) or is_outage(error)):
            return  # it counts as a crash
        tries = replace(
            tries, crashes=0, seconds=part.seconds, unanswered=tries.unanswered + tries.crashes
        )
        if is_outage(error) or not isinstance(error, _TRANSIENT):
            self._record(part, tries)
            return
        if isinstance(error, UpstreamBusy):
            wait = error.retry_after or message.backoff(
                self.pacing.first_backoff_seconds, _LONGEST_PAUSE_SECONDS
            )
            self.busy.slow_down(wait)
            self._record(part, tries)
            raise self._retry_when_free(message, wait) from None
        if error.safe_to_retry:
            tries = replace(tries, refused=tries.refused + 1)
        else:
            tries = replace(tries, unanswered=tries.unanswered + 1)
        self._record(part, tries)
        if tries.unanswered < _MOST_UNANSWERED and tries.refused < _MOST_REFUSED:
            wait = error.retry_after or message.backoff(
                self.pacing.first_backoff_seconds, _LONGEST_PAUSE_SECONDS
            )
            raise RetryLater(with_jitter(wait)) from None

    def _record(self, part: PartMessage, tries: PartAttempts) -> None:
        self.jobs.parts.record_attempts(part, tries, int(self.jobs.expiry()))
