"""Handles dead letters: messages that could not be processed after many deliveries."""

import logging
from dataclasses import dataclass

from handler.aws.metrics import Metrics
from handler.errors import StenoError
from handler.jobs.messages import InvalidMessage, SplitRequest, parse_body
from handler.jobs.progress import Superseded
from handler.jobs.store import Jobs
from handler.steps.finish import Finish

log = logging.getLogger("steno")

_GAVE_UP = (
    "Many attempts to process this job failed. Retry it: parts that were transcribed are not billed"
    " again. If it fails again, see the server log for the reason."
)


@dataclass(frozen=True)
class DeadLetters:
    """Sets the jobs of dead letters to `failed`, so that callers can retry the jobs."""

    jobs: Jobs
    finish: Finish
    metrics: Metrics

    def handle(self, body: str) -> None:
        """Set the job of a dead letter to `failed` unless the job can end without this message."""
        try:
            content = parse_body(body)
        except InvalidMessage:
            log.error("A dead letter has an unknown format and is dropped: %s", body[:1000])
            self.metrics.emit(StenoError.code, Failures=1)
            return
        if isinstance(content, list):
            for key in content:
                self._fail_recording(key)
            return
        part = content.part if isinstance(content, SplitRequest) else content
        job = self.jobs.progress.job(part.job)
        # A split part is saved before its pieces are sent. Pieces can therefore be missing although
        # the part is saved. In that case, the job cannot end without this message.
        is_split = isinstance(content, SplitRequest)
        is_needed = is_split or (job and part.number not in job.saved)
        if job and job.generation == part.generation and (is_needed or job.all_parts_saved):
            self.finish.fail(job, StenoError(_GAVE_UP))
        else:
            self.finish.clean_up_after_part(part)

    def _fail_recording(self, key: str) -> None:
        try:
            job = self.jobs.progress.begin_attempt(key)
        except Superseded:
            self.finish.clean_up_after(key)
            return
        # If all parts were sent but some are not saved, their messages can still finish the job.
        if job.total is None or job.all_parts_saved:
            self.finish.fail(job, StenoError(_GAVE_UP))
