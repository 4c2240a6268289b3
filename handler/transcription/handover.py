"""Hands the recording of a request over to a job, and waits for the job until the deadline."""

import time
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import anyio
import anyio.to_thread

from handler.errors import NotFound, error_from_code
from handler.jobs.job import Caller, Job
from handler.jobs.parts import text_without_gaps
from handler.jobs.store import Jobs
from handler.recordings.container import Container
from handler.transcription.listener import Listener
from handler.transcripts.transcript import Transcript
from handler.upstream.profiles import Model

_POLL_SECONDS = 0.25
_LISTENER_POLL_SECONDS = 1.0  # for jobs that may take longer than a request


@dataclass(frozen=True)
class Handover:
    """Hands a recording over to the job `job_id`, and waits for the job until `deadline`.

    The job id is derived from the caller, the recording and the options, so a repeated request
    waits for the same job. `deadline` is a value of `time.monotonic()`. If there is a `listener`,
    it receives the text of the parts, and the deadline does not apply.
    """

    jobs: Jobs
    job_id: str
    file: BinaryIO
    container: Container
    options: dict[str, Any]
    caller: Caller
    deadline: float
    listener: Listener | None = None

    def with_model_only(self, model: Model) -> "Handover":
        """Return a handover to a job that uses only `model`.

        Use it if a request to this model may have been billed already.
        """
        options = {**self.options, "model": model.full_name, "fallback": False}
        return replace(self, options=options)

    async def wait_for_result(self) -> Transcript | Job:
        """Return the job's transcript, or the job itself if it has not finished by the deadline.

        Raises the job's error if the job failed.
        """
        job = await anyio.to_thread.run_sync(self._create_job)
        if self.listener:
            job = await self._follow(job, self.listener)
        else:
            job = await self._wait(job)
        if job.status == "failed":
            error = error_from_code(**(job.error or {"code": "", "detail": ""}))
            error.job = job.id
            raise error
        return await anyio.to_thread.run_sync(self.jobs.transcript, job) if job.finished else job

    async def _wait(self, job: Job) -> Job:
        """Wait until the job is finished or the deadline is reached. Return the job."""
        while not job.finished and time.monotonic() < self.deadline:
            await anyio.sleep(_POLL_SECONDS)
            job = await anyio.to_thread.run_sync(self.jobs.get, job.id)
        return job

    async def _follow(self, job: Job, listener: Listener) -> Job:
        """Report the text of the parts until the job is finished. Return the job."""
        reported = None
        while not job.finished and listener.is_connected:
            if job.saved and (job.generation, job.saved) != reported:
                reported = job.generation, job.saved
                saved = await anyio.to_thread.run_sync(
                    self.jobs.parts.saved, job.id, job.generation
                )
                listener.update(text_without_gaps(saved))
            before_deadline = time.monotonic() < self.deadline
            await anyio.sleep(_POLL_SECONDS if before_deadline else _LISTENER_POLL_SECONDS)
            job = await anyio.to_thread.run_sync(self.jobs.get, job.id)
        return job

    def _create_job(self) -> Job:
        try:
            self.jobs.get(self.job_id)
        except NotFound:  # check the budget only for a new job
            self.jobs.budget.check(self.caller.account)
        return self.jobs.create_from_request(
            self.job_id, self.file, self.container, self.options, self.caller
        )
