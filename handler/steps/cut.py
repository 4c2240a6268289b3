"""The first step of a job: cut its recording into parts, and send a message for each part."""

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from handler.aws.outage import is_outage
from handler.billing.ledger import PaidAnswer, sha256_of
from handler.errors import StenoError
from handler.jobs.job import Job, is_from_request
from handler.jobs.messages import Message, SplitRequest
from handler.jobs.parts import PartMessage, PartTranscript, part_transcript
from handler.jobs.progress import Superseded
from handler.jobs.store import Jobs, reservation_id
from handler.recordings.container import FLAC, looks_truncated
from handler.recordings.cutting import SEARCH_SECONDS, VERSION, Part, cut_into_parts
from handler.recordings.speech_activity import SAMPLE_RATE
from handler.recordings.workspace import scratch_folder
from handler.steps.finish import Finish
from handler.steps.heartbeat import heartbeat
from handler.steps.pacing import Pacing
from handler.steps.upstream_request import UpstreamRequest
from handler.upstream.models import Models

log = logging.getLogger("steno")

_MAX_ATTEMPTS = 5
_GAVE_UP = "Several attempts to cut the recording failed. See the server log for the reason."


@dataclass(frozen=True)
class Cut:
    """Cuts recordings into parts.

    Cutting can be repeated safely, because the same recording is always cut into the same parts.
    """

    jobs: Jobs
    finish: Finish
    pacing: Pacing
    models: Models

    def cut_recording(self, key: str, message: Message, until: float) -> None:
        """Cut a recording, and send a message for each part that the upstream must transcribe.

        `key` is the S3 key of the recording. `until` is the deadline on the `time.monotonic` clock.
        If the recording cannot be cut, the job fails.
        """
        claim_seconds = self.pacing.claim_seconds
        # The timeout is short, so that the message is soon delivered again if this process crashes.
        message.set_visibility(claim_seconds)
        try:
            job = self.jobs.progress.begin_attempt(key)
        except Superseded:
            self.finish.clean_up_after(key)
            return
        if job.generation and job.total is not None:
            # The recording is already cut. An earlier delivery may have crashed before this call.
            self.finish.finish_if_all_saved(job)
            return
        try:
            if job.attempts > _MAX_ATTEMPTS:
                raise StenoError(_GAVE_UP)
            with (
                heartbeat(claim_seconds / 3, lambda: message.set_visibility(claim_seconds)),
                scratch_folder() as folder,
            ):
                recording = folder / "recording"
                job, request, paid_answer = self._start(job, recording)
                self._cut(job, request, paid_answer, recording, until)
        except Superseded:
            self.finish.clean_up_after(key)
        except StenoError as error:
            if is_outage(error):
                raise
            self.finish.fail(job, error)
        except Exception as error:
            if is_outage(error):
                self.jobs.progress.undo_attempt(job)
            raise

    def _start(self, job: Job, recording: Path) -> tuple[Job, UpstreamRequest, PaidAnswer | None]:
        """Download the recording, and start a new generation of parts.

        Return the updated job, the upstream request, and the paid result for the whole recording.
        The paid result is None if the ledger has no complete result.
        """
        with recording.open("w+b") as file:
            self.jobs.objects.download(job.key, file)
            request = UpstreamRequest.for_job(job, self.models)
            digest = sha256_of(file)
            ledger_key = request.answer_key(job.owner, digest)
            paid_answer = self.jobs.ledger.find(ledger_key)
            if paid_answer:
                transcript = paid_answer.transcript
                if transcript.cut_off or looks_truncated(file, transcript.seconds_billed):
                    paid_answer = None
        # The generation is the same only if the same recording is cut in the same way.
        inputs = json.dumps([digest, self._part_seconds(request), VERSION, job.retries])
        generation = hashlib.sha256(inputs.encode()).hexdigest()[:16]
        return self._start_generation(job, generation, ledger_key), request, paid_answer

    def _start_generation(self, job: Job, generation: str, ledger_key: str) -> Job:
        """Start a generation.

        If another recording was uploaded earlier with the same form, settle the reservation for
        that recording.
        """
        if job.generation in ("", generation):
            return self.jobs.progress.start_generation(job, generation, ledger_key)
        spent = self.jobs.parts.seconds_spent(job.id, job.generation)
        updated = self.jobs.progress.start_generation(job, generation, ledger_key, spent)
        # Settle the reservation only after the update. Before the update, more parts of the old
        # generation can start.
        self.jobs.settle(job, self.jobs.parts.seconds_spent(job.id, job.generation))
        return updated

    def _part_seconds(self, request: UpstreamRequest) -> float:
        pacing = self.pacing
        seconds = pacing.timed_part_seconds if request.needs_alignment else pacing.part_seconds
        if request.model.max_seconds is None:
            return seconds
        # The length of a part can exceed `part_seconds` by SEARCH_SECONDS, so that the lengths are
        # equal, and by as much again, so that it ends in a pause.
        return min(seconds, max(request.model.max_seconds - 2 * SEARCH_SECONDS, SEARCH_SECONDS))

    def _cut(
        self,
        job: Job,
        request: UpstreamRequest,
        paid_answer: PaidAnswer | None,
        recording: Path,
        until: float,
    ) -> None:
        if paid_answer:
            transcript = paid_answer.transcript
            lacks_times = transcript.text and not transcript.segments
            if not (request.needs_alignment and lacks_times):
                self.finish.complete(job, transcript, [])
                return
        sender = _PartSender(self.jobs, job, request, paid_answer)
        try:
            job = self._send_all(recording, self._part_seconds(request), sender, until)
        except Superseded:
            sender.settle_if_superseded()
            raise
        self.finish.finish_if_all_saved(job)

    def _send_all(
        self, recording: Path, part_seconds: float, sender: "_PartSender", until: float
    ) -> Job:
        total, duration, max_seconds = 0, 0.0, self.jobs.settings.max_audio_seconds
        with cut_into_parts(
            recording, recording.parent, max_seconds, part_seconds=part_seconds, until=until
        ) as parts:
            for part in parts:
                sender.send(part)
                part.path.unlink()
                total, duration = part.number + 1, part.at(part.seconds)
        log.info("The recording of job %s was cut into %d parts.", sender.job.id, total)
        return self.jobs.progress.set_total(sender.job, total, duration)

    def split_part(self, split: SplitRequest, message: Message, until: float) -> None:
        """Split a part into two pieces, because its transcript was cut off.

        `until` is the deadline on the `time.monotonic` clock. If the part cannot be split, the job
        fails.
        """
        claim_seconds, part = self.pacing.claim_seconds, split.part
        message.set_visibility(claim_seconds)
        job = self.jobs.progress.job(part.job)
        if not job or job.status != "processing" or job.generation != part.generation:
            self.finish.clean_up_after_part(part)
            return
        try:
            with (
                heartbeat(claim_seconds / 3, lambda: message.set_visibility(claim_seconds)),
                scratch_folder() as folder,
            ):
                self._split(job, split, folder, until)
        except Superseded:
            self.finish.clean_up_after(job.key)
        except StenoError as error:
            if is_outage(error):
                raise
            self.finish.fail(job, error)

    def _split(self, job: Job, split: SplitRequest, folder: Path, until: float) -> None:
        whole = split.part
        with (folder / "recording").open("w+b") as file:
            self.jobs.objects.download(whole.key, file)
        half, max_seconds = whole.seconds / 2, whole.seconds + 1
        limits = {"part_seconds": half, "search_seconds": half / 8, "until": until}
        with cut_into_parts(folder / "recording", folder, max_seconds, **limits) as parts:
            pieces = [
                replace(
                    piece,
                    number=whole.piece_number(piece.number),
                    start=whole.start + piece.start,
                    timeline=whole.timeline_of(piece),
                )
                for piece in parts
            ]
        # Update the job before the empty transcript is saved. Otherwise, if the message
        # for the part is delivered twice, the empty transcript could become the result of the part.
        job = self.jobs.progress.split(job, whole.number, len(pieces))
        empty = PartTranscript(
            whole.number, whole.start, "", (), None, split.seconds_paid, split.entries, 0
        )
        self.jobs.parts.save(job.id, job.generation, empty, int(self.jobs.expiry()))
        sender = _PartSender(self.jobs, job, UpstreamRequest.for_job(job, self.models), None)
        for piece in pieces:
            sender.send_piece(piece)
        self.finish.finish_if_all_saved(sender.job)


class _PartSender:
    """Saves parts whose transcripts are already known, and sends the other parts to a queue.

    `job` is the job after its last update.
    """

    def __init__(
        self, jobs: Jobs, job: Job, request: UpstreamRequest, paid_answer: PaidAnswer | None
    ) -> None:
        """Prepare to send the parts of a job.

        `paid_answer` contains the text of the whole recording, without the timestamps that the job
        requires. It is None if no such text was paid for.
        """
        self.job = job
        self._jobs = jobs
        self._request = request
        self._whole_transcript = paid_answer.transcript if paid_answer else None
        self._reusable: dict[tuple[str, int], PartTranscript] = {}
        if job.attempts > 1 or job.retries:
            self._reusable = jobs.parts.saved_in_any_generation(job.id, job.generation)
        self._has_reserved = False

    def send(self, part: Part) -> None:
        """Save the transcript if it is known. Otherwise, upload the part and send its message."""
        expected = max(part.expected_parts, part.number + 1)
        if expected != self.job.expected:
            self.job = self._jobs.progress.set_expected_parts(self.job, expected)
        if part.number in self.job.saved:
            return
        ledger_key = self._ledger_key(part)
        transcript = self._find_transcript(part, ledger_key)
        if transcript:
            self._save(transcript)
            return
        self._reserve(part)
        express = part.expected_parts == 1 or is_from_request(self.job.key)
        self._send(part, ledger_key, express=express)

    def send_piece(self, piece: Part) -> None:
        """Send a piece of a split part, or save it if it is silent.

        No budget is reserved, because the reservation for the job includes the whole part.
        """
        if piece.number in self.job.saved:
            return
        if not piece.speech:
            self._save(PartTranscript(piece.number, piece.start, "", samples=piece.samples))
            return
        self._send(piece, self._ledger_key(piece), express=is_from_request(self.job.key))

    def settle_if_superseded(self) -> None:
        """Settle the reservation if the job was deleted, or if its next generation has started.

        This step may have made the reservation after that moment. In this case, no other step
        settles it.
        """
        current = self._jobs.progress.job(self.job.id)
        if current is None or current.generation != self.job.generation:
            self._jobs.settle(self.job, 0.0)  # no effect if it is already settled

    def _ledger_key(self, part: Part) -> str:
        with part.path.open("rb") as file:
            return self._request.answer_key(self.job.owner, sha256_of(file))

    def _find_transcript(self, part: Part, ledger_key: str) -> PartTranscript | None:
        """Return the part's transcript if it is available without a request to the upstream."""
        if reusable := self._reusable.get((ledger_key, part.start)):
            return replace(reusable, number=part.number)
        whole = self._whole_transcript
        if whole and part.is_whole_recording(whole.seconds_billed):
            return part_transcript(part, whole)
        if not part.speech:
            return PartTranscript(part.number, part.start, "", samples=part.samples)
        return None

    def _save(self, transcript: PartTranscript) -> None:
        self._jobs.parts.save(
            self.job.id, self.job.generation, transcript, int(self._jobs.expiry())
        )
        self.job = self._jobs.progress.add_saved(self.job, transcript.number)

    def _reserve(self, part: Part) -> None:
        """Reserve the budget for the whole job, once, before the first part is sent."""
        if self._has_reserved:
            return
        if not self.job.reserved_on:
            reusable = sum(saved.samples for saved in self._reusable.values()) / SAMPLE_RATE
            seconds = max(part.recording_seconds - reusable, part.seconds)
            self.job = self._jobs.progress.reserve(self.job, self._jobs.budget.today(), seconds)
        job = self.job
        self._jobs.budget.reserve(
            job.account, job.reserved_seconds, reservation_id(job), job.reserved_on
        )
        self._has_reserved = True

    def _send(self, part: Part, ledger_key: str, *, express: bool) -> None:
        message = PartMessage(
            job=self.job.id,
            generation=self.job.generation,
            entry=ledger_key,
            number=part.number,
            start=part.start,
            samples=part.samples,
            timeline=part.timeline,
            speech=part.speech,
        )
        with part.path.open("rb") as file:
            self._jobs.objects.put(message.key, file, FLAC.media_type)
        self._jobs.queues.send_part(message, self.job.account, express=express)
