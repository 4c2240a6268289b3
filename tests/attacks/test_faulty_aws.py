"""AWS fails, in three calls of ten or one service altogether: nothing is lost or paid twice, and callers are told."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

from tests.callers import Caller
from tests.false_upstream import FalseUpstream
from tests.faulty_aws import FaultyAWS
from tests.place import PACING


def test_requests_and_jobs_end_right_and_are_paid_once_though_aws_fails_three_times_in_ten(
    fragile, often, tried, webm
):
    faulty, upstream = FaultyAWS(0.3), FalseUpstream()
    server = fragile(faulty, upstream, replace(PACING, outage_seconds=1), daily_seconds=10**6)
    requests, jobs = often(20, 300), often(4, 30)
    caller = Caller(server, "storage_unavailable", "upstream_busy", "internal_error")
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(server.at_work())
        pool = stack.enter_context(ThreadPoolExecutor(8))
        direct = [
            pool.submit(caller.words_of, webm, prompt=f"request {number}")
            for number in range(requests)
        ]
        uploaded = [
            pool.submit(caller.words_of_upload, webm, prompt=f"job {number}")
            for number in range(jobs)
        ]
        assert {words.result() for words in direct + uploaded} == {"Ever tried."}
    asked = Counter(call.fields["prompt"][0] for call in upstream.calls)
    assert len(asked) == requests + jobs
    assert max(asked.values()) == 1
    services = Counter(service for service, _ in faulty.faults.elements())
    tried(
        "Recordings while AWS fails three times in ten",
        f"{requests} requests, {jobs} jobs, {services.total()} faults"
        f" ({', '.join(f'{service} {times}' for service, times in sorted(services.items()))})",
        f"all transcribed, each paid once; {caller.troubles.total()} requests were told to come again",
    )
