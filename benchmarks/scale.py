"""Simulate how Steno processes thousands of one-hour recordings per hour, and what AWS charges.

    python -m benchmarks.scale        print the table in docs/operations/scaling.md

`benchmarks.scale_run` compares the simulation with a real run.

In this model, the cutters share one queue, and the transcribers share another. Both are
FIFO queues. If the upstream has a rate limit, a transcriber waits until it may send its
request. The upstream responds after 2 s plus 2 % of the duration of the part.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import aws_calls

PARTS = 12  # the number of parts of a one-hour recording
_HOURS = 2  # how many hours recordings keep arriving
_CUTTER_GB, _CUTTER_TMP_GB, _TRANSCRIBER_GB = 1769 / 1024, 3.5, 0.5
_OTHER_DOLLARS = 0.0005  # per hour of audio, without the job functions (`benchmarks.cost`)
_POLL_INTERVAL = 2.0  # seconds between polls in the first 30 s of a job (handler/web/responses.py)
# The default quota for concurrent Lambda invocations in an AWS account.
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
LAMBDA_CONCURRENCY = 1000
# The default value of `-c throttle`, in requests per second.
THROTTLE = 50
# DynamoDB allows this many writes per second to one item. Each job writes twice to the item of the
# daily budget.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html
ITEM_WRITES = 1000


@dataclass(frozen=True)
class System:
    """A deployment to simulate.

    `concurrency` is the number of parts that are transcribed at the same time. `cut_seconds` is the
    time that the cutter needs for a recording. `upstream_seconds` is the time that the upstream
    needs for a part. `own_seconds` is the additional time that the transcriber needs for a part.
    """

    concurrency: int
    requests_per_minute: float | None = None
    cut_seconds: float = 8.0
    own_seconds: float = 2.5
    upstream_seconds: float = 8.0

    @property
    def cutters(self) -> int:
        """Return the number of cutters, calculated as in infra/functions.py."""
        return max(2, self.concurrency // 4)


@dataclass(frozen=True)
class Outcome:
    """The result of a simulation or a real run. Times are in seconds.

    `parts_per_hour` is the throughput until the last part is done. `max_wait` is the longest time
    that any part spends in its queue. `turnaround` is the longest time from the arrival of a
    recording until its last part is done. `dollars` is the AWS cost per hour of audio.
    """

    parts_per_hour: float
    max_wait: float
    turnaround: float
    dollars: float


def simulate(system: System, arrivals: list[float]) -> Outcome:
    """Simulate one-hour recordings, which arrive at the times `arrivals` (in seconds)."""
    cutters, transcribers = [0.0] * system.cutters, [0.0] * system.concurrency
    # For each part: the time at which it enters the queue, and the number of its recording.
    ready: list[tuple[float, int]] = []
    for number, arrival in enumerate(arrivals):
        start = max(arrival, heapq.heappop(cutters))
        heapq.heappush(cutters, start + system.cut_seconds)
        ready += [
            (start + system.cut_seconds * (part + 1) / PARTS, number) for part in range(PARTS)
        ]
    interval = 60 / system.requests_per_minute if system.requests_per_minute else 0.0
    request_time = max_wait = worked = 0.0
    done = [0.0] * len(arrivals)
    for when, number in sorted(ready):
        start = max(when, heapq.heappop(transcribers))
        request_time = max(start, request_time + interval)
        end = request_time + system.upstream_seconds + system.own_seconds
        heapq.heappush(transcribers, end)
        max_wait = max(max_wait, start - when)
        worked += end - start
        done[number] = max(done[number], end)
    functions = worked * _TRANSCRIBER_GB * aws_calls.GB_SECOND / len(arrivals)
    cutter = _CUTTER_GB * aws_calls.GB_SECOND + _CUTTER_TMP_GB * aws_calls.TMP_GB_SECOND
    return Outcome(
        PARTS * len(arrivals) / (max(done) - arrivals[0]) * 3600,
        max_wait,
        max(end - arrival for end, arrival in zip(done, arrivals, strict=True)),
        functions + system.cut_seconds * cutter + _OTHER_DOLLARS,
    )


def limit_usage(system: System, jobs_per_hour: int) -> dict[str, float]:
    """For each limit, return its name and the share of it that is used.

    If a share exceeds 1, a queue grows.
    """
    turnaround = system.cut_seconds + system.upstream_seconds + system.own_seconds
    jobs = jobs_per_hour / 3600
    transcribing = jobs * PARTS * (system.upstream_seconds + system.own_seconds)
    cutting = jobs * system.cut_seconds
    limit = system.requests_per_minute
    return {
        "transcribers (`concurrency`)": transcribing / system.concurrency,
        "cutters (`concurrency` / 4)": cutting / system.cutters,
        "upstream rate limit": jobs * PARTS * 60 / limit if limit else 0.0,
        "Lambda quota": (transcribing + cutting) / LAMBDA_CONCURRENCY,
        "status polls (`throttle`)": jobs * turnaround / _POLL_INTERVAL / THROTTLE,
        "writes of the budget item": 2 * jobs / ITEM_WRITES,
    }


def _even_arrivals(jobs_per_hour: int) -> list[float]:
    return [number * 3600 / jobs_per_hour for number in range(_HOURS * jobs_per_hour)]


def table() -> Iterator[str]:
    """Yield the lines of the table in docs/operations/scaling.md."""
    heads = (
        "jobs per hour",
        "`concurrency`",
        "upstream",
        "parts per hour",
        "longest wait",
        "longest job",
        "$",
        "most used limit",
    )
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for jobs, concurrency, limit in (
        (300, 16, None),
        (300, 16, 500),
        (1_000, 16, None),
        (1_000, 48, 500),
        (10_000, 48, None),
        (10_000, 400, 500),
        (10_000, 400, 3_000),
    ):
        system = System(concurrency, limit)
        outcome = simulate(system, _even_arrivals(jobs))
        name, share = max(limit_usage(system, jobs).items(), key=lambda item: item[1])
        upstream = f"{limit:,} per minute" if limit else "no limit"
        yield (
            f"| {jobs:,} | {concurrency} | {upstream} | {outcome.parts_per_hour:,.0f}"
            f" | {_time(outcome.max_wait)} | {_time(outcome.turnaround)}"
            f" | {outcome.dollars:.4f} | {name}: {share:.0%} |"
        )


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    for line in table():
        print(line)
