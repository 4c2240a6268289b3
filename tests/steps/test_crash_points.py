"""Crash tests: a worker crashes before one of its writes, and another worker takes over.

No recording may be lost, no job may get stuck, and only a request in flight may be billed twice.
A scenario describes one possible course of a job and lists its writes. One test runs each scenario
without a crash and checks that the list of writes is complete. In the other tests, the worker
crashes before each of the writes and after the last one. All scenarios except one are tested only
with `-m exhaustive`. With `--soak`, the tests also make the second worker crash before each of its
writes.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import httpx2
import pytest

from tests.crash_world import (
    BILLED_SECONDS,
    LONG,
    LONG_PARTS,
    LONGEST_PART_SECONDS,
    NONSENSE,
    OTHER,
    SHORT,
    SHORT_PARTS,
    SILENCE,
    WORDS,
    World,
    repeat,
)
from tests.fake_queues import aws_in_process
from tests.fake_upstream import error_response

DONE = ("delete the message",)
TAKE = ("extend the visibility timeout", "start the job")
BEGIN = (*TAKE, "start the generation", "store the number of parts")
RESERVE = ("note the reservation", "reserve the budget")
SEND, SEND_EXPRESS = (("put the part audio", f"send to {queue}") for queue in ("parts", "express"))
CUT_ONE = (*BEGIN, *RESERVE, *SEND_EXPRESS, "set the total", *DONE)
CLAIM = ("extend the visibility timeout", "claim the part")
ASK = (*CLAIM, "count the attempt", "call the upstream")
SAVE = ("save the part", "add the part")
TRANSCRIBE = (*ASK, "store the result", *SAVE)
STORE = ("put the transcript", "complete the job")
FAIL = ("fail the job", "settle the budget")
RETRY = ("settle the budget", "queue the job", "send to recordings")
SWEEP = ("delete the recording", "delete the transcript")  # repeated once the job is deleted
SWEEP_SOUND = ("delete the part audio", "delete the transcript")


def clean_up(audio_objects, items):
    return (
        "settle the budget",
        "delete the recording",
        *["delete the part audio"] * audio_objects,
        *["delete the part"] * items,
        *DONE,
    )


def finish(parts):
    # This result is the transcript of the whole recording, not of a part.
    return ("store the result", *STORE, *clean_up(parts, parts))


@dataclass(frozen=True)
class Scenario:
    """A scenario for a job: how it is set up, which steps run, and what the steps write.

    `prepare` sets up a job. If `act` is set, it sends a request after the setup. The caller
    repeats this request if there is no response. Then the worker processes up to `deliveries`
    messages. If `dead_letters` is not 0, the dead-letter function processes `dead_letters`
    messages, and the worker processes none. `writes` lists the writes in order. If `deleted` is
    the name of a write, the job is deleted just before that write, and `writes` begins with it.
    """

    writes: tuple[str, ...]
    prepare: Callable[[World], object]
    act: Callable[[World], object] | None = None
    deliveries: int = 60
    dead_letters: int = 0
    deleted: str = ""
    end: str = "completed"
    parts: int = 1
    unconfirmed: int = 0  # possibly billed requests when the budget is settled
    may_stay_reserved: bool = False  # a reservation may remain unsettled


def uploaded(content=SHORT):
    return lambda world: world.upload(content)


def cut(content=SHORT, *replies, then=0):
    """Return a setup that cuts a recording and then transcribes some of its parts.

    `then` is the number of transcribed parts. After the setup, the upstream responds to the
    requests with `replies`.
    """

    def prepare(world):
        world.upload(content)
        for _ in range(1 + then):
            world.deliver()
        world.replies.extend(replies)

    return prepare


def crashed_after(*writes, pacing=SHORT_PARTS, then=None):
    """Return a setup in which a worker crashes just after each of `writes`, in this order."""

    def prepare(world):
        world.use(pacing)
        world.upload(LONG)
        for write in writes:
            world.record()
            world.work()
            done, states = world.end()
            world.restore(states[done.index(write) + 1])
        if then:
            then(world)

    return prepare


def already_paid(world):
    world.upload(SHORT)
    world.work()
    world.forget_bills()
    world.upload(SHORT, world.owner)


def split(then=0):
    def prepare(world):
        world.use(LONG_PARTS)
        cut(LONG, then=then)(world)

    return prepare


def failed_once(world):
    cut(LONG, then=1)(world)
    world.replies.append(error_response(400))
    world.deliver()


def failed_at_once(world):
    cut(LONG, error_response(400))(world)
    world.deliver()


def in_outage(then):
    """Return a setup that calls `then(world)`. The first read from S3 after the setup fails."""

    def prepare(world):
        then(world)
        world.outages = 1

    return prepare


SCENARIOS = {
    "two parts": Scenario(
        (
            *BEGIN,
            *RESERVE,
            *SEND,
            *SEND,
            "set the total",
            *DONE,
            *TRANSCRIBE,
            *DONE,
            *TRANSCRIBE,
            *finish(2),
        ),
        uploaded(LONG),
        parts=2,
    ),
    "cut again": Scenario(
        (*TAKE, *SAVE, "reserve the budget", *SEND, "set the total", *DONE),
        crashed_after("send to parts", "save the part"),
        deliveries=1,
        parts=2,
    ),
    "silence": Scenario(
        (*BEGIN, *SAVE, "set the total", *STORE, "delete the recording", "delete the part", *DONE),
        uploaded(SILENCE),
        parts=0,
    ),
    "in the ledger": Scenario(
        (*TAKE, "start the generation", *STORE, "delete the recording", *DONE), already_paid
    ),
    "handed over": Scenario(
        (
            "create the job",
            "put the recording",
            "send to recordings",
            *CUT_ONE,
            *TRANSCRIBE,
            *finish(1),
        ),
        World.empty,
        act=World.hand_over,
    ),
    "refused": Scenario(
        (
            *ASK,
            "count the attempt",
            "release the claim",
            *FAIL,
            *["delete the part audio"] * 2,
            "settle the budget",
            *DONE,
        ),
        cut(LONG, error_response(400)),
        deliveries=1,
        parts=2,
    ),
    "not a recording": Scenario(
        (*TAKE, "start the generation", "fail the job", *DONE), uploaded(NONSENSE)
    ),
    "busy": Scenario(
        (
            *ASK,
            "store the upstream pause",
            "count the attempt",
            "release the claim",
            "return the message",
        ),
        cut(SHORT, error_response(429, retry_after="7")),
        deliveries=1,
    ),
    "unanswered": Scenario(
        (*ASK, "count the attempt", "release the claim", "return the message"),
        cut(SHORT, httpx2.ReadTimeout("no response")),
        deliveries=1,
    ),
    "retried": Scenario(
        (*RETRY, *BEGIN, *SAVE, *RESERVE, *SEND, "set the total", *DONE),
        failed_once,
        act=World.retry,
        deliveries=1,
        parts=2,
    ),
    "retried at once": Scenario(RETRY, failed_at_once, act=World.retry, deliveries=0, parts=2),
    "split, and its message is delivered again": Scenario(
        ("extend the visibility timeout", "split the part", "save the part", *SEND, *SEND, *DONE),
        crashed_after("send the split request", pacing=LONG_PARTS),
        deliveries=1,
        parts=2,
    ),
    "split": Scenario(
        (
            *ASK,
            "store the result",
            "send the split request",
            *DONE,
            "extend the visibility timeout",
            "split the part",
            "save the part",
            *SEND,
            *SEND,
            *DONE,
        ),
        split(),
        deliveries=2,
        parts=2,
    ),
    "outage while it is cut": Scenario(
        (*TAKE, "undo the start", "return the message"), in_outage(uploaded()), deliveries=1
    ),
    "outage while a part is fetched": Scenario(
        (*CLAIM, "release the claim", "return the message"), in_outage(cut()), deliveries=1
    ),
    "dead letter of a recording": Scenario(
        ("start the job", "fail the job", *DONE), uploaded(), dead_letters=1
    ),
    "dead letter of a part": Scenario(
        (*FAIL, "delete the part audio", *DONE), cut(), dead_letters=1
    ),
    "dead letter of a split request": Scenario(
        (*FAIL, "delete the part audio", *DONE),
        split(then=1),
        dead_letters=1,
        parts=2,
        unconfirmed=1,
    ),
    "cleaned up": Scenario(
        ("extend the visibility timeout", *clean_up(2, 2)),
        crashed_after("complete the job"),
        deliveries=1,
        parts=2,
    ),
    "deleted": Scenario(
        (
            "settle the budget",
            "delete the recording",
            *["delete the part audio"] * 2,
            "delete the transcript",
            *["delete the result"] * 2,  # for the whole recording and for the part
            "delete the part",
            "delete the job",
            *SWEEP,
            "delete the result",
            "extend the visibility timeout",
            *SWEEP_SOUND,
            "delete the result",
            *DONE,
        ),
        cut(LONG, then=1),
        act=World.delete,
        end="deleted",
    ),
    "deleted while it is cut": Scenario(
        (
            *SEND,
            *SEND,
            "set the total",
            "settle the budget",
            "delete the recording",
            *["delete the part audio"] * 2,
            "delete the transcript",
            *DONE,
        ),
        uploaded(LONG),
        deleted="put the part audio",
        deliveries=1,
        end="deleted",
    ),
    "deleted while the upstream is called": Scenario(
        (
            "store the result",
            *SAVE,
            *SWEEP_SOUND,
            "delete the result",
            "delete the part",
            "delete the result",
            *DONE,
        ),
        cut(),
        deleted="store the result",
        unconfirmed=1,
        deliveries=1,
        end="deleted",
    ),
    "deleted while it is finished": Scenario(
        (*STORE, *SWEEP, "delete the result", *DONE),
        cut(),
        deleted="put the transcript",
        deliveries=1,
        end="deleted",
    ),
    "deleted while it is completed": Scenario(
        ("complete the job", *SWEEP, "delete the result", *DONE),
        cut(),
        deleted="complete the job",
        deliveries=1,
        end="deleted",
    ),
    "deleted while it is cleaned up": Scenario(
        ("delete the part audio", *DONE),
        cut(),
        deleted="delete the part audio",
        deliveries=1,
        end="deleted",
    ),
    "deleted while a part is split": Scenario(
        (*SEND, *SEND, *DONE),
        split(then=1),
        deleted="put the part audio",
        deliveries=1,
        end="deleted",
    ),
    "form used again while it is cut": Scenario(
        (
            *TAKE,
            "start the generation",
            "settle the budget",
            "store the number of parts",
            *CUT_ONE[4:],
        ),
        crashed_after("send to parts", then=lambda world: world.put(OTHER)),
        deliveries=1,
        may_stay_reserved=True,
    ),
    "form used again after it was cut": Scenario(
        (*TAKE, *DONE), cut(), act=lambda world: world.put(OTHER), deliveries=1
    ),
}


@pytest.fixture(scope="module")
def world():
    with aws_in_process():
        yield World()


@pytest.fixture(scope="module")
def run(world):
    """Return a function that runs a scenario without a crash.

    The function returns the names of the writes, the state before each write, and the state after
    the last write.
    """

    @lru_cache(maxsize=1)  # all tests of a scenario run consecutively
    def run(name):
        run_scenario(world, SCENARIOS[name], world.record)
        return world.end()

    return run


def run_scenario(world, scenario, on_begin):
    """Run a scenario without a crash. Call `on_begin` just before the scenario's first write."""
    world.empty()
    scenario.prepare(world)
    if scenario.deleted:
        world.before(scenario.deleted, lambda: (world.caller.delete(world.job.id), on_begin()))
    else:
        on_begin()
    if scenario.act:
        scenario.act(world)
    for _ in range(scenario.dead_letters):
        world.deliver_dead_letter()
    for _ in range(0 if scenario.dead_letters else scenario.deliveries):
        if not world.deliver():
            break


def recover(world, scenario, state, *, record=False):
    """Run a scenario to its end, starting from the state that a crashed worker left."""
    world.restore(state)
    if record:
        world.record()
    if scenario.act:
        repeat(lambda: scenario.act(world))
    for _ in range(scenario.dead_letters):
        world.deliver_dead_letter()
    finish_job(world, scenario)


def finish_job(world, scenario):
    """Deliver the remaining messages, then retry the job if it has failed."""
    world.work()
    if world.status in ("failed", "queued"):  # "queued" if a crash interrupted a retry
        assert world.objects() == [world.job.key]
        if scenario.writes == SCENARIOS["not a recording"].writes:
            world.put(SHORT)
        world.retry()
        world.work()


def check(world, scenario, *in_flight):
    """Check the job, the stored data and the billed requests.

    For each crash, `in_flight` counts the billed requests whose responses were lost in the crash.
    """

    assert world.status == scenario.end
    job = world.stored()
    if job:
        assert world.caller.transcript(job).text == " ".join([WORDS] * scenario.parts)
        assert f"transcripts/{job.id}.json" in world.objects()
    assert all(key.startswith("transcripts/") for key in world.objects())
    assert {sk for _, sk in world.items()} <= ({"job", "answer"} if job else set())
    twice = Counter(world.bills) - Counter(set(world.bills))
    assert twice <= sum(in_flight, Counter())
    billed = BILLED_SECONDS * (len(world.bills) + world.unanswered)
    unconfirmed = world.unanswered + scenario.unconfirmed + len(in_flight)
    spent, unsettled = world.budget()
    assert unsettled == set() or scenario.may_stay_reserved
    assert billed <= spent <= billed + LONGEST_PART_SECONDS * unconfirmed
    if job:
        assert job.seconds_paid >= billed


def marks(name):
    """Return the marks of a scenario. `make test` runs only one: a job with two parts."""
    return [] if name == "two parts" else [pytest.mark.exhaustive]


def scenario_names():
    return [pytest.param(name, marks=marks(name)) for name in SCENARIOS]


@pytest.mark.parametrize("name", scenario_names())
def test_the_list_contains_every_write(run, name):
    writes, _ = run(name)
    assert writes == numbered(SCENARIOS[name].writes)


def numbered(writes):
    """Append a number to each repetition of a write: "x", "x 2", "x 3"."""
    counts = Counter()
    return [
        f"{write} {counts[write]}".removesuffix(" 1")
        for write in writes
        if not counts.update([write])
    ]


def crash_points():
    """Return a test parameter for each crash point of each scenario."""
    points = []
    for name, scenario in SCENARIOS.items():
        for point, write in enumerate([*numbered(scenario.writes), ""]):
            crash = f"before {write}" if write else "after the last write"
            points.append(pytest.param(name, point, id=f"{name}: {crash}", marks=marks(name)))
    return points


def in_flight(states, point):
    """Count the billed requests whose responses arrived between the last write and the crash."""
    return Counter(states[point].bills) - Counter(states[max(point - 1, 0)].bills)


@pytest.mark.parametrize(("name", "point"), crash_points())
def test_a_job_survives_a_crash(world, run, request, name, point):
    _, states = run(name)
    scenario, first = SCENARIOS[name], in_flight(states, point)
    recover(world, scenario, states[point], record=request.config.getoption("--soak"))
    check(world, scenario, first)
    _, later = world.end()
    without_dead_letters = replace(scenario, dead_letters=0)
    for second in range(len(later) - 1):
        recover(world, without_dead_letters, later[second])
        check(world, scenario, first, in_flight(later, second))


@pytest.mark.parametrize("name", scenario_names())
def test_lost_responses_change_nothing(world, name):
    """Each write succeeds, but the first response is lost, so the AWS client repeats the call."""
    scenario = SCENARIOS[name]
    run_scenario(world, scenario, world.lose_responses)
    finish_job(world, scenario)
    check(world, scenario)
