"""Test that recordings are transcribed and billed once while 30 % of the upstream calls fail."""

import io
import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import jiwer
import pytest

from handler.aws.metrics import Metrics
from handler.steps.pacing import Pacing
from tests.attacks.clips import clip
from tests.attacks.faulty_upstream import FAULTS, FaultyUpstream, request_hash_of
from tests.callers import Caller
from tests.harness import Server

_PACING = Pacing(part_seconds=20, first_backoff_seconds=0.05, call_seconds=100)


@pytest.fixture
def metrics_output():
    """Return the stream that the metrics are written to."""
    return io.StringIO()


def test_requests_and_jobs_complete_and_are_billed_once_if_upstream_calls_fail(
    aws, engine, quick_or_soak, record_result, metrics_output
):
    faulty, rng = FaultyUpstream(0.3), random.Random(1)
    clips = [clip(rng.uniform(2, 4), rng) for _ in range(quick_or_soak(30, 300))]
    long_recordings = [clip(rng.uniform(41, 59), rng) for _ in range(quick_or_soak(3, 30))]
    with ExitStack() as stack:
        url = stack.enter_context(faulty.install(engine))
        server = Server(
            aws,
            openai_base_url=url,
            pacing=_PACING,
            metrics=Metrics(metrics_output),
            request_deadline_seconds=20,
            # The engine processes one request at a time. Other requests could miss their deadline.
            max_concurrent_calls=2,
            daily_seconds=10**6,
        )
        for _ in range(3):
            stack.enter_context(server.running_worker())
        caller = Caller(server, "upstream_", "unreadable_recording", "recording_too_large")
        pool = stack.enter_context(ThreadPoolExecutor(8))
        direct = pool.map(caller.transcribe, clips)
        uploaded = pool.map(caller.transcribe_upload, long_recordings)
        transcripts, jobs = list(direct), list(uploaded)
    expected = [_transcribe(engine, recording) for recording in clips + long_recordings]
    # The worker cuts and re-encodes recordings, which changes a few words. The threshold allows
    # that, but detects the transcript of another recording.
    assert [
        pair for pair in zip(expected, transcripts + jobs, strict=True) if jiwer.wer(*pair) > 0.5
    ] == []
    delivered = Counter(call.request_hash for call in faulty.processed if call.delivered)
    assert max(delivered.values()) == 1  # no delivered response was requested again
    billed_requests = Counter(call.request_hash for call in faulty.processed if call.seconds)
    # Each direct request was billed once.
    assert max(billed_requests[request_hash_of(recording)] for recording in clips) == 1
    billed = sum(call.seconds for call in faulty.processed if call.delivered)
    assert _paid_seconds(metrics_output) == pytest.approx(billed)
    undelivered_seconds = sum(call.seconds for call in faulty.processed if not call.delivered)
    # If a request has no response, its billed duration is an estimate.
    assert _spent_seconds(server) >= billed + undelivered_seconds * 0.9
    faults = Counter(filter(None, faulty.faults))
    record_result(
        "Requests and jobs while 30 % of the upstream calls fail",
        f"{len(clips)} requests, {len(long_recordings)} jobs,"
        f" {sum(faults.values())} faults of {len(faults)} kinds",
        f"all transcribed; the upstream billed {billed} s for delivered responses, and Steno's"
        f" metrics report {_paid_seconds(metrics_output):g} s; no delivered response was billed"
        f" twice; the upstream billed another {undelivered_seconds} s for responses that were not"
        " delivered",
    )
    assert set(faults) >= set(quick_or_soak((), FAULTS))


def _transcribe(engine, recording):
    """Return the engine's transcript, without injected faults."""
    return engine.transcribe(recording, "recording.wav", model="gpt-transcribe").json()["text"]


def _paid_seconds(metrics_output):
    """Return the paid seconds in Steno's metrics."""
    return sum(
        json.loads(line).get("SecondsPaid", 0) for line in metrics_output.getvalue().splitlines()
    )


def _spent_seconds(server):
    """Return how many seconds are recorded in Steno's budget as billed or possibly billed."""
    item = server.services.jobs.client.scan(
        TableName="steno", FilterExpression="sk = :all", ExpressionAttributeValues={":all": "all"}
    )
    return sum(float(found["seconds"]) for found in item["Items"])
