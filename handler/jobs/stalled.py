"""Detects stalled jobs, which have made no progress for hours.

A job is checked each time it is read. The result is not stored.
"""

from handler.durations import DAY_SECONDS
from handler.errors import StenoError
from handler.jobs.job import Job, as_failed

# These limits are long, because a job may have to wait for hours. For example, many jobs may be
# processed first, AWS or the upstream may have an outage, or the owner may have stopped the
# functions. A stalled job continues when its next message is delivered. If the message becomes a
# dead letter instead, the job fails (dead_letters.py).
_IDLE_SECONDS = {"queued": DAY_SECONDS, "processing": 6 * 3600}
_STALLED_DETAIL = (
    "The job has made no progress for hours. Retry it: finished parts are not billed again."
)


def fail_if_stalled(job: Job, now: float) -> Job:
    """Return a failed copy of the job if it is stalled, otherwise the job itself.

    `now` is in seconds since 1970.
    """
    idle = now - max(job.created_at, job.progressed_at)
    if idle <= _IDLE_SECONDS.get(job.status, idle):
        return job
    return as_failed(job, StenoError.code, _STALLED_DETAIL)


def is_stalled(job: Job) -> bool:
    """Return whether `fail_if_stalled` marked this job as failed."""
    return job.error == {"code": StenoError.code, "detail": _STALLED_DETAIL}
