"""Kill processes at random times, and let them run out of memory and disk space.

Every recording must be transcribed. Only requests in flight during a crash may be billed twice.
"""

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
from tests.attacks.processes import BillingUpstream, Process, api, worker
from tests.attacks.worker_process import CLAIM_SECONDS
from tests.callers import Caller, Remote
from tests.conftest import serving
from tests.fake_upstream import FakeUpstream
from tests.harness import Harness
from tests.samples import long_recording, wav

_CALLERS = 3
_WRITE_SECONDS = 1.0  # from a response until its result is in the table, on a busy machine
_LONG_SECONDS = 100  # four parts

CRASHES = (Process.kill, Process.terminate, Process.run_out_of_memory, Process.run_out_of_disk)


@pytest.fixture
def queues(aws):
    """Set the visibility timeout of the queues to CLAIM_SECONDS. Return the queue URLs."""
    sqs = boto3.client("sqs")
    urls = [aws[name.lower()] for name in QUEUES]
    for url in urls:
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": str(CLAIM_SECONDS)})
    yield urls
    for url in urls:
        sqs.set_queue_attributes(
            QueueUrl=url, Attributes={"VisibilityTimeout": str(VISIBILITY_SECONDS)}
        )


class CrashTest:
    """Runs callers while processes crash, and records the transcripts and the crashes."""

    def __init__(self, server):
        self.caller = Caller(
            server, "internal_error", "upstream_busy", "storage_unavailable", "upstream_timeout"
        )
        self.outages = []
        self.words = {}
        self._stopped = threading.Event()
        self._rng = random.Random(1)

    def crash(self, process, crash):
        started = time.monotonic()
        crash(process)
        self.outages.append((started, time.monotonic()))
        process.start()

    def call(self, caller_number):
        """Transcribe one recording after another until `stop` is called. Every third is long."""
        number = 0
        while not self._stopped.is_set():
            number += 1
            prompt = f"{caller_number}/{number}"
            if number % 3:
                self.words[prompt] = self.caller.transcribe(clip(3, self._rng), prompt=prompt)
            else:
                self.words[prompt] = self.caller.transcribe_upload(
                    clip(_LONG_SECONDS, self._rng), prompt=prompt
                )

    def stop(self):
        self._stopped.set()

    def unexplained_repeats(self, bills):
        """Return the groups of identical requests billed twice although nothing crashed."""
        return [
            group for group in _group_by_request(bills) if sum(map(self._had_no_crash, group)) > 1
        ]

    def _had_no_crash(self, bill):
        return not any(
            started < bill.finished + _WRITE_SECONDS and finished > bill.started
            for started, finished in self.outages
        )


def _group_by_request(bills):
    groups = defaultdict(list)
    for bill in bills:
        groups[bill.prompt, bill.recording_hash].append(bill)
    return groups.values()


def test_every_recording_is_transcribed_and_billed_once_despite_crashes(
    aws, queues, quick_or_soak, record_result, tmp_path
):
    upstream, kills = BillingUpstream(), quick_or_soak(8, 200)
    rng = random.Random(kills)
    with ExitStack() as stack:
        upstream_url = stack.enter_context(serving(upstream.app))
        environment = {
            **{name.upper(): value for name, value in aws.items()},
            "OPENAI_API_KEY": "any",
            "OPENAI_BASE_URL": f"{upstream_url}/v1",
            "MAX_CONCURRENT_CALLS": "4",
            "REQUEST_DEADLINE_SECONDS": "6",
        }
        api_process, url = stack.enter_context(api(tmp_path, **environment))
        workers = [
            stack.enter_context(worker(tmp_path, CLAIM_SECONDS, **environment)) for _ in range(2)
        ]
        crash_test = CrashTest(Remote(url))
        pool = stack.enter_context(ThreadPoolExecutor(_CALLERS))
        futures = [pool.submit(crash_test.call, caller_number) for caller_number in range(_CALLERS)]
        counts = Counter()
        try:
            for number in range(kills):
                time.sleep(rng.uniform(0.5, 2.5))  # crash at a random time
                victim, crash = rng.choice([api_process, *workers]), CRASHES[number % len(CRASHES)]
                crash_test.crash(victim, crash)
                counts[crash.__name__] += 1
        finally:
            crash_test.stop()
        for caller in futures:
            caller.result()
        _until_empty(queues)
        # A worker deletes the temporary files of crashed workers when it starts a job.
        crash_test.caller.transcribe_upload(wav(bytes(32_000)))
        _until_empty(queues)
        assert list(tmp_path.iterdir()) == []
    billed_hashes = {(bill.prompt, bill.recording_hash[:8]) for bill in upstream.bills}
    assert [
        prompt
        for prompt, words in crash_test.words.items()
        if not words or not {(prompt, word) for word in words.split()} <= billed_hashes
    ] == []
    assert crash_test.unexplained_repeats(upstream.bills) == []
    assert _orphans(aws) == []
    repeated = len(upstream.bills) - len(_group_by_request(upstream.bills))
    record_result(
        "Processes killed at random times during requests and jobs",
        f"{kills} times: {', '.join(f'{name} {times}' for name, times in counts.items())}",
        f"{len(crash_test.words)} recordings, all transcribed;"
        f" {len(upstream.bills)} billed requests, of which {repeated} repeat a request that was in"
        " flight during a crash; no other request was billed twice; only transcripts are left in"
        " the bucket, and no messages in the queues",
    )


@pytest.fixture
def disk():
    """Return a function that limits the size of all files, to simulate a full disk."""
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard_limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft_limit, hard_limit))


@pytest.mark.parametrize("limit", [0, 1_000, 150_000])
def test_a_full_disk_does_not_fail_the_job(aws, disk, limit):
    harness = Harness(aws)
    job_id = harness.upload(long_recording("ogg", 15))
    message = harness.upload_record(job_id)
    disk(limit)
    assert harness.run_worker(message) == [message["messageId"]]
    disk(resource.RLIM_INFINITY)
    assert harness.job(job_id)["status"] == "processing"
    assert harness.run_worker(message) == []
    assert harness.job(job_id)["status"] == "completed"


def test_a_full_disk_fails_no_part_and_bills_nothing(aws, disk):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    job_id = harness.upload(long_recording("ogg", 15))
    assert harness.handle(harness.upload_record(job_id)) == []
    (message,) = harness.part_messages()
    disk(1_000)
    for _ in range(6):  # more often than a part that crashes its process is retried
        assert harness.handle(message) == [message["messageId"]]
    disk(resource.RLIM_INFINITY)
    assert upstream.calls == []
    assert harness.handle(message) == []
    assert harness.job(job_id)["status"] == "completed"


def test_a_decoder_killed_for_memory_does_not_fail_the_job(aws):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    job_id = harness.upload(long_recording("ogg", 300))
    message = harness.upload_record(job_id)
    thread = threading.Thread(target=lambda: results.append(harness.run_worker(message)))
    results = []
    thread.start()
    while not (pids := _decoder_pids()):
        time.sleep(0.01)
    os.kill(pids[0], signal.SIGKILL)
    thread.join()
    assert results == [[message["messageId"]]]
    assert harness.run_worker(message) == []
    assert harness.job(job_id)["status"] == "completed"
    assert max(Counter(call.recording for call in upstream.calls).values()) == 1


def _decoder_pids():
    """Return the ids of the decoder processes that this process started."""
    lists = Path("/proc/self/task").glob("*/children")
    child_pids = [int(pid) for children in lists for pid in children.read_text().split()]
    return [
        pid
        for pid in child_pids
        if b"handler.recordings.decoder" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def _until_empty(queues):
    """Wait until the queues have no visible messages and no messages in flight."""
    sqs = boto3.client("sqs")
    while any(_messages(sqs, queue) for queue in queues):
        time.sleep(0.5)


def _messages(sqs, queue):
    """Return the number of messages in a queue, including those in flight."""
    counts = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    return int(counts["ApproximateNumberOfMessages"]) + int(
        counts["ApproximateNumberOfMessagesNotVisible"]
    )


def _orphans(aws):
    """Return the objects and items that are not needed by any job in its current status."""
    table = boto3.resource("dynamodb").Table(aws["table_name"])
    items = [item for page in _pages(table) for item in page if item["pk"].startswith("job#")]
    jobs = {item["id"]: item["status"] for item in items if item["sk"] == "job"}
    statuses_with_object = {
        "uploads": {"failed", "awaiting_upload"},
        "requests": {"failed"},
        "transcripts": {"completed"},
    }
    objects = [
        stored.key
        for stored in boto3.resource("s3").Bucket(aws["bucket_name"]).objects.all()
        for kind, name in [stored.key.split("/")[:2]]
        if jobs.get(name.partition(".")[0]) not in statuses_with_object.get(kind, ())
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
