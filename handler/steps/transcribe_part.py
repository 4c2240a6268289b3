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
from handler.billing.ledger import Answer, Taken
from handler.errors import EmptyRecording, StenoError, UpstreamBusy, UpstreamFailed, UpstreamTimeout
from handler.jobs.job import Job
from handler.jobs.messages import GiveBack, Halving, Message
from handler.jobs.parts import PartTranscript, SentPart, Tries, transcript_of
from handler.jobs.progress import Superseded
from handler.jobs.store import Jobs
from handler.recordings.container import FLAC
from handler.recordings.workspace import scratch
from handler.steps.asking import Asking
from handler.steps.finish import Finish
from handler.steps.heartbeat import heartbeat
from handler.steps.pacing import Pacing
from handler.transcripts.transcript import Transcript
from handler.upstream.busy import Busy, spread
from handler.upstream.lazy_client import LazyClient
from handler.upstream.models import Models

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
    busy: Busy
    client: LazyClient
    metrics: Metrics
    pacing: Pacing
    models: Models
    sleep: Callable[[float], None] = time.sleep

    def run(self, part: SentPart, message: Message, until: float) -> None:
        """Transcribe the part. `until` is when the function ends, by `time.monotonic`.

        GiveBack if that has to be done later.
        """
        message.keep(self.pacing.hold)
        job = self.jobs.progress.job(part.job)
        if job is None or job.status != "processing" or job.generation != part.generation:
            self.finish.clean_up_after_part(part)
            return
        if part.number in job.saved:
            self.finish.if_whole(job)
            return
        found = self.jobs.parts.find(part)
        try:
            if isinstance(found, Tries):
                transcript = self._transcribed(job, part, found, message, until)
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
        self.metrics.tell(Parts=1)
        self.finish.if_whole(job)

    def _transcribed(
        self, job: Job, part: SentPart, tries: Tries, message: Message, until: float
    ) -> PartTranscript | None:
        """Return the transcript of a part; None if it is cut in halves first."""
        hold = self.pacing.hold
        payer = f"{job.id}/{part.generation}/{part.number}/"
        holder = f"{payer}{uuid4().hex}"
        try:
            claimed = self.jobs.ledger.claim(part.entry, holder, 0.0, hold)
        except Taken:
            raise GiveBack(message.growing(5.0, hold)) from None
        if isinstance(claimed, Answer):
            transcript = claimed.transcript
            paid = claimed.seconds if claimed.holder.startswith(payer) else 0.0  # it crashed before it was saved
        else:

            def renew() -> None:
                self.jobs.ledger.renew(part.entry, holder, hold)
                message.keep(hold)

            try:
                with heartbeat(hold / 3, renew):
                    transcript, paid = self._asked(job, part, tries, message, until)
                    answer = Answer(transcript, holder, paid)
                    retry_through_outage(self.jobs.ledger.keep, part.entry, answer, until=until)
            except Exception:
                self.jobs.ledger.release(part.entry, holder, 0.0)
                raise
        if transcript.cut_off and part.seconds > _SHORTEST_SECONDS and part.halvings < _MOST_HALVINGS:
            self.jobs.queues.send_halving(Halving(part, paid, (part.entry,)), job.account)
            return None
        return transcript_of(part, transcript, paid, (part.entry,))

    def _asked(
        self, job: Job, part: SentPart, tries: Tries, message: Message, until: float
    ) -> tuple[Transcript, float]:
        """Ask the upstream. Return its answer, and the seconds that were paid for the part in all."""
        self._wait_for_turn(message)
        if tries.crashes >= _MOST_CRASHES:
            raise StenoError(_CRASHED)
        asking = Asking.of(job, self.models)
        with scratch() as folder:
            path = folder / "part.flac"
            with path.open("w+b") as file:
                self.jobs.objects.fetch(part.key, file)
            begun = replace(tries, crashes=tries.crashes + 1, seconds=part.seconds)
            self._note(part, begun)
            began = time.monotonic()
            try:
                transcript = self._sent(path, asking, min(self.pacing.deadline, until - began))
            except EmptyRecording:  # a last part too short to have a word
                return Transcript("", asking.model, seconds_billed=0.0), tries.seconds_paid
            except Exception as error:
                self._failed(part, tries, error, message)
                raise
        billed = part.seconds if transcript.seconds_billed is None else transcript.seconds_billed
        milliseconds = round((time.monotonic() - began) * 1000)
        self.metrics.tell(UpstreamMilliseconds=milliseconds, SecondsPaid=billed)
        return transcript, tries.seconds_paid + billed

    def _wait_for_turn(self, message: Message) -> None:
        """Wait until the upstream can be asked. GiveBack if that takes long.

        A message that waits in the queue is served in its caller's turn; one that was given back is not.
        """
        waited = 0.0
        while left := self.busy.turn():
            waited += left
            if waited > self.pacing.wait:
                raise self._while_busy(message, left)
            self.sleep(left)

    def _while_busy(self, message: Message, seconds: float) -> GiveBack:
        """Return what gives the message back for so many seconds at least.

        It takes longer with each delivery: 200 of them, after which the queue gives a message up, last a day.
        """
        return GiveBack(spread(max(seconds, 2 * self.pacing.pause * message.deliveries)))

    def _sent(self, path: Path, asking: Asking, within: float) -> Transcript:
        async def ask() -> Transcript:
            with path.open("rb") as file:
                return await self.client.get().transcribe(file, FLAC, asking.parameters, within, attempts=1)

        return anyio.run(ask)

    def _failed(self, part: SentPart, tries: Tries, error: Exception, message: Message) -> None:
        """Write down how a request ended. GiveBack if the part is to be sent again."""
        log.info("Part %d of job %s got no transcript: %s", part.number, part.job, error)
        if not (isinstance(error, StenoError) or is_outage(error)):
            return  # it counts as a crash
        tries = replace(tries, crashes=0, seconds=part.seconds, unanswered=tries.unanswered + tries.crashes)
        if is_outage(error) or not isinstance(error, _TRANSIENT):
            self._note(part, tries)
            return
        if isinstance(error, UpstreamBusy):
            wait = error.retry_after or message.growing(self.pacing.pause, _LONGEST_PAUSE_SECONDS)
            self.busy.slow_down(wait)
            self._note(part, tries)
            raise self._while_busy(message, wait) from None
        if error.again:
            tries = replace(tries, refused=tries.refused + 1)
        else:
            tries = replace(tries, unanswered=tries.unanswered + 1)
        self._note(part, tries)
        if tries.unanswered < _MOST_UNANSWERED and tries.refused < _MOST_REFUSED:
            wait = error.retry_after or message.growing(self.pacing.pause, _LONGEST_PAUSE_SECONDS)
            raise GiveBack(spread(wait)) from None

    def _note(self, part: SentPart, tries: Tries) -> None:
        self.jobs.parts.note(part, tries, int(self.jobs.expiry()))
