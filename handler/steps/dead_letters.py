"""What becomes of a job whose message a queue gave up after many deliveries."""

import logging
from dataclasses import dataclass

from handler.aws.metrics import Metrics
from handler.errors import StenoError
from handler.jobs.messages import InvalidMessage, SplitRequest, read
from handler.jobs.progress import Superseded
from handler.jobs.store import Jobs
from handler.steps.finish import Finish

log = logging.getLogger("steno")

_DEAD = (
    "The server tried to process this job many times without success. Retry it: parts that were"
    " transcribed are not billed again. If it fails again, see the log of the server."
)


@dataclass(frozen=True)
class DeadLetters:
    """Fails the jobs of dead letters, so that they can be retried."""

    jobs: Jobs
    finish: Finish
    metrics: Metrics

    def handle(self, body: str) -> None:
        """Fail the job that a dead letter is about, unless it has ended or has other parts by now."""
        try:
            content = read(body)
        except InvalidMessage:
            log.error("A dead letter that makes no sense is dropped: %s", body[:1000])
            self.metrics.emit(StenoError.code, Failures=1)
            return
        if isinstance(content, list):
            for key in content:
                self._fail_recording(key)
            return
        part = content.part if isinstance(content, SplitRequest) else content
        job = self.jobs.progress.job(part.job)
        # A part to be halved is saved before its halves are sent: its job cannot end without this message.
        needed = isinstance(content, SplitRequest) or (job and content.number not in job.saved)
        if job and job.generation == part.generation and (needed or job.all_parts_saved):
            self.finish.fail(job, StenoError(_DEAD))
        else:
            self.finish.clean_up_after_part(part)

    def _fail_recording(self, key: str) -> None:
        try:
            job = self.jobs.progress.begin(key)
        except Superseded:
            self.finish.clean_up_after(key)
            return
        if (
            job.total is None or job.all_parts_saved
        ):  # else its other parts have messages of their own
            self.finish.fail(job, StenoError(_DEAD))
