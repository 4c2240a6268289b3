"""AWS is out, or refuses: callers are told so within seconds, and nothing is lost or paid twice."""

import os
import time

import boto3
import pytest

from handler.jobs.store import Jobs
from tests.callers import Caller
from tests.conftest import settings
from tests.false_upstream import FalseUpstream, heard, refused
from tests.faulty_aws import FaultyAWS
from tests.place import Place
from tests.samples import long_recording


@pytest.mark.parametrize("service", ["dynamodb", "s3", "sqs", "secretsmanager"])
def test_an_outage_is_told_as_one_before_anything_is_paid_and_ends_with_it(fragile, webm, service):
    faulty, upstream = FaultyAWS(), FalseUpstream()
    server = fragile(faulty, upstream, openai_api_key=None, openai_secret_arn="steno")
    needed = service in ("dynamodb", "secretsmanager")
    faulty.out = service
    answer = server.send(webm)
    if needed:
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
        assert answer.headers["retry-after"]
        assert upstream.calls == []
    else:
        assert answer.json() == {"transcript": "Ever tried."}
    assert server.send(b"nonsense").status_code in (415, 503)
    faulty.out = ""
    with server.at_work():
        caller = Caller(server, "upstream_busy")
        assert caller.words_of(webm) == "Ever tried."
        assert caller.words_of_upload(webm, prompt="once more") == "Ever tried."
    assert len(upstream.calls) == 2


def test_a_secret_that_cannot_be_read_again_is_used_as_it_was(fragile, webm):
    faulty, upstream = FaultyAWS(), FalseUpstream()
    server = fragile(faulty, upstream, openai_api_key=None, openai_secret_arn="steno")
    assert server.send(webm).is_success
    faulty.out = "secretsmanager"
    assert not server.services.openai_key.renew("offline")  # it is asked for, and nobody answers
    assert server.send(webm, prompt="again").is_success
    assert [call.authorization for call in upstream.calls] == ["Bearer offline"] * 2


class _TakesNothing(FaultyAWS):
    """The table takes no item, once it is `full`, until it was asked so many times: more often than one call asks."""

    def __init__(self, times):
        super().__init__()
        self.full = False
        self._times = times

    def _fault(self, call, service):
        writes = call.headers.get("x-amz-target", "").endswith(".PutItem")
        return (
            "error" if self.full and writes and self.faults[service, "error"] < self._times else ""
        )


def test_what_is_heard_while_the_table_takes_nothing_is_neither_lost_nor_paid_again(fragile):
    faulty = _TakesNothing(times=6)

    def fills(_request):
        faulty.full = True
        return heard("First.")

    upstream = FalseUpstream(fills, words="And so on.")
    server = fragile(faulty, upstream, max_concurrent_calls=1)
    identity = server.upload(long_recording("ogg", 50))
    with server.at_work():
        assert "First." in Caller(server).words_of_job(identity)
    assert faulty.faults["dynamodb", "error"] == 6
    assert len(upstream.calls) == server.job(identity)["progress"]["total"]


def test_a_key_that_is_rotated_in_the_middle_of_a_job_costs_nothing(fragile):
    secrets = boto3.client("secretsmanager")
    keys = {"Bearer offline"}

    def rotate(_request):
        secrets.put_secret_value(SecretId="steno", SecretString="sk-new")
        keys.clear()
        keys.add("Bearer sk-new")
        return heard("First.")

    def guarded(request):
        return (
            heard("Later.")
            if request.headers["authorization"] in keys
            else refused(401, "invalid_api_key")
        )

    upstream = FalseUpstream(rotate, *[guarded] * 20)
    server = fragile(
        FaultyAWS(),
        upstream,
        openai_api_key=None,
        openai_secret_arn="steno",
        max_concurrent_calls=1,
    )
    try:
        identity = server.upload(long_recording("ogg", 50))
        with server.at_work():
            assert Caller(server).words_of_job(identity).startswith("First. Later.")
        assert (
            len(upstream.calls) == server.job(identity)["progress"]["total"] + 1
        )  # one was refused, and not billed
    finally:
        secrets.put_secret_value(SecretId="steno", SecretString="offline")


def test_a_worker_whose_clock_is_ahead_takes_a_part_over_and_pays_again_for_the_request_in_flight_alone(
    aws,
):
    """As if the claim had ended: the first worker comes too late, and changes nothing any more."""
    upstream, parts = FalseUpstream(), []
    ahead = Place(aws, upstream, jobs=Jobs(settings(**aws), clock=lambda: time.time() + 3600))

    def overtaken(_request):
        """While the first worker asks about the first part, another does the whole job."""
        assert ahead.handle(*parts) == []
        return heard("Too late.")

    first = Place(aws, upstream)
    identity = first.upload(long_recording("ogg", 50))
    parts.extend(first.cut(identity))
    upstream.replies.append(overtaken)
    assert first.handle(parts[0]) == []
    job = ahead.job(identity)
    assert (job["status"], set(job["transcript"].split(". "))) == (
        "completed",
        {"Ever tried", "Ever tried."},
    )
    assert len(upstream.calls) == job["progress"]["total"] + 1 == len(parts) + 1
    assert first.objects() == [f"transcripts/{identity}.json"]
    assert not [item for item in first.items() if item["sk"].startswith("part")]


def test_the_longest_options_and_names_fit_the_table(fragile, webm):
    server = fragile(FaultyAWS(), FalseUpstream())
    longest = {"prompt": "🎙" * 20_000, "keywords": ["🎙" * 100] * 200, "filename": "🎙" * 1000}
    asked = server.ask(len(webm), **longest)
    assert asked.status_code == 201, asked.text
    with server.at_work():
        server.post(asked.json()["upload"], webm)
        assert Caller(server).words_of_job(asked.json()["id"]) == "Ever tried."


@pytest.mark.parametrize("more", [{"keywords": ["word" * 25] * 201}, {"languages": ["en"] * 101}])
def test_options_that_no_table_could_hold_are_refused(fragile, more):
    answer = fragile(FaultyAWS(), FalseUpstream()).ask(**more)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option")


def test_a_part_with_more_text_than_the_table_holds_fails_its_job_and_is_not_paid_again(aws):
    unspeakable = os.urandom(210_000).hex()  # the item has it twice
    upstream = FalseUpstream(heard(unspeakable))
    place = Place(aws, upstream)
    identity = place.upload(long_recording("ogg", 15))
    place.work(place.about(identity))
    job = place.job(identity)
    assert (job["status"], job["error"]["code"]) == ("failed", "internal_error")
    assert "too large to be stored" in job["error"]["detail"]
    assert len(upstream.calls) == 1
