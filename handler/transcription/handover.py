"""A recording of a request as a job: the API starts the job, and waits for it as long as the request may last."""

import time
from dataclasses import dataclass
from typing import Any, BinaryIO

import anyio
import anyio.to_thread

from handler.errors import NotFound, error_from_code
from handler.jobs.job import Caller, Job
from handler.jobs.store import Jobs
from handler.recordings.container import Container
from handler.transcripts.transcript import Transcript

_LOOK_SECONDS = 0.25


@dataclass(frozen=True)
class Handover:
    """The recording as a job. The same recording with the same options is always the same job."""

    jobs: Jobs
    identity: str
    file: BinaryIO
    container: Container
    options: dict[str, Any]
    caller: Caller
    deadline: float

    async def wait_for_result(self) -> Transcript | Job:
        """Return the job's transcript, or the job if it is not finished in time; raise its error if it failed."""
        job = await anyio.to_thread.run_sync(self._create_job)
        while not job.finished and time.monotonic() < self.deadline:
            await anyio.sleep(_LOOK_SECONDS)
            job = await anyio.to_thread.run_sync(self.jobs.get, job.id)
        if job.status == "failed":
            error = error_from_code(**(job.error or {"code": "", "detail": ""}))
            error.job = job.id
            raise error
        return await anyio.to_thread.run_sync(self.jobs.transcript, job) if job.finished else job

    def _create_job(self) -> Job:
        try:
            self.jobs.get(self.identity)
        except NotFound:  # a new job, which will cost something
            self.jobs.budget.check(self.caller.account)
        return self.jobs.create_from_request(
            self.identity, self.file, self.container, self.options, self.caller
        )
