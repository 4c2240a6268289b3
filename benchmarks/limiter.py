"""Simulate how much of a rate limit the throttle uses, and how many requests are rejected with 429.

    python -m benchmarks.limiter

Up to 20 one-hour recordings are cut into 12 parts each. 16 functions send these parts to the
upstream, which responds after 10 s. If the simulation ends in the middle of a
minute, the limit for the whole minute may already be used up. The usage can then exceed 100 %.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

queues: Any = import_module("tests.fake_queues")  # tests have no type annotations

JOBS, PARTS = 20, 12
SECONDS = 10.0
WARM_UP = 60.0  # seconds at the start that are not counted
# The values: the limiter, the number of recordings, and whether a 429 response has Retry-After.
LIMITS: dict[str, tuple[Any, int, bool]] = {
    "60 per minute, fixed window": (queues.FixedWindow(60), JOBS, True),
    "60 per minute, burst of 10": (queues.TokenBucket(60, 10), JOBS, True),
    "60 per minute, burst of 10, no Retry-After": (queues.TokenBucket(60, 10), JOBS, False),
    "60 per minute, no burst": (queues.TokenBucket(60, 1), JOBS, True),
    "20 per minute, fixed window": (queues.FixedWindow(20), JOBS // 2, True),
    "1.3 per minute, no burst": (queues.TokenBucket(1.3, 1), 3, True),
    "1.3 per minute, no burst, no Retry-After": (queues.TokenBucket(1.3, 1), 3, False),
}


def figures() -> Iterator[tuple[str, float, float, int]]:
    """Yield the result for each limit.

    Each result contains the name of the limit, the share of the limit that is used, the share of
    requests that are rejected with 429, and the maximum number of deliveries of a message.
    """
    with queues.aws_in_process():
        for name, (limiter, jobs, has_retry_after) in LIMITS.items():
            simulation = queues.Simulated(
                seconds=SECONDS, limiter=limiter, retry_after=has_retry_after
            )
            for _ in range(jobs):
                simulation.cut(PARTS)
            simulation.run()
            assert len(simulation.completed) == jobs
            accepted, rejected = simulation.upstream.after(WARM_UP)
            last = simulation.upstream.answered[-1]
            minutes = (last - simulation.simulation.began - WARM_UP) / 60
            used = accepted / minutes / limiter.limit
            rejected_share = rejected / (accepted + rejected)
            yield name, used, rejected_share, simulation.sqs.most_deliveries


if __name__ == "__main__":
    print(f"{'limit':42} {'used':>6} {'429':>8} {'max deliveries':>16}")
    for name, used, rejected, deliveries in figures():
        print(f"{name:42} {used:6.0%} {rejected:8.1%} {deliveries:16}", flush=True)
