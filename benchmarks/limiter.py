"""How well a limit of the upstream is used, and how often it refuses, simulated for several limits.

20 recordings of an hour have 12 parts each; 16 functions ask the upstream, which answers in 10
seconds. More than all of a limit is used if the last minute is used at its beginning.

python -m benchmarks.limiter
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

queues: Any = import_module("tests.fake_queues")  # which has no types, as no test has

JOBS, HOUR = 20, 12
SECONDS = 10.0
WARM_UP = 60.0  # seconds, after which is counted
# name: the limiter, the recordings, and whether a refusal tells how long to wait
LIMITS: dict[str, tuple[Any, int, bool]] = {
    "60 a minute, from minute to minute": (queues.FixedWindow(60), JOBS, True),
    "60 a minute, 10 at once": (queues.TokenBucket(60, 10), JOBS, True),
    "60 a minute, 10 at once, no Retry-After": (queues.TokenBucket(60, 10), JOBS, False),
    "60 a minute, one by one": (queues.TokenBucket(60, 1), JOBS, True),
    "20 a minute, from minute to minute": (queues.FixedWindow(20), JOBS // 2, True),
    "1.3 a minute, one by one": (queues.TokenBucket(1.3, 1), 3, True),
    "1.3 a minute, one by one, no Retry-After": (queues.TokenBucket(1.3, 1), 3, False),
}


def figures() -> Iterator[tuple[str, float, float, int]]:
    """Yield for each limit: its name, the shares that are used and refused, and a message's most deliveries."""
    with queues.aws_in_process():
        for name, (limiter, jobs, tells) in LIMITS.items():
            place = queues.Simulated(seconds=SECONDS, limiter=limiter, retry_after=tells)
            for _ in range(jobs):
                place.cut(HOUR)
            place.run()
            assert len(place.completed) == jobs
            answered, refused = place.upstream.after(WARM_UP)
            minutes = (place.upstream.answered[-1] - place.simulation.began - WARM_UP) / 60
            used = answered / minutes / limiter.limit
            yield name, used, refused / (answered + refused), place.sqs.most_deliveries


if __name__ == "__main__":
    print(f"{'limit':42} {'used':>6} {'refused':>8} {'most deliveries':>16}")
    for name, used, refused, deliveries in figures():
        print(f"{name:42} {used:6.0%} {refused:8.1%} {deliveries:16}", flush=True)
