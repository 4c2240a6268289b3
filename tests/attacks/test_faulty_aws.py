"""Test that no job is lost and nothing is billed twice while 30 % of the AWS calls fail."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

from tests.callers import Caller
from tests.fake_upstream import FakeUpstream
from tests.faulty_aws import FaultyAWS
from tests.harness import PACING


def test_requests_and_jobs_complete_and_are_billed_once_if_aws_calls_fail(
    faulty_aws_server, quick_or_soak, record_result, webm
):
    aws_faults, upstream = FaultyAWS(0.3), FakeUpstream()
    server = faulty_aws_server(
        aws_faults, upstream, replace(PACING, outage_seconds=1), daily_seconds=10**6
    )
    requests, jobs = quick_or_soak(20, 300), quick_or_soak(4, 30)
    caller = Caller(server, "storage_unavailable", "upstream_busy", "internal_error")
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(server.running_worker())
        pool = stack.enter_context(ThreadPoolExecutor(8))
        direct = [
            pool.submit(caller.transcribe, webm, prompt=f"request {number}")
            for number in range(requests)
        ]
        uploaded = [
            pool.submit(caller.transcribe_upload, webm, prompt=f"job {number}")
            for number in range(jobs)
        ]
        assert {words.result() for words in direct + uploaded} == {"Ever tried."}
    requests_by_prompt = Counter(call.fields["prompt"][0] for call in upstream.calls)
    assert len(requests_by_prompt) == requests + jobs
    assert max(requests_by_prompt.values()) == 1
    services = Counter(service for service, _ in aws_faults.faults.elements())
    record_result(
        "Requests and jobs while 30 % of the AWS calls fail",
        f"{requests} requests, {jobs} jobs, {services.total()} faults"
        f" ({', '.join(f'{service} {times}' for service, times in sorted(services.items()))})",
        f"all transcribed, each billed once; {caller.troubles.total()} retries by callers",
    )
