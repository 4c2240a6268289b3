"""Test that another upstream replaces a failing one, and that no audio is billed by both."""

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import jiwer

from handler.steps.pacing import Pacing
from tests.attacks.clips import clip
from tests.attacks.faulty_upstream import FaultyUpstream, request_hash_of
from tests.callers import Caller
from tests.harness import Server

_PACING = Pacing(part_seconds=20, first_backoff_seconds=0.05, call_seconds=100)


def test_requests_and_jobs_complete_and_are_billed_by_one_upstream_if_the_first_one_fails(
    aws, engine, quick_or_soak, record_result
):
    first, second, rng = FaultyUpstream(0.5), FaultyUpstream(0), random.Random(2)
    clips = [clip(rng.uniform(2, 4), rng) for _ in range(quick_or_soak(10, 200))]
    long_recordings = [clip(rng.uniform(41, 59), rng) for _ in range(quick_or_soak(1, 20))]
    with ExitStack() as stack:
        upstreams = [
            {
                "name": name,
                "base_url": stack.enter_context(upstream.install(engine)),
                "api_key": "x",
            }
            for name, upstream in (("first", first), ("second", second))
        ]
        server = Server(
            aws,
            upstreams=json.dumps(upstreams),
            whisper_model="first/gpt-transcribe",
            fallback_models="second/gpt-transcribe",
            pacing=_PACING,
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
        transcripts = [*direct, *uploaded]
    expected = [_transcribe(engine, recording) for recording in clips + long_recordings]
    pairs = zip(expected, transcripts, strict=True)
    assert [pair for pair in pairs if jiwer.wer(*pair) > 0.5] == []
    # A request that the first upstream has processed was not sent to the second one, even if the
    # first one did not respond.
    assert first.billed_requests() & second.billed_requests() == set()
    billed = Counter(request.request_hash for request in second.processed)
    assert max(billed.values()) == 1
    assert first.billed_requests()
    timeouts = {request.request_hash for request in first.processed if not request.delivered}
    assert timeouts & {request.request_hash for request in second.processed} == set()
    fallbacks = sum(request_hash_of(recording) in billed for recording in clips)
    assert fallbacks
    record_result(
        "Requests and jobs while 50 % of the calls to the first of two upstreams fail",
        f"{len(clips)} requests, {len(long_recordings)} jobs,"
        f" {len(list(filter(None, first.faults)))} faults",
        f"all transcribed; the first upstream billed {_seconds(first)} s and the second"
        f" {_seconds(second)} s; no recording or part was billed by both; {len(timeouts)} requests"
        " without a response were not sent to the second upstream",
    )


def _seconds(upstream):
    return sum(request.seconds for request in upstream.processed)


def _transcribe(engine, recording):
    """Return the engine's transcript, without injected faults."""
    return engine.transcribe(recording, "recording.wav", model="gpt-transcribe").json()["text"]
