"""The last step of a job: join its parts, store the transcript, and delete temporary data."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from handler.aws.items import to_decimal
from handler.aws.metrics import Metrics
from handler.billing.ledger import PaidAnswer
from handler.errors import StenoError
from handler.jobs.job import Job, job_id_of
from handler.jobs.parts import PartMessage, PartTranscript, parts_prefix, seconds_paid_for
from handler.jobs.progress import Superseded
from handler.jobs.store import Jobs
from handler.steps.upstream_request import UpstreamRequest
from handler.transcripts.transcript import Transcript
from handler.transcripts.words import join_texts
from handler.upstream.models import Models

log = logging.getLogger("steno")


@dataclass(frozen=True)
class Finish:
    """Stores the transcripts or errors of jobs, and ends the jobs."""

    jobs: Jobs
    metrics: Metrics
    models: Models

    def finish_if_all_saved(self, job: Job) -> None:
        """Complete the job if all of its parts are saved."""
        if not job.all_parts_saved:
            return
        saved = self.jobs.parts.saved(job.id, job.generation)
        if len(saved) != len(job.saved):
            current = self.jobs.progress.job(job.id)
            if current and current.status == "processing" and current.generation == job.generation:
                raise RuntimeError(f"Saved parts of job {job.id} are missing from the table.")
            self._clean_up_superseded(job)
            return
        model = UpstreamRequest.for_job(job, self.models).model.full_name
        transcript = join_parts(saved, model, job.duration)
        for ledger_key in job.entries if transcript.text else ():
            self.jobs.ledger.store(ledger_key, PaidAnswer(transcript, job.id, 0.0))
        self.complete(job, transcript, saved)

    def complete(self, job: Job, transcript: Transcript, saved: Sequence[PartTranscript]) -> None:
        """Store the transcript, set the job to `completed`, and delete its temporary data.

        `saved` are the transcripts of the parts.
        """
        self.jobs.objects.put_transcript(job.id, transcript)
        entries = {*job.entries, *(ledger_key for part in saved for ledger_key in part.entries)}
        try:
            job = self.jobs.progress.complete(
                job,
                transcript,
                sorted(entries),
                **_cost_fields(job, saved, seconds_paid_for(saved)),
                total=len(saved),
                expires=int(self.jobs.expiry(self.jobs.settings.transcript_days)),
            )
        except Superseded:
            self._clean_up_superseded(job)
            return
        log.info("Job %s was completed.", job.id, extra=_log_fields(job))
        self.metrics.emit(JobsCompleted=1)
        self.clean_up(job)

    def _clean_up_superseded(self, job: Job) -> None:
        """Delete the remaining data of a job that was deleted or that another delivery ended."""
        current = self.jobs.progress.job(job.id)
        if current is None:
            self.jobs.delete_leftovers(job.key, job.id, job.entries)
        elif current.finished:
            self.clean_up(current)

    def clean_up_after(self, key: str) -> None:
        """If a job was deleted or has ended, delete its remaining data.

        `key` is the S3 key of its recording.
        """
        job_id = job_id_of(key)
        job = self.jobs.progress.job(job_id)
        if job is None:
            log.info("The recording %s is deleted, because its job does not exist.", key)
            self.jobs.delete_leftovers(key, job_id)
        elif job.finished:
            self.clean_up(job)

    def clean_up_after_part(self, part: PartMessage) -> None:
        """Delete the remaining data of a part's job if the job was deleted or has ended."""
        job = self.jobs.progress.job(part.job)
        if job is None:
            self.jobs.delete_leftovers(part.key, part.job)
            self.jobs.ledger.delete_if_paid_by(part.entry, part.job)
        elif job.finished:
            self.clean_up(job)

    def clean_up(self, job: Job) -> None:
        """Delete the data that an ended job no longer needs, and settle its reservation.

        This can be repeated safely.
        """
        self.jobs.settle(job, job.spent_seconds)
        if job.status == "failed":
            # Keep all other data for a retry. A retry that has already started has a new
            # generation.
            self.jobs.objects.delete_prefix(f"{parts_prefix(job.id)}{job.generation}/")
            return
        self.jobs.objects.delete(job.key)
        self.jobs.objects.delete_prefix(parts_prefix(job.id))
        for ledger_key in self.jobs.parts.delete_all(job.id):
            # `entries` does not contain the results of older generations, so they would remain if
            # the job were deleted later.
            if ledger_key not in job.entries:
                self.jobs.ledger.delete(ledger_key)

    def fail(self, job: Job, error: StenoError) -> None:
        """Set the job to `failed`, unless it was deleted, has ended or has a new generation.

        The recording and the saved parts are kept for a retry.
        """
        current = self.jobs.progress.job(job.id)
        if (
            current is None
            or current.status != "processing"
            or current.generation != job.generation
        ):
            self._clean_up_superseded(job)
            return
        saved = self.jobs.parts.saved(job.id, job.generation)
        spent = self.jobs.parts.seconds_spent(job.id, job.generation)
        try:
            job = self.jobs.progress.fail(job, error, **_cost_fields(job, saved, spent))
        except Superseded:
            self._clean_up_superseded(job)
            return
        fields = _log_fields(job)
        log.warning("Job %s failed: %s: %s", job.id, error.code, error.detail, extra=fields)
        self.metrics.emit(error.code, Failures=1)
        self.metrics.emit(JobsFailed=1)
        self.clean_up(job)


def _log_fields(job: Job) -> dict[str, str]:
    return {"job": job.id, "request": job.request}


def _cost_fields(job: Job, saved: Sequence[PartTranscript], spent: float) -> dict[str, object]:
    return {
        "done": len(saved),
        "seconds_paid": to_decimal(job.paid_earlier + spent),
        "spent_seconds": to_decimal(spent),
    }


def join_parts(saved: Sequence[PartTranscript], model: str, duration: float | None) -> Transcript:
    """Join the transcripts of a recording's parts, which are in chronological order.

    The result names the models of all parts, or `model` if no part has a model. `duration` is the
    duration of the recording in seconds. The same speaker label can refer to different speakers in
    different parts. If several parts have segments, each label is therefore prefixed with the
    number of its part.
    """
    has_several = sum(bool(part.segments) for part in saved) > 1
    segments = []
    for number, part in enumerate(saved, 1):
        for segment in part.segments:
            if has_several and segment.speaker:
                segments.append(replace(segment, speaker=f"{number}-{segment.speaker}"))
            else:
                segments.append(segment)
    models = dict.fromkeys(part.model for part in saved if part.model)
    return Transcript(
        text=join_texts(part.text for part in saved),
        model=", ".join(models) or model,
        segments=tuple(segments),
        language=next((part.language for part in saved if part.language), None),
        duration=None if duration is None else round(duration, 3),
        aligned=_union(part.aligned for part in saved if part.text),
        languages=tuple(dict.fromkeys(code for part in saved for code in part.languages)),
    )


def _union(sets: Iterable[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """Return all items of the sets, or None if one of them is not known."""
    union: dict[str, None] = {}
    for items in sets:
        if items is None:
            return None
        union |= dict.fromkeys(items)
    return tuple(union)
