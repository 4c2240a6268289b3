"""Processes die at random moments, in every way: all is transcribed, and paid twice only if it was on its way."""

import os
import random
import resource
import signal
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import boto3
import pytest

from infra.local.aws import QUEUES, VISIBILITY_SECONDS
from tests.attacks.clips import clip
from tests.attacks.crashing_worker import HOLD_SECONDS
from tests.attacks.processes import Process, Service, api, worker
from tests.callers import Caller, Remote
from tests.conftest import serving
from tests.false_upstream import FalseUpstream
from tests.place import Place
from tests.samples import long_recording, wav

_CALLERS = 3
_WRITTEN_SECONDS = 1.0  # from an answer until it is in the table, on a machine that is busy
_TALK_SECONDS = 100  # four parts

WAYS = (Process.kill, Process.terminate, Process.run_out_of_memory, Process.run_out_of_disk)


@pytest.fixture
def queues(aws):
    """The addresses of the queues, which deliver a message again after HOLD_SECONDS."""
    sqs = boto3.client("sqs")
    urls = [aws[name.lower()] for name in QUEUES]
    for url in urls:
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": str(HOLD_SECONDS)})
    yield urls
    for url in urls:
        sqs.set_queue_attributes(
            QueueUrl=url, Attributes={"VisibilityTimeout": str(VISIBILITY_SECONDS)}
        )


class Siege:
    """What callers do while processes die, and what came of it."""

    def __init__(self, server):
        self.caller = Caller(
            server, "internal_error", "upstream_busy", "storage_unavailable", "upstream_timeout"
        )
        self.wounds = []
        self.words = {}
        self._over = threading.Event()
        self._chance = random.Random(1)

    def wound(self, process, way):
        began = time.monotonic()
        way(process)
        self.wounds.append((began, time.monotonic()))
        process.start()

    def call(self, who):
        """One recording after another, every third as large as one that is uploaded, until it is over."""
        number = 0
        while not self._over.is_set():
            number += 1
            prompt = f"{who}/{number}"
            if number % 3:
                self.words[prompt] = self.caller.words_of(clip(3, self._chance), prompt=prompt)
            else:
                self.words[prompt] = self.caller.words_of_upload(
                    clip(_TALK_SECONDS, self._chance), prompt=prompt
                )

    def end(self):
        self._over.set()

    def unexplained(self, bills):
        """Bills for what had been billed before, though nothing had died meanwhile."""
        return [same for same in _by_question(bills) if sum(map(self._undisturbed, same)) > 1]

    def _undisturbed(self, bill):
        return not any(
            began < bill.ended + _WRITTEN_SECONDS and ended > bill.began
            for began, ended in self.wounds
        )


def _by_question(bills):
    asked = defaultdict(list)
    for bill in bills:
        asked[bill.prompt, bill.question].append(bill)
    return asked.values()


def test_every_recording_is_transcribed_and_paid_once_though_processes_die_in_every_way(
    aws, queues, often, tried, tmp_path
):
    service, kills = Service(), often(8, 200)
    chance = random.Random(kills)
    with ExitStack() as stack:
        upstream = stack.enter_context(serving(service.app))
        given = {
            **{name.upper(): value for name, value in aws.items()},
            "OPENAI_API_KEY": "any",
            "OPENAI_BASE_URL": f"{upstream}/v1",
            "MAX_CONCURRENT_CALLS": "4",
            "REQUEST_DEADLINE_SECONDS": "6",
        }
        front, url = stack.enter_context(api(tmp_path, **given))
        workers = [stack.enter_context(worker(tmp_path, HOLD_SECONDS, **given)) for _ in range(2)]
        siege = Siege(Remote(url))
        pool = stack.enter_context(ThreadPoolExecutor(_CALLERS))
        calling = [pool.submit(siege.call, who) for who in range(_CALLERS)]
        ways = Counter()
        try:
            for number in range(kills):
                time.sleep(chance.uniform(0.5, 2.5))  # when it happens is what is tried
                victim, way = chance.choice([front, *workers]), WAYS[number % len(WAYS)]
                siege.wound(victim, way)
                ways[way.__name__] += 1
        finally:
            siege.end()
        for caller in calling:
            caller.result()
        _until_empty(queues)
        siege.caller.words_of_upload(
            wav(bytes(32_000))
        )  # a worker sweeps where another died when it begins a job
        _until_empty(queues)
        assert list(tmp_path.iterdir()) == []
    known = {(bill.prompt, bill.question[:8]) for bill in service.bills}
    assert [
        prompt
        for prompt, words in siege.words.items()
        if not words or not {(prompt, word) for word in words.split()} <= known
    ] == []
    assert siege.unexplained(service.bills) == []
    assert _orphans(aws) == []
    twice = len(service.bills) - len(_by_question(service.bills))
    tried(
        "Processes killed at random moments, with requests and jobs running",
        f"{kills} times: {', '.join(f'{way} {times}' for way, times in ways.items())}",
        f"{len(siege.words)} recordings, all transcribed; {len(service.bills)} bills, {twice} of them for what was on"
        " its way when something died, none else twice; nothing left in the bucket but transcripts, and no message",
    )


@pytest.fixture
def disk():
    """Makes the disk as good as full: no file may grow beyond so many bytes."""
    least, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda amount: resource.setrlimit(resource.RLIMIT_FSIZE, (amount, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (least, most))


@pytest.mark.parametrize("amount", [0, 1_000, 150_000])
def test_a_full_disk_is_no_fault_of_the_recording(aws, disk, amount):
    place = Place(aws)
    identity = place.upload(long_recording("ogg", 15))
    message = place.about(identity)
    disk(amount)
    assert place.work(message) == [message["messageId"]]
    disk(resource.RLIM_INFINITY)
    assert place.job(identity)["status"] == "processing"
    assert place.work(message) == []
    assert place.job(identity)["status"] == "completed"


def test_a_full_disk_is_no_fault_of_a_part_and_costs_nothing(aws, disk):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    identity = place.upload(long_recording("ogg", 15))
    assert place.handle(place.about(identity)) == []
    (message,) = place.part_messages()
    disk(1_000)
    for _ in range(6):  # more often than a part may end its process
        assert place.handle(message) == [message["messageId"]]
    disk(resource.RLIM_INFINITY)
    assert upstream.calls == []
    assert place.handle(message) == []
    assert place.job(identity)["status"] == "completed"


def test_a_cutter_that_the_system_kills_for_memory_is_no_fault_of_the_recording(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    identity = place.upload(long_recording("ogg", 300))
    message = place.about(identity)
    working = threading.Thread(target=lambda: answered.append(place.work(message)))
    answered = []
    working.start()
    while not (children := _children()):
        time.sleep(0.01)
    os.kill(children[0], signal.SIGKILL)
    working.join()
    assert answered == [[message["messageId"]]]
    assert place.work(message) == []
    assert place.job(identity)["status"] == "completed"
    assert max(Counter(call.recording for call in upstream.calls).values()) == 1


def _children():
    """The cutters of this process."""
    found = Path("/proc/self/task").glob("*/children")
    pids = [int(pid) for task in found for pid in task.read_text().split()]
    return [
        pid
        for pid in pids
        if b"handler.recordings.decoder" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def _until_empty(queues):
    """Until no message waits in any of the queues, and none is worked on."""
    sqs = boto3.client("sqs")
    while any(_messages(sqs, queue) for queue in queues):
        time.sleep(0.5)


def _messages(sqs, queue):
    """How many messages a queue has, those that are worked on included."""
    counts = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    return int(counts["ApproximateNumberOfMessages"]) + int(
        counts["ApproximateNumberOfMessagesNotVisible"]
    )


def _orphans(aws):
    """What no job needs: recordings, transcripts and parts of jobs that are not there, or have ended without them."""
    table = boto3.resource("dynamodb").Table(aws["table_name"])
    items = [item for page in _pages(table) for item in page if item["pk"].startswith("job#")]
    jobs = {item["id"]: item["status"] for item in items if item["sk"] == "job"}
    wanted = {
        "uploads": {"failed", "awaiting_upload"},
        "requests": {"failed"},
        "transcripts": {"completed"},
    }
    objects = [
        stored.key
        for stored in boto3.resource("s3").Bucket(aws["bucket_name"]).objects.all()
        for kind, name in [stored.key.split("/")[:2]]
        if jobs.get(name.partition(".")[0]) not in wanted.get(kind, ())
    ]
    return objects + [
        item["pk"] for item in items if item["sk"] != "job" and jobs.get(item["pk"][4:]) != "failed"
    ]


def _pages(table):
    page = table.scan()
    yield page["Items"]
    while "LastEvaluatedKey" in page:
        page = table.scan(ExclusiveStartKey=page["LastEvaluatedKey"])
        yield page["Items"]
