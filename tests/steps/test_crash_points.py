"""A process dies between every two of its writes, and another one gets its message: no recording is
lost, no job is stuck, and nothing is billed twice but the request that was in flight.

A course is one way for a job to go. Its writes are listed here; a process dies before each of them,
and after the last one. Another test compares the list with the writes of a run without a crash, so
that none is left out. A write that an earlier course has, too, is tested by `-m exhaustive` only.
With `--soak`, a second process dies at each write that follows.
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
from tests.false_upstream import refused

DONE = ("delete the message",)
TAKE = ("hold the message", "begin the job")
BEGIN = (*TAKE, "start the generation", "expect the parts")
RESERVE = ("note the reservation", "reserve the budget")
SEND, SEND_EXPRESS = (("put the sound", f"send to {queue}") for queue in ("parts", "express"))
CUT_ONE = (*BEGIN, *RESERVE, *SEND_EXPRESS, "set the total", *DONE)
CLAIM = ("hold the message", "claim the part")
ASK = (*CLAIM, "note the try", "ask the upstream")
SAVE = ("save the part", "add the part")
TRANSCRIBE = (*ASK, "keep the answer", *SAVE)
STORE = ("put the transcript", "complete the job")
FAIL = ("fail the job", "settle the budget")
RETRY = ("settle the budget", "queue the job", "send to recordings")
SWEEP = ("delete the recording", "delete the transcript")  # what was deleted already
SWEEP_SOUND = ("delete the sound", "delete the transcript")


def clean_up(sounds, items):
    return (
        "settle the budget",
        "delete the recording",
        *["delete the sound"] * sounds,
        *["delete the part"] * items,
        *DONE,
    )


def finish(parts):
    return ("keep the answer", *STORE, *clean_up(parts, parts))  # the answer: the whole transcript


@dataclass(frozen=True)
class Course:
    """`prepare` brings a job to the place where the course begins; then come `writes`.

    They are made by `act`, which a caller does again who gets no response, and by so many
    `deliveries` of messages, or `dead_letters`. Of a job that is `deleted` before a
    write, the course is what comes after that.
    """

    writes: tuple[str, ...]
    prepare: Callable[[World], object]
    act: Callable[[World], object] | None = None
    deliveries: int = 60
    dead_letters: int = 0
    deleted: str = ""
    end: str = "completed"
    parts: int = 1
    in_doubt: int = 0  # requests of which it was not known, when the budget was settled, whether they were billed
    may_stay_reserved: bool = False  # a reservation that is not settled counts as spent


def uploaded(content=SHORT):
    return lambda world: world.upload(content)


def cut(content=SHORT, *replies, then=0):
    """A job whose recording is cut, and then so many parts are transcribed. The next replies of the upstream."""

    def prepare(world):
        world.upload(content)
        for _ in range(1 + then):
            world.deliver()
        world.replies.extend(replies)

    return prepare


def died_after(*writes, pacing=SHORT_PARTS, then=None):
    """A job of which one process after another died, each after a write."""

    def prepare(world):
        world.use(pacing)
        world.upload(LONG)
        for write in writes:
            world.record()
            world.work()
            made, states = world.end()
            world.restore(states[made.index(write) + 1])
        if then:
            then(world)

    return prepare


def paid(world):
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
    world.replies.append(refused(400))
    world.deliver()


def failed_at_once(world):
    cut(LONG, refused(400))(world)
    world.deliver()


def in_outage(then):
    """S3 does not respond once."""

    def prepare(world):
        then(world)
        world.outages = 1

    return prepare


COURSES = {
    "two parts": Course(
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
    "cut again": Course(
        (*TAKE, *SAVE, "reserve the budget", *SEND, "set the total", *DONE),
        died_after("send to parts", "save the part"),
        deliveries=1,
        parts=2,
    ),
    "silence": Course(
        (*BEGIN, *SAVE, "set the total", *STORE, "delete the recording", "delete the part", *DONE),
        uploaded(SILENCE),
        parts=0,
    ),
    "in the ledger": Course(
        (*TAKE, "start the generation", *STORE, "delete the recording", *DONE), paid
    ),
    "handed over": Course(
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
    "refused": Course(
        (
            *ASK,
            "note the try",
            "release the claim",
            *FAIL,
            *["delete the sound"] * 2,
            "settle the budget",
            *DONE,
        ),
        cut(LONG, refused(400)),
        deliveries=1,
        parts=2,
    ),
    "not a recording": Course(
        (*TAKE, "start the generation", "fail the job", *DONE), uploaded(NONSENSE)
    ),
    "busy": Course(
        (*ASK, "slow down", "note the try", "release the claim", "give the message back"),
        cut(SHORT, refused(429, retry_after="7")),
        deliveries=1,
    ),
    "unanswered": Course(
        (*ASK, "note the try", "release the claim", "give the message back"),
        cut(SHORT, httpx2.ReadTimeout("no answer")),
        deliveries=1,
    ),
    "retried": Course(
        (*RETRY, *BEGIN, *SAVE, *RESERVE, *SEND, "set the total", *DONE),
        failed_once,
        act=World.retry,
        deliveries=1,
        parts=2,
    ),
    "retried at once": Course(RETRY, failed_at_once, act=World.retry, deliveries=0, parts=2),
    "halved, and its message comes again": Course(
        ("hold the message", "split the part", "save the part", *SEND, *SEND, *DONE),
        died_after("send the halving", pacing=LONG_PARTS),
        deliveries=1,
        parts=2,
    ),
    "halved": Course(
        (
            *ASK,
            "keep the answer",
            "send the halving",
            *DONE,
            "hold the message",
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
    "outage while it is cut": Course(
        (*TAKE, "undo the beginning", "give the message back"), in_outage(uploaded()), deliveries=1
    ),
    "outage while a part is fetched": Course(
        (*CLAIM, "release the claim", "give the message back"), in_outage(cut()), deliveries=1
    ),
    "dead letter of a recording": Course(
        ("begin the job", "fail the job", *DONE), uploaded(), dead_letters=1
    ),
    "dead letter of a part": Course((*FAIL, "delete the sound", *DONE), cut(), dead_letters=1),
    "dead letter of a halving": Course(
        (*FAIL, "delete the sound", *DONE), split(then=1), dead_letters=1, parts=2, in_doubt=1
    ),
    "cleaned up": Course(
        ("hold the message", *clean_up(2, 2)), died_after("complete the job"), deliveries=1, parts=2
    ),
    "deleted": Course(
        (
            "settle the budget",
            "delete the recording",
            *["delete the sound"] * 2,
            "delete the transcript",
            *["forget the answer"] * 2,  # about the whole recording, and about the part
            "delete the part",
            "delete the job",
            *SWEEP,
            "forget the answer",
            "hold the message",
            *SWEEP_SOUND,
            "forget the answer",
            *DONE,
        ),
        cut(LONG, then=1),
        act=World.delete,
        end="deleted",
    ),
    "deleted while it is cut": Course(
        (
            *SEND,
            *SEND,
            "set the total",
            "settle the budget",
            "delete the recording",
            *["delete the sound"] * 2,
            "delete the transcript",
            *DONE,
        ),
        uploaded(LONG),
        deleted="put the sound",
        deliveries=1,
        end="deleted",
    ),
    "deleted while the upstream is asked": Course(
        (
            "keep the answer",
            *SAVE,
            *SWEEP_SOUND,
            "forget the answer",
            "delete the part",
            "forget the answer",
            *DONE,
        ),
        cut(),
        deleted="keep the answer",
        in_doubt=1,
        deliveries=1,
        end="deleted",
    ),
    "deleted while it is finished": Course(
        (*STORE, *SWEEP, "forget the answer", *DONE),
        cut(),
        deleted="put the transcript",
        deliveries=1,
        end="deleted",
    ),
    "deleted while it is completed": Course(
        ("complete the job", *SWEEP, "forget the answer", *DONE),
        cut(),
        deleted="complete the job",
        deliveries=1,
        end="deleted",
    ),
    "deleted while it is cleaned up": Course(
        ("delete the sound", *DONE), cut(), deleted="delete the sound", deliveries=1, end="deleted"
    ),
    "deleted while a part is halved": Course(
        (*SEND, *SEND, *DONE), split(then=1), deleted="put the sound", deliveries=1, end="deleted"
    ),
    "form used again while it is cut": Course(
        (*TAKE, "start the generation", "settle the budget", "expect the parts", *CUT_ONE[4:]),
        died_after("send to parts", then=lambda world: world.put(OTHER)),
        deliveries=1,
        may_stay_reserved=True,
    ),
    "form used again after it was cut": Course(
        (*TAKE, *DONE), cut(), act=lambda world: world.put(OTHER), deliveries=1
    ),
}


@pytest.fixture(scope="module")
def world():
    with aws_in_process():
        yield World()


@pytest.fixture(scope="module")
def run(world):
    """Runs a course without a crash: its writes, and the states before each of them and after the last one."""

    @lru_cache(maxsize=1)  # the tests of a course follow one another
    def run(name):
        run_course(world, COURSES[name], world.record)
        return world.end()

    return run


def run_course(world, course, begin):
    """Take a course without a crash; `begin` is called where it begins."""
    world.empty()
    course.prepare(world)
    if course.deleted:
        world.before(course.deleted, lambda: (world.caller.delete(world.job.id), begin()))
    else:
        begin()
    if course.act:
        course.act(world)
    for _ in range(course.dead_letters):
        world.deliver_dead_letter()
    for _ in range(0 if course.dead_letters else course.deliveries):
        if not world.deliver():
            break


def recover(world, course, state, *, record=False):
    """Go on from what a process has left that died."""
    world.restore(state)
    if record:
        world.record()
    if course.act:
        repeat(lambda: course.act(world))
    for _ in range(course.dead_letters):
        world.deliver_dead_letter()
    come_to_an_end(world, course)


def come_to_an_end(world, course):
    """The rest of the messages is delivered, and a job that failed is tried again."""
    world.work()
    if world.status in ("failed", "queued"):  # or the retry itself came to no end
        assert world.objects() == [world.job.key]
        if course.writes == COURSES["not a recording"].writes:
            world.put(SHORT)
        world.retry()
        world.work()


def check(world, course, *in_flight):
    """`in_flight` are, for each process that died, the bills for answers that it did not keep."""
    assert world.status == course.end
    job = world.stored()
    if job:
        assert world.caller.transcript(job).text == " ".join([WORDS] * course.parts)
        assert f"transcripts/{job.id}.json" in world.objects()
    assert all(key.startswith("transcripts/") for key in world.objects())
    assert {sk for _, sk in world.items()} <= ({"job", "answer"} if job else set())
    twice = Counter(world.bills) - Counter(set(world.bills))
    assert twice <= sum(in_flight, Counter())
    billed = BILLED_SECONDS * (len(world.bills) + world.unanswered)
    in_doubt = world.unanswered + course.in_doubt + len(in_flight)
    spent, unsettled = world.budget()
    assert unsettled == set() or course.may_stay_reserved
    assert billed <= spent <= billed + LONGEST_PART_SECONDS * in_doubt
    if job:
        assert job.seconds_paid >= billed


@pytest.mark.parametrize("name", COURSES)
def test_the_list_has_every_write(run, name):
    writes, _ = run(name)
    assert writes == numbered(COURSES[name].writes)


def numbered(writes):
    """Number the writes of each name, from the second on."""
    counts = Counter()
    return [
        f"{write} {counts[write]}".removesuffix(" 1")
        for write in writes
        if not counts.update([write])
    ]


def crash_points():
    """Each course's writes and its end; those that an earlier course has are marked as exhaustive."""
    seen, points = set(), []
    for name, course in COURSES.items():
        for point, write in enumerate([*numbered(course.writes), ""]):
            moment = f"before {write}" if write else "after the last write"
            marks = [pytest.mark.exhaustive] if write in seen else []
            points.append(pytest.param(name, point, id=f"{name}: {moment}", marks=marks))
            seen.add(write)
    return points


def in_flight(states, point):
    """What the upstream has answered between the last write and a death."""
    return Counter(states[point].bills) - Counter(states[max(point - 1, 0)].bills)


@pytest.mark.parametrize(("name", "point"), crash_points())
def test_a_job_survives_the_death_of_a_process(world, run, request, name, point):
    _, states = run(name)
    course, first = COURSES[name], in_flight(states, point)
    recover(world, course, states[point], record=request.config.getoption("--soak"))
    check(world, course, first)
    _, later = world.end()
    alive = replace(course, dead_letters=0)
    for second in range(len(later) - 1):
        recover(world, alive, later[second])
        check(world, course, first, in_flight(later, second))


@pytest.mark.parametrize("name", COURSES)
def test_lost_responses_change_nothing(world, name):
    """Each write is made, its response is lost once, and AWS's client makes the call again."""
    course = COURSES[name]
    run_course(world, course, world.lose_responses)
    come_to_an_end(world, course)
    check(world, course)
