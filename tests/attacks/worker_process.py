"""A worker as a process of its own, for tests that kill it: `python -m tests.attacks.crashing_worker`.

It polls all queues, so that one process has all steps of the engine in it.
"""

import sys

from handler.aws.clients import WORKER_LIMITS
from handler.jobs.store import Jobs
from handler.services import build_services
from handler.settings import read_settings
from handler.steps.pacing import Pacing
from infra.local.worker import working

HOLD_SECONDS = 2
PART_SECONDS = (
    30.0  # with shorter ones, and speech that repeats, two parts may be the same, and are paid once
)


def main() -> None:
    hold = float(sys.argv[1])
    settings = read_settings()
    services = build_services(settings, jobs=Jobs(settings, limits=WORKER_LIMITS))
    with working(services, Pacing(part_seconds=PART_SECONDS, claim_seconds=hold)) as threads:
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
