"""Run a worker process for tests that kill it: `python -m tests.attacks.worker_process SECONDS`.

The process polls all queues, so it runs all steps of a job. SECONDS is the lease time of a claim.
"""

import sys

from handler.aws.clients import WORKER_LIMITS
from handler.jobs.store import Jobs
from handler.services import build_services
from handler.settings import read_settings
from handler.steps.pacing import Pacing
from infra.local.worker import local_worker

CLAIM_SECONDS = 2
# The speech in a recording repeats, so shorter parts could be identical. Identical parts are billed
# only once.
PART_SECONDS = 30.0


def main() -> None:
    claim_seconds = float(sys.argv[1])
    settings = read_settings()
    services = build_services(settings, jobs=Jobs(settings, limits=WORKER_LIMITS))
    with local_worker(
        services, Pacing(part_seconds=PART_SECONDS, claim_seconds=claim_seconds)
    ) as threads:
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
