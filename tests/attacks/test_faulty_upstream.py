"""The speech service fails three times in ten, in every known way: all is heard in the end, and paid once."""

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
from tests.attacks.faulty_upstream import FAULTS, FaultyUpstream, question_of
from tests.callers import Caller
from tests.place import Server

_PACING = Pacing(part_seconds=20, first_backoff_seconds=0.05, call_seconds=100)


@pytest.fixture
def told():
    """What the metrics say."""
    return io.StringIO()


def test_requests_and_jobs_end_right_and_are_paid_once_though_the_service_fails_three_times_in_ten(
    aws, engine, often, tried, told
):
    service, chance = FaultyUpstream(0.3), random.Random(1)
    clips = [clip(chance.uniform(2, 4), chance) for _ in range(often(30, 300))]
    talks = [clip(chance.uniform(41, 59), chance) for _ in range(often(3, 30))]
    with ExitStack() as stack:
        url = stack.enter_context(service.before(engine))
        server = Server(
            aws,
            openai_base_url=url,
            pacing=_PACING,
            metrics=Metrics(told),
            request_deadline_seconds=20,
            max_concurrent_calls=2,  # the engine transcribes one at a time, and has the deadline of all that wait
            daily_seconds=10**6,
        )
        for _ in range(3):
            stack.enter_context(server.at_work())
        caller = Caller(server, "upstream_", "unreadable_recording", "recording_too_large")
        pool = stack.enter_context(ThreadPoolExecutor(8))
        direct = pool.map(caller.words_of, clips)
        uploaded = pool.map(caller.words_of_upload, talks)
        heard, jobs = list(direct), list(uploaded)
    truths = [_by(engine, recording) for recording in clips + talks]
    # What goes by the worker is cut anew, and heard a little differently; another's words would be all wrong.
    assert [said for said in zip(truths, heard + jobs, strict=True) if jiwer.wer(*said) > 0.5] == []
    arrived = Counter(call.question for call in service.heard if call.arrived)
    assert max(arrived.values()) == 1  # nothing whose answer came was asked again
    billed_at_all = Counter(call.question for call in service.heard if call.seconds)
    assert (
        max(billed_at_all[question_of(recording)] for recording in clips) == 1
    )  # nor, in one request, any other
    billed = sum(call.seconds for call in service.heard if call.arrived)
    assert _paid(told) == pytest.approx(billed)
    in_doubt = sum(call.seconds for call in service.heard if not call.arrived)
    spent = _spent(server)
    assert spent >= billed + in_doubt * 0.9  # the length of what got no answer is known only about
    met = Counter(filter(None, service.faults))
    tried(
        "Recordings while the speech service fails three times in ten",
        f"{len(clips)} requests, {len(talks)} jobs, {sum(met.values())} faults of {len(met)} kinds",
        f"all transcribed; the service billed {billed} s for answers that came, Steno's books say {_paid(told):g} s;"
        f" no answer was paid twice; {in_doubt} s more were billed for answers that never came",
    )
    assert set(met) >= set(often((), FAULTS))


def _by(engine, recording):
    """What the engine hears when nothing fails."""
    return engine.ask(recording, "recording.wav", model="gpt-transcribe").json()["text"]


def _paid(told):
    """The seconds that Steno's metrics say were paid."""
    return sum(json.loads(line).get("SecondsPaid", 0) for line in told.getvalue().splitlines())


def _spent(server):
    """The seconds that Steno's budget says were spent, or may have been."""
    item = server.services.jobs.client.scan(
        TableName="steno", FilterExpression="sk = :all", ExpressionAttributeValues={":all": "all"}
    )
    return sum(float(found["seconds"]) for found in item["Items"])
