"""Test that a caller's backlog does not delay the jobs of other callers."""

import heapq
import random
from collections import Counter
from dataclasses import replace
from itertools import count

import pytest
from starlette.testclient import TestClient

from infra.local.worker import lambda_record
from tests.harness import PACING, Harness, JwtGateway
from tests.samples import long_recording, recording

_BATCH = 10  # the maximum batch size of SQS
_HIDDEN_SECONDS = 3600  # longer than a test takes
_FUNCTIONS = 16  # concurrent functions, as in the stack


class FairQueue:
    """Delivers the messages in a local queue in the same order as an SQS fair queue.

    A message group is noisy if at least one of these conditions is met:

    - The group has at least 30 messages in flight, and more than 10 % of all messages in flight.
    - The group used more than 10 % of the recent processing time.

    Messages of groups that are not noisy are delivered first. Among the noisy groups, the one with
    the fewest messages in flight comes first.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues-detailed.html
    """

    def __init__(self, harness, url):
        self._sqs, self._url = harness.sqs, url
        self.waiting = []
        self._in_flight = Counter()
        self._seconds = Counter()

    def receive(self):
        """Receive the messages that were sent since the last call."""
        while messages := self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=_BATCH,
            VisibilityTimeout=_HIDDEN_SECONDS,
            MessageSystemAttributeNames=["All"],
        ).get("Messages"):
            self.waiting += messages

    def next(self):
        """Return the next message and its group, or None if the queue is empty."""
        if not self.waiting:
            return None
        message = min(self.waiting, key=lambda message: self._priority(_group_of(message)))
        self.waiting.remove(message)
        group = _group_of(message)
        self._in_flight[group] += 1
        return lambda_record(message, self._url), group

    def finish(self, group, seconds):
        self._in_flight[group] -= 1
        self._seconds[group] += seconds

    def _priority(self, group):
        in_flight, seconds = self._in_flight[group], self._seconds[group]
        noisy = in_flight >= 30 and in_flight > 0.1 * self._in_flight.total()
        noisy = noisy or seconds > 0.1 * self._seconds.total()
        return in_flight + 1 if noisy else 0


def _group_of(message):
    """Return the group of a message. A message without a group forms its own group."""
    return message["Attributes"].get("MessageGroupId", message["MessageId"])


class Functions:
    """Functions that run concurrently on a simulated clock.

    Processing a message takes 4 to 12 seconds.
    """

    def __init__(self, harness, queue):
        self.started_groups = []  # the message groups in the order of delivery
        self.now = 0.0
        self._harness, self._queue = harness, queue
        self._rng = random.Random(1)
        self._running = []  # a heap, ordered by end time
        self._order = count()

    def finish_next(self):
        """Advance the clock until a function has processed a message."""
        while len(self._running) < _FUNCTIONS and (delivered := self._queue.next()):
            record, group = delivered
            self.started_groups.append(group)
            seconds = self._rng.uniform(4, 12)
            heapq.heappush(
                self._running, (self.now + seconds, next(self._order), seconds, record, group)
            )
        self.now, _, seconds, record, group = heapq.heappop(self._running)
        assert self._harness.handle(record) == []
        self._queue.finish(group, seconds)


def cut_all(harness):
    while messages := harness.messages(wait=0):
        assert harness.handle(*messages) == []


@pytest.mark.parametrize(
    ("kind", "seconds", "quick_jobs", "soak_jobs"),
    [("long recordings", 160, 5, 60), ("voice notes", 3, 40, 300)],
)
def test_a_job_is_not_delayed_by_another_callers_backlog(
    aws, quick_or_soak, record_result, kind, seconds, quick_jobs, soak_jobs
):
    harness = Harness(
        aws, auth="jwt", aws_lambda_function_name="steno", pacing=replace(PACING, part_seconds=4)
    )
    url = harness.express_queue if kind == "voice notes" else harness.parts_queue
    content, jobs = long_recording("ogg", seconds), quick_or_soak(quick_jobs, soak_jobs)
    harness.http = TestClient(JwtGateway(harness.app, "greedy"))
    for number in range(jobs):
        harness.upload(content, prompt=f"backlog {number}")
    cut_all(harness)
    queue = FairQueue(harness, url)
    queue.receive()
    functions = Functions(harness, queue)
    for _ in range(3):
        functions.finish_next()
    waiting = len(queue.waiting)
    assert waiting >= _FUNCTIONS
    harness.http = TestClient(JwtGateway(harness.app, "modest"))
    job_id = harness.upload(long_recording("ogg", min(seconds, 60)), prompt="other caller")
    cut_all(harness)
    queue.receive()
    delivered_before, cut_at = len(functions.started_groups), functions.now
    while harness.job(job_id)["status"] != "completed":
        functions.finish_next()
    parts = harness.job(job_id)["progress"]["total"]
    (backlog_group,) = set(functions.started_groups[:delivered_before])
    assert (
        backlog_group not in functions.started_groups[delivered_before : delivered_before + parts]
    )
    record_result(
        f"A job behind another caller's backlog, in the order of SQS fair queues: {kind}",
        f"{jobs} jobs before it, with {waiting} parts waiting",
        f"its parts ({parts}) were delivered next; completed {functions.now - cut_at:.0f} s after"
        " it was cut, with 16 functions that take 4 to 12 s per part",
    )


def test_a_voice_note_does_not_wait_for_parts_of_a_long_recording(aws, webm):
    harness = Harness(aws)
    long = harness.upload(long_recording("ogg", 61))
    cut_all(harness)
    voice_note = harness.upload(webm)
    cut_all(harness)
    assert harness.handle(*harness.messages(harness.express_queue)) == []
    assert (harness.job(voice_note)["status"], harness.job(long)["status"]) == (
        "completed",
        "processing",
    )


def test_all_jobs_of_a_shared_token_are_in_one_message_group(aws):
    harness = Harness(aws, auth="token", access_token="t")
    harness.http.headers["authorization"] = "Bearer t"
    job_ids = [harness.upload(recording("webm", seconds=seconds)) for seconds in (1, 2)]
    cut_all(harness)
    queue = FairQueue(harness, harness.express_queue)
    queue.receive()
    functions = Functions(harness, queue)
    functions.finish_next()
    functions.finish_next()
    assert len(set(functions.started_groups)) == 1
    assert {harness.job(job_id)["status"] for job_id in job_ids} == {"completed"}
