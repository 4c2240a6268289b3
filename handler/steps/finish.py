"""The last step of a job: join its parts, store the transcript, and delete what is not needed any more."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from handler.aws.items import to_decimal
from handler.aws.metrics import Metrics
from handler.billing.ledger import PaidAnswer
from handler.errors import StenoError
from handler.jobs.job import Job, job_id_of
from handler.jobs.parts import PartMessage, PartTranscript, folder_of, seconds_paid_for
from handler.jobs.progress import Superseded
from handler.jobs.store import Jobs
from handler.steps.upstream_request import UpstreamRequest
from handler.transcripts.transcript import Transcript
from handler.transcripts.words import joined_text
from handler.upstream.models import Models

log = logging.getLogger("steno")


@dataclass(frozen=True)
class Finish:
    """Ends jobs: with their transcript, or with the error that ended them."""

    jobs: Jobs
    metrics: Metrics
    models: Models

    def finish_if_all_saved(self, job: Job) -> None:
        """Complete the job if all of its parts are saved."""
        if not job.all_parts_saved:
            return
        saved = self.jobs.parts.saved(job.id, job.generation)
        if len(saved) != len(job.saved):
            now = self.jobs.progress.job(job.id)
            if now and now.status == "processing" and now.generation == job.generation:
                raise RuntimeError(f"Parts of the job {job.id} are missing.")
            self._superseded(job)
            return
        transcript = join_parts(saved, UpstreamRequest.of(job, self.models).model, job.duration)
        for entry in job.entries if transcript.text else ():
            self.jobs.ledger.store(entry, PaidAnswer(transcript, job.id, 0.0))
        self.complete(job, transcript, saved)

    def complete(self, job: Job, transcript: Transcript, saved: Sequence[PartTranscript]) -> None:
        """Store the transcript, then the end of the job; delete the rest."""
        self.jobs.objects.put_transcript(job.id, transcript)
        entries = {*job.entries, *(entry for part in saved for entry in part.entries)}
        try:
            job = self.jobs.progress.complete(
                job,
                transcript,
                sorted(entries),
                **_account(job, saved, seconds_paid_for(saved)),
                total=len(saved),
                expires=int(self.jobs.expiry(self.jobs.settings.transcript_days)),
            )
        except Superseded:
            self._superseded(job)
            return
        log.info("Job %s is completed.", job.id, extra=_ids(job))
        self.metrics.emit(JobsCompleted=1)
        self.clean_up(job)

    def _superseded(self, job: Job) -> None:
        """Another delivery has ended the job, or it was deleted: then nothing may be left of it."""
        now = self.jobs.progress.job(job.id)
        if now is None:
            self.jobs.delete_leftovers(job.key, job.id, job.entries)
        elif now.finished:
            self.clean_up(now)

    def clean_up_after(self, key: str) -> None:
        """Delete what a job that is deleted or has ended may have left, by the key of its recording."""
        identity = job_id_of(key)
        job = self.jobs.progress.job(identity)
        if job is None:
            log.info("The recording %s belongs to no job.", key)
            self.jobs.delete_leftovers(key, identity)
        elif job.finished:
            self.clean_up(job)

    def clean_up_after_part(self, part: PartMessage) -> None:
        """Delete what a part may have left, if its job is deleted or has ended."""
        job = self.jobs.progress.job(part.job)
        if job is None:
            self.jobs.delete_leftovers(part.key, part.job)
            self.jobs.ledger.delete_if_paid_by(part.entry, part.job)
        elif job.finished:
            self.clean_up(job)

    def clean_up(self, job: Job) -> None:
        """Delete what a job that has ended does not need, and settle its budget. Can be repeated."""
        self.jobs.settle(job, job.spent_seconds)
        if (
            job.status == "failed"
        ):  # a retry needs the rest, and may be under way: it has another generation
            self.jobs.objects.delete_below(f"{folder_of(job.id)}{job.generation}/")
            return
        self.jobs.objects.delete(job.key)
        self.jobs.objects.delete_below(folder_of(job.id))
        for entry in self.jobs.parts.delete_all(job.id):
            if (
                entry not in job.entries
            ):  # of an older generation: nothing would delete it with the job
                self.jobs.ledger.delete(entry)

    def fail(self, job: Job, error: StenoError) -> None:
        """End the job with an error, unless it has ended or has another generation by now.

        Its recording and its saved parts stay for a retry.
        """
        now = self.jobs.progress.job(job.id)
        if now is None or now.status != "processing" or now.generation != job.generation:
            self._superseded(job)
            return
        saved = self.jobs.parts.saved(job.id, job.generation)
        spent = self.jobs.parts.seconds_spent(job.id, job.generation)
        try:
            job = self.jobs.progress.fail(job, error, **_account(job, saved, spent))
        except Superseded:
            self._superseded(job)
            return
        log.warning("Job %s failed: %s: %s", job.id, error.code, error.detail, extra=_ids(job))
        self.metrics.emit(error.code, Failures=1)
        self.metrics.emit(JobsFailed=1)
        self.clean_up(job)


def _ids(job: Job) -> dict[str, str]:
    """Return what a line of the log about the end of a job has besides its words."""
    return {"job": job.id, "request": job.request}


def _account(job: Job, saved: Sequence[PartTranscript], spent: float) -> dict[str, object]:
    return {
        "done": len(saved),
        "seconds_paid": to_decimal(job.paid_earlier + spent),
        "spent_seconds": to_decimal(spent),
    }


def join_parts(saved: Sequence[PartTranscript], model: str, duration: float | None) -> Transcript:
    """Return the transcript of a recording from those of its parts, in their order.

    The model names the speakers anew in each part, so their labels get the number of the part.
    """
    several = sum(bool(part.segments) for part in saved) > 1
    segments = [
        replace(segment, speaker=f"{count}-{segment.speaker}")
        if several and segment.speaker
        else segment
        for count, part in enumerate(saved, 1)
        for segment in part.segments
    ]
    return Transcript(
        text=joined_text(part.text for part in saved),
        model=model,
        segments=tuple(segments),
        language=next((part.language for part in saved if part.language), None),
        duration=None if duration is None else round(duration, 3),
    )
