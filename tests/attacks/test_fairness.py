"""One caller's many jobs do not keep another's waiting."""

import heapq
import random
from collections import Counter
from dataclasses import replace
from itertools import count

import pytest
from starlette.testclient import TestClient

from infra.local.worker import record_of
from tests.place import PACING, Gateway, Place
from tests.samples import long_recording, recording

_BATCH = 10  # SQS gives no more at a time
_HIDDEN_SECONDS = 3600  # longer than a test takes
_FUNCTIONS = 16  # that transcribe at the same time, as on AWS


class FairQueue:
    """A queue of the local AWS, whose messages are delivered in the order of AWS's fair queues.

    A group of messages is noisy while more than a tenth of the messages in flight are its own, and
    at least 30, or if it has had more than a tenth of the recent time of processing. Others go
    first; of noisy groups, that with the fewest messages in flight.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues-detailed.html
    """

    def __init__(self, place, url):
        self._sqs, self._url = place.sqs, url
        self.waiting = []
        self._in_flight = Counter()
        self._seconds = Counter()

    def receive(self):
        """Take what was sent since the last time."""
        while found := self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=_BATCH,
            VisibilityTimeout=_HIDDEN_SECONDS,
            MessageSystemAttributeNames=["All"],
        ).get("Messages"):
            self.waiting += found

    def next(self):
        """The message that is delivered next, and its group; None if none waits."""
        if not self.waiting:
            return None
        chosen = min(self.waiting, key=lambda message: self._turn(_group_of(message)))
        self.waiting.remove(chosen)
        group = _group_of(chosen)
        self._in_flight[group] += 1
        return record_of(chosen, self._url), group

    def done(self, group, seconds):
        self._in_flight[group] -= 1
        self._seconds[group] += seconds

    def _turn(self, group):
        in_flight, seconds = self._in_flight[group], self._seconds[group]
        noisy = in_flight >= 30 and in_flight > 0.1 * self._in_flight.total()
        noisy = noisy or seconds > 0.1 * self._seconds.total()
        return in_flight + 1 if noisy else 0


def _group_of(message):
    """A message without a group is one of its own."""
    return message["Attributes"].get("MessageGroupId", message["MessageId"])


class Functions:
    """The functions that transcribe, on a clock of their own: each message takes some seconds of it."""

    def __init__(self, place, queue):
        self.begun = []  # the groups of the messages, in the order in which they were delivered
        self.now = 0.0
        self._place, self._queue = place, queue
        self._chance = random.Random(1)
        self._working = []  # when each ends
        self._order = count()

    def one_ends(self):
        """Work until the next message is done."""
        while len(self._working) < _FUNCTIONS and (delivered := self._queue.next()):
            record, group = delivered
            self.begun.append(group)
            seconds = self._chance.uniform(4, 12)
            heapq.heappush(
                self._working, (self.now + seconds, next(self._order), seconds, record, group)
            )
        self.now, _, seconds, record, group = heapq.heappop(self._working)
        assert self._place.handle(record) == []
        self._queue.done(group, seconds)


def cut_all(place):
    while messages := place.messages(wait=0):
        assert place.handle(*messages) == []


@pytest.mark.parametrize(
    ("kind", "seconds", "few", "many"),
    [("long recordings", 160, 5, 60), ("voice notes", 3, 40, 300)],
)
def test_one_job_is_done_soon_though_another_caller_has_sent_many(
    aws, often, tried, kind, seconds, few, many
):
    place = Place(
        aws, auth="jwt", aws_lambda_function_name="steno", pacing=replace(PACING, part_seconds=4)
    )
    url = place.express_queue if kind == "voice notes" else place.parts_queue
    spoken, jobs = long_recording("ogg", seconds), often(few, many)
    place.http = TestClient(Gateway(place.app, "greedy"))
    for number in range(jobs):
        place.upload(spoken, prompt=f"of many {number}")
    cut_all(place)
    queue = FairQueue(place, url)
    queue.receive()
    functions = Functions(place, queue)
    for _ in range(3):
        functions.one_ends()
    waiting = len(queue.waiting)
    assert waiting >= _FUNCTIONS
    place.http = TestClient(Gateway(place.app, "modest"))
    identity = place.upload(long_recording("ogg", min(seconds, 60)), prompt="only one")
    cut_all(place)
    queue.receive()
    before, cut_at = len(functions.begun), functions.now
    while place.job(identity)["status"] != "completed":
        functions.one_ends()
    parts = place.job(identity)["progress"]["total"]
    (greedy,) = set(functions.begun[:before])
    assert greedy not in functions.begun[before : before + parts]
    tried(
        f"One job behind another caller's many, in a queue that serves as AWS's fair queues do: {kind}",
        f"{jobs} jobs before it, {waiting} of whose parts waited",
        f"its parts were the next to be delivered, {parts} of them; done {functions.now - cut_at:.0f} s after it was"
        " cut, by 16 functions that take 4 to 12 s a part",
    )


def test_a_voice_note_waits_behind_no_part_of_a_long_recording(aws, webm):
    place = Place(aws)
    long = place.upload(long_recording("ogg", 61))
    cut_all(place)
    note = place.upload(webm)
    cut_all(place)
    assert place.handle(*place.messages(place.express_queue)) == []
    assert (place.job(note)["status"], place.job(long)["status"]) == ("completed", "processing")


def test_all_callers_of_one_token_are_served_in_turn(aws):
    place = Place(aws, auth="token", access_token="t")
    place.http.headers["authorization"] = "Bearer t"
    identities = [place.upload(recording("webm", seconds=seconds)) for seconds in (1, 2)]
    cut_all(place)
    queue = FairQueue(place, place.express_queue)
    queue.receive()
    functions = Functions(place, queue)
    functions.one_ends()
    functions.one_ends()
    assert len(set(functions.begun)) == 1
    assert {place.job(identity)["status"] for identity in identities} == {"completed"}
