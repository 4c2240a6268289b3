"""Jobs that no worker will finish any more: computed when a job is read, and not stored."""

from handler.errors import StenoError
from handler.job import Job, failed

MOST_ATTEMPTS = 5
GAVE_UP = "The job was begun several times without getting anywhere; the log says more."

# After a lease, the message of a running job may be delayed for 900 seconds, the most that SQS
# allows. Then a worker may get it and die before it shortens the queue's visibility timeout:
# another 900 seconds. Then all workers may have begun a run of 900 seconds. In a queue with more
# messages than workers it can take longer. The job reads as failed for a while then, but the
# worker that gets its message completes it.
_IDLE_SECONDS = 900 + 900 + 900
_STOPPED = "The job has made no progress for a while. Retry it: finished parts are not billed again."

# A job may wait for hours in a long queue, and for longer if the owner has stopped the workers.
# So it does not fail early. Its message can only be lost if S3 did not send it; if the queue gave
# it up, the consumer of dead letters fails the job.
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
