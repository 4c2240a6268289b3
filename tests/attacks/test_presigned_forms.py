"""Tests that reuse an upload form while its job runs or after the job has ended.

For each form, only one transcript is billed.
"""

import hashlib
from collections import Counter

import pytest

from tests.fake_upstream import FakeUpstream, transcript_response
from tests.harness import Harness
from tests.jobs.test_presigned_forms import upload_with
from tests.samples import long_recording, recording


def test_reusing_a_form_after_its_job_completed_bills_and_stores_nothing(
    aws, webm, quick_or_soak, record_result
):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    created = harness.request_upload().json()
    upload_with(created["upload"], webm)
    harness.run_worker(harness.upload_record(created["id"]))
    count = quick_or_soak(3, 100)
    for number in range(count):
        upload_with(created["upload"], recording("wav", "endgame_nagg_nell.wav", 1 + number % 4))
        harness.run_worker(harness.upload_record(created["id"]))
        assert harness.objects() == [f"transcripts/{created['id']}.json"]
    assert harness.job(created["id"])["transcript"] == "Ever tried."
    assert len(upstream.calls) == 1
    record_result(
        "Upload forms reused after their job completed",
        f"{count} times",
        "billed once; nothing stored, nothing changed",
    )


class DistinctTranscripts(FakeUpstream):
    """A fake upstream that returns a different word for each recording."""

    def _handle(self, request):
        super()._handle(request)
        return transcript_response(hashlib.sha256(self.calls[-1].recording).hexdigest()[:8])


class CallCounter:
    """Counts the worker's AWS calls, and runs `action` before call number `call_number`."""

    def __init__(self, harness, call_number, action):
        self.calls = 0
        self._call_number, self._action = call_number, action
        self._events = [
            client.meta.events
            for client in (
                harness.jobs.client,
                harness.jobs.objects.client,
                harness.jobs.queues.sqs,
            )
        ]

    def __enter__(self):
        for events in self._events:
            events.register("before-send", self._count)
        return self

    def __exit__(self, *_):
        for events in self._events:
            events.unregister("before-send", self._count)

    def _count(self, **_):
        self.calls += 1
        if self.calls == self._call_number:
            self._action()


@pytest.mark.parametrize("content_kind", ["the same", "different"])
@pytest.mark.parametrize("delivered", ["immediately", "later"])
def test_reusing_a_form_during_its_job_gives_one_transcript_and_bills_once(
    aws, quick_or_soak, record_result, content_kind, delivered
):
    """The form is reused just before one of the worker's AWS calls.

    The S3 event notification for the second upload is delivered to another function, either
    immediately or later.
    """
    upstream = DistinctTranscripts()
    harness = Harness(aws, upstream, daily_seconds=10**6)
    first, second = long_recording("ogg", 61), long_recording("ogg", 44)
    reused_content = first if content_kind == "the same" else second
    (first_job, calls), (second_job, _) = (
        _job_with_reuse(harness, content, "alone") for content in (first, second)
    )
    words = [harness.job(job_id)["transcript"] for job_id in (first_job, second_job)]
    reuses = quick_or_soak(4, 60)
    for number in range(reuses):
        before = len(upstream.calls)
        job_id, _ = _job_with_reuse(
            harness, first, f"{number}", 1 + number * calls // reuses, reused_content, delivered
        )
        assert harness.job(job_id)["transcript"] in words[: 1 if reused_content is first else 2]
        requests_by_recording = Counter(call.recording for call in upstream.calls[before:])
        assert max(requests_by_recording.values()) == 1
        assert reused_content is second or len(requests_by_recording) == len(words[0].split())
        assert [key for key in harness.objects() if job_id in key] == [f"transcripts/{job_id}.json"]
        assert [item["sk"] for item in harness.items() if item["pk"] == f"job#{job_id}"] == ["job"]
        (spent,) = (
            item
            for item in harness.items()
            if item["pk"].startswith("spent#") and item["sk"] == "all"
        )
        assert (spent["seconds"], spent.get("unsettled")) == (3 * len(upstream.calls), None)
    record_result(
        f"Upload forms reused during their job, with {content_kind} bytes, delivered {delivered}",
        f"{reuses} times, spread over the worker's {calls} AWS calls",
        "each gave the transcript of one recording; no part was billed twice; only the transcript"
        " was left",
    )


def _run_job(harness, record):
    """Have the worker handle the event notification for an upload, then all part messages."""
    assert harness.handle(record) == []
    while harness.handle_part_records():
        pass


def _job_with_reuse(harness, content, prompt, call_number=0, reused_content=b"", delivered=""):
    """Run a job, and reuse its form before AWS call number `call_number`.

    Return the job id and the number of AWS calls that the worker made.
    """
    created = harness.request_upload(prompt=prompt).json()
    job_id, deliveries = created["id"], 1

    def reuse_form():
        nonlocal deliveries
        upload_with(created["upload"], reused_content)
        if delivered == "immediately":
            assert harness.handle(harness.upload_record(job_id)) == []
        else:
            deliveries += 1

    upload_with(created["upload"], content)
    record = harness.upload_record(job_id)
    with CallCounter(harness, call_number, reuse_form) as counter:
        _run_job(harness, record)
    for _ in range(deliveries - 1):
        _run_job(harness, harness.upload_record(job_id))
    assert harness.job(job_id)["status"] == "completed"
    return job_id, counter.calls
