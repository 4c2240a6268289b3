"""Jobs that no worker will finish any more. Nothing records that: it is worked out when a job is read."""

from handler.errors import StenoError
from handler.job import Job, failed

MOST_ATTEMPTS = 5
GAVE_UP = "The job was begun several times without getting anywhere; the log says more."

# Between two leases of a running job, its message may be delayed for 900 seconds; delivered to a worker that dies
# before it shortens the queue's visibility timeout, of 900 seconds too; and then wait for a free worker, all of which
# may have just begun a run of 900 seconds. If more messages wait than there are workers, it may take longer still:
# then the job reads as failed for a while, but the worker that gets its message completes it all the same.
_IDLE_SECONDS = 900 + 900 + 900
_STOPPED = "The job has made no progress for a while. Retry it; parts that were transcribed are not billed again."

# In a long queue a job may wait for hours, and longer if the owner has stopped the workers. The message of a job that
# nobody has begun is lost only if S3 did not send it: the consumer of dead letters fails all others.
_QUEUED_SECONDS = 86_400
_NEVER_BEGUN = "No worker has begun the job within a day. Retry it."


def unless_stalled(job: Job, now: float) -> Job:
    """Return the job, as a failed one if no worker can be expected to continue it."""
    idle = now - max(job.created_at, job.idle_since, job.lease_until)
    if job.status == "queued" and idle > _QUEUED_SECONDS:
        return failed(job, StenoError.code, _NEVER_BEGUN)
    if job.status != "processing":
        return job
    if job.attempts >= MOST_ATTEMPTS and job.lease_until < now:
        return failed(job, StenoError.code, GAVE_UP)
    return failed(job, StenoError.code, _STOPPED) if idle > _IDLE_SECONDS else job
