"""The first step of a job: cut its recording into parts, and send a message about each."""

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
from handler.recordings.cutting import VERSION, Part, parts_of
from handler.recordings.speech_activity import SAMPLE_RATE
from handler.recordings.workspace import scratch_folder
from handler.steps.finish import Finish
from handler.steps.heartbeat import heartbeat
from handler.steps.pacing import Pacing
from handler.steps.upstream_request import UpstreamRequest
from handler.upstream.models import Models

log = logging.getLogger("steno")

_MOST_ATTEMPTS = 5
GAVE_UP = (
    "The server tried to cut the recording several times without success. Its log has the reason."
)


@dataclass(frozen=True)
class Cut:
    """Cuts recordings. Every write can be made again: the same bytes give the same parts."""

    jobs: Jobs
    finish: Finish
    pacing: Pacing
    models: Models

    def cut_recording(self, key: str, message: Message, until: float) -> None:
        """Cut the recording `key`, and transcribe what needs no upstream.

        `until` is when the function ends, by `time.monotonic`.
        """
        claim_seconds = self.pacing.claim_seconds
        message.set_visibility(claim_seconds)  # it comes back soon if this process dies
        try:
            job = self.jobs.progress.begin(key)
        except Superseded:
            self.finish.clean_up_after(key)
            return
        if job.generation and job.total is not None:
            self.finish.finish_if_all_saved(
                job
            )  # a second message, or the process died just before
            return
        try:
            if job.attempts > _MOST_ATTEMPTS:
                raise StenoError(GAVE_UP)
            with (
                heartbeat(claim_seconds / 3, lambda: message.set_visibility(claim_seconds)),
                scratch_folder() as folder,
            ):
                recording = folder / "recording"
                job, request, known = self._start(job, recording)
                self._cut(job, request, known, recording, until)
        except Superseded:
            self.finish.clean_up_after(key)
        except StenoError as error:
            if is_outage(error):
                raise
            self.finish.fail(job, error)
        except Exception as error:
            if is_outage(error):
                self.jobs.progress.undo_begin(job)
            raise

    def _start(self, job: Job, recording: Path) -> tuple[Job, UpstreamRequest, PaidAnswer | None]:
        """Fetch the recording and begin its generation. Return also what the ledger has of all of it."""
        with recording.open("w+b") as file:
            self.jobs.objects.fetch(job.key, file)
            request = UpstreamRequest.of(job, self.models)
            digest = sha256_of(file)
            entry = request.answer_key(job.owner, digest)
            known = self.jobs.ledger.find(entry)
            if known and (
                known.transcript.cut_off or looks_truncated(file, known.transcript.seconds_billed)
            ):
                known = None
        # The same name only for the same cuts of the same recording.
        named = json.dumps([digest, self._part_seconds(request), VERSION, job.retries])
        generation = hashlib.sha256(named.encode()).hexdigest()[:16]
        return self._begin_generation(job, generation, entry), request, known

    def _begin_generation(self, job: Job, generation: str, entry: str) -> Job:
        """Begin a generation. End that of another recording which came before under the same form."""
        if job.generation in ("", generation):
            return self.jobs.progress.start_generation(job, generation, entry)
        spent = self.jobs.parts.seconds_spent(job.id, job.generation)
        begun = self.jobs.progress.start_generation(job, generation, entry, spent)
        # Only now no part of it can begin any more.
        self.jobs.settle(job, self.jobs.parts.seconds_spent(job.id, job.generation))
        return begun

    def _part_seconds(self, request: UpstreamRequest) -> float:
        return (
            self.pacing.timed_part_seconds if request.needs_alignment else self.pacing.part_seconds
        )

    def _cut(
        self,
        job: Job,
        request: UpstreamRequest,
        known: PaidAnswer | None,
        recording: Path,
        until: float,
    ) -> None:
        if known and not (
            request.needs_alignment and known.transcript.text and not known.transcript.segments
        ):
            self.finish.complete(job, known.transcript, [])
            return
        sending = _Sending(self.jobs, job, request, known)
        try:
            job = self._send_all(recording, self._part_seconds(request), sending, until)
        except Superseded:
            sending.settle_if_superseded()
            raise
        self.finish.finish_if_all_saved(job)

    def _send_all(
        self, recording: Path, part_seconds: float, sending: "_Sending", until: float
    ) -> Job:
        total, duration, longest = 0, 0.0, self.jobs.settings.max_audio_seconds
        with parts_of(
            recording, recording.parent, longest, part_seconds=part_seconds, until=until
        ) as parts:
            for part in parts:
                sending.send(part)
                part.path.unlink()
                total, duration = part.number + 1, part.at(part.seconds)
        log.info("The recording of job %s is cut into %d parts.", sending.job.id, total)
        return self.jobs.progress.set_total(sending.job, total, duration)

    def split_part(self, split: SplitRequest, message: Message, until: float) -> None:
        """Cut a part in two, because the answer about all of it was cut off."""
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
            self.jobs.objects.fetch(whole.key, file)
        half, longest = whole.seconds / 2, whole.seconds + 1
        how = {"part_seconds": half, "search_seconds": half / 8, "until": until}
        with parts_of(folder / "recording", folder, longest, **how) as parts:
            pieces = [
                replace(
                    piece,
                    number=whole.piece_number(piece.number),
                    start=whole.start + piece.start,
                    timeline=whole.timeline_of(piece),
                )
                for piece in parts
            ]
        # Before it is saved: a second message about the part would take an empty transcript for all of it.
        job = self.jobs.progress.split(job, whole.number, len(pieces))
        answer = PartTranscript(
            whole.number, whole.start, "", (), None, split.seconds_paid, split.entries, 0
        )
        self.jobs.parts.save(job.id, job.generation, answer, int(self.jobs.expiry()))
        sending = _Sending(self.jobs, job, UpstreamRequest.of(job, self.models), None)
        for piece in pieces:
            sending.send_piece(piece)
        self.finish.finish_if_all_saved(sending.job)


class _Sending:
    """The parts of one generation on their way: saved at once, or uploaded and announced to the transcriber."""

    def __init__(
        self, jobs: Jobs, job: Job, request: UpstreamRequest, known: PaidAnswer | None
    ) -> None:
        """`known` is the text of the whole recording, which was transcribed in one request without times."""
        self.job = job
        self._jobs = jobs
        self._asking = request
        self._known = known.transcript if known else None
        begun_before = job.attempts > 1 or job.retries
        self._earlier = (
            jobs.parts.saved_in_any_generation(job.id, job.generation) if begun_before else {}
        )
        self._has_reserved = False

    def send(self, part: Part) -> None:
        """Make sure that a part will be transcribed."""
        expected = max(part.of, part.number + 1)
        if expected != self.job.expected:
            self.job = self._jobs.progress.set_expected_parts(self.job, expected)
        if part.number in self.job.saved:
            return
        entry = self._entry(part)
        transcript = self._transcript(part, entry)
        if transcript:
            self._save(transcript)
            return
        self._reserve(part)
        self._send(part, entry, express=part.of == 1 or is_from_request(self.job.key))

    def send_piece(self, piece: Part) -> None:
        """Make sure that a piece of a part will be transcribed. Its part has reserved the budget."""
        if piece.number in self.job.saved:
            return
        if not piece.speech:
            self._save(PartTranscript(piece.number, piece.start, "", samples=piece.samples))
            return
        self._send(piece, self._entry(piece), express=is_from_request(self.job.key))

    def settle_if_superseded(self) -> None:
        """Settle what was reserved after the job was deleted, or after its next generation began."""
        now = self._jobs.progress.job(self.job.id)
        if now is None or now.generation != self.job.generation:
            self._jobs.settle(self.job, 0.0)  # does nothing if it was settled by whoever did that

    def _entry(self, part: Part) -> str:
        with part.path.open("rb") as file:
            return self._asking.answer_key(self.job.owner, sha256_of(file))

    def _transcript(self, part: Part, entry: str) -> PartTranscript | None:
        """Return what is known of a part without the upstream."""
        if earlier := self._earlier.get((entry, part.start)):
            return replace(earlier, number=part.number)
        if self._known and part.is_all_of(self._known.seconds_billed):
            return part_transcript(part, self._known)
        if not part.speech:
            return PartTranscript(part.number, part.start, "", samples=part.samples)
        return None

    def _save(self, transcript: PartTranscript) -> None:
        self._jobs.parts.save(
            self.job.id, self.job.generation, transcript, int(self._jobs.expiry())
        )
        self.job = self._jobs.progress.add_saved(self.job, transcript.number)

    def _reserve(self, part: Part) -> None:
        """Reserve the budget of the whole job before the first part is sent."""
        if self._has_reserved:
            return
        if not self.job.reserved_on:
            saved = sum(earlier.samples for earlier in self._earlier.values()) / SAMPLE_RATE
            seconds = max(part.whole - saved, part.seconds)
            self.job = self._jobs.progress.reserve(self.job, self._jobs.budget.today(), seconds)
        job = self.job
        self._jobs.budget.reserve(
            job.account, job.reserved_seconds, reservation_id(job), job.reserved_on
        )
        self._has_reserved = True

    def _send(self, part: Part, entry: str, *, express: bool) -> None:
        sent = PartMessage(
            job=self.job.id,
            generation=self.job.generation,
            entry=entry,
            number=part.number,
            start=part.start,
            samples=part.samples,
            timeline=part.timeline,
            speech=part.speech,
        )
        with part.path.open("rb") as file:
            self._jobs.objects.put(sent.key, file, FLAC.media_type)
        self._jobs.queues.send_part(sent, self.job.account, express=express)
