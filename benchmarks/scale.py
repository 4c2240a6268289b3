"""What hundreds and thousands of recordings of an hour in an hour need, and what they cost: a simulation of the queues.

    python -m benchmarks.scale        the table of docs/scaling.md

`benchmarks.scale_run` compares it with a run of the real steps.

The cutter and the transcriber are servers of a queue each, served in order. A part is sent in its turn if the upstream
has a limit, and its function waits meanwhile. An upstream answers after 2 s and a fiftieth of the length.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import aws_calls

PARTS = 12  # of an hour
_HOURS = 2  # that recordings arrive in the simulation
_CUTTER_GB, _CUTTER_TMP_GB, _TRANSCRIBER_GB = 1769 / 1024, 3.5, 0.5
_OTHER_DOLLARS = 0.0005  # of an hour of sound: `benchmarks.cost`, without the functions of jobs
_POLLS_EVERY = 2.0  # of a job that is younger than half a minute (handler/web/responses.py)
# Without a request of the account's owner. https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
LAMBDA_AT_ONCE = 1000
# Of the stage (-c throttle), in a second.
THROTTLE = 50
# Changes of one item in a second, of which the budget of a day has two for each job.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html
ITEM_WRITES = 1000


@dataclass(frozen=True)
class System:
    """A deployment. `concurrency` is the number of parts at once; the upstream may limit the requests in a minute.

    `cut_seconds` is how long the cutter has a recording, `own_seconds` what the transcriber needs for a part besides
    the upstream's `upstream_seconds`.
    """

    concurrency: int
    requests_a_minute: float | None = None
    cut_seconds: float = 8.0
    own_seconds: float = 2.5
    upstream_seconds: float = 8.0

    @property
    def cutters(self) -> int:
        """As infra/stack.py has it."""
        return max(2, self.concurrency // 4)


@dataclass(frozen=True)
class Outcome:
    """`parts_an_hour` while recordings arrive and until the last is done; `age` is the longest wait of a part in
    its queue, `turnaround` the longest time from a recording's arrival to its last part, in seconds. `dollars` are
    those of AWS for an hour of sound."""

    parts_an_hour: float
    age: float
    turnaround: float
    dollars: float


def simulated(system: System, arrivals: list[float]) -> Outcome:
    """Send recordings of an hour, which arrive at these seconds, through the queues."""
    cutters, free = [0.0] * system.cutters, [0.0] * system.concurrency
    ready: list[tuple[float, int]] = []  # when a part of a recording gets into its queue
    for number, arrival in enumerate(arrivals):
        begun = max(arrival, heapq.heappop(cutters))
        heapq.heappush(cutters, begun + system.cut_seconds)
        ready += [
            (begun + system.cut_seconds * (part + 1) / PARTS, number) for part in range(PARTS)
        ]
    gap = 60 / system.requests_a_minute if system.requests_a_minute else 0.0
    turn = age = worked = 0.0
    done = [0.0] * len(arrivals)
    for when, number in sorted(ready):
        begun = max(when, heapq.heappop(free))
        turn = max(begun, turn + gap)
        ended = turn + system.upstream_seconds + system.own_seconds
        heapq.heappush(free, ended)
        age = max(age, begun - when)
        worked += ended - begun
        done[number] = max(done[number], ended)
    functions = worked * _TRANSCRIBER_GB * aws_calls.GB_SECOND / len(arrivals)
    cutter = _CUTTER_GB * aws_calls.GB_SECOND + _CUTTER_TMP_GB * aws_calls.TMP_GB_SECOND
    return Outcome(
        PARTS * len(arrivals) / (max(done) - arrivals[0]) * 3600,
        age,
        max(end - arrival for end, arrival in zip(done, arrivals, strict=True)),
        functions + system.cut_seconds * cutter + _OTHER_DOLLARS,
    )


def shares(system: System, jobs_an_hour: int) -> dict[str, float]:
    """Return how much of each limit is used while no queue grows, by its name. Above 1, one does."""
    turnaround = system.cut_seconds + system.upstream_seconds + system.own_seconds
    jobs = jobs_an_hour / 3600
    at_work = jobs * (PARTS * (system.upstream_seconds + system.own_seconds) + system.cut_seconds)
    limit = system.requests_a_minute
    return {
        "transcribers (`concurrency`)": jobs
        * PARTS
        * (system.upstream_seconds + system.own_seconds)
        / system.concurrency,
        "cutters (`concurrency` / 4)": jobs * system.cut_seconds / system.cutters,
        "the upstream's limit": jobs * PARTS * 60 / limit if limit else 0.0,
        "Lambda's quota": at_work / LAMBDA_AT_ONCE,
        "polls at the gateway (`throttle`)": jobs * turnaround / _POLLS_EVERY / THROTTLE,
        "writes on the budget's item": 2 * jobs / ITEM_WRITES,
    }


def _evenly(jobs_an_hour: int) -> list[float]:
    return [number * 3600 / jobs_an_hour for number in range(_HOURS * jobs_an_hour)]


def table() -> Iterator[str]:
    heads = (
        "jobs an hour",
        "`concurrency`",
        "upstream",
        "parts done an hour",
        "longest wait",
        "longest job",
        "$",
        "fullest",
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
        made = simulated(system, _evenly(jobs))
        name, share = max(shares(system, jobs).items(), key=lambda item: item[1])
        yield (
            f"| {jobs:,} | {concurrency} | {f'{limit:,} a minute' if limit else 'no limit'} | {made.parts_an_hour:,.0f}"
            f" | {_time(made.age)} | {_time(made.turnaround)} | {made.dollars:.4f} | {name}: {share:.0%} |"
        )


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    for line in table():
        print(line)
