"""Jobs that no message will bring to an end any more: computed when a job is read, and not stored."""

from handler.durations import DAY_SECONDS
from handler.errors import StenoError
from handler.jobs.job import Job, failed

# A job may wait for hours behind others, while AWS or the upstream is out of order, or while the
# owner has stopped the functions. So it does not fail early: messages are not lost, and those that
# the queues give up fail their jobs (dead_letters.py). If a message comes after all, the job is
# still completed.
_IDLE_SECONDS = {"queued": DAY_SECONDS, "processing": 6 * 3600}
_STOPPED = "The job has made no progress for hours. Retry it: finished parts are not billed again."


def unless_stalled(job: Job, now: float) -> Job:
    """Return the job, as a failed one if it cannot be expected to go on."""
    idle = now - max(job.created_at, job.progressed_at)
    if idle <= _IDLE_SECONDS.get(job.status, idle):
        return job
    return failed(job, StenoError.code, _STOPPED)


def is_stalled(job: Job) -> bool:
    """Return whether `unless_stalled` made the job a failed one."""
    return job.error == {"code": StenoError.code, "detail": _STOPPED}
