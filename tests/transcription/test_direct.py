"""direct.py and purchase.py: what comes in one request is paid for once, and becomes a job where that is surer."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import openai
import pytest

from handler.billing.budget import Budget
from handler.errors import error_from_code
from handler.jobs.store import Jobs
from tests.callers import Caller
from tests.conftest import serving, settings
from tests.false_upstream import FalseUpstream, heard, refused
from tests.place import Clock, Server, parts
from tests.samples import asset, long_recording, recording, silent_video, wav

WORDS = "Ever tried."


# Paid once


def test_the_same_recording_sent_ten_times_five_of_them_at_once_is_paid_for_once(server):
    together, content = threading.Barrier(5), long_recording("wav", 11)
    assert len(content) > 1_000_000
    answered = threading.Event()

    def slowly(_):
        answered.wait(1)  # so that the others come while the first is on its way
        return heard(WORDS)

    upstream = FalseUpstream(slowly)
    place = server(upstream, idle=True)

    def send(_):
        together.wait()
        return place.send(content)

    with ThreadPoolExecutor(5) as pool:
        at_once = list(pool.map(send, range(5)))
    after = [place.send(content) for _ in range(5)]
    assert [answer.json() for answer in at_once + after] == [{"transcript": WORDS}] * 10
    assert len(upstream.calls) == 1


def test_another_model_language_or_recording_is_another_payment(server):
    upstream, content = FalseUpstream(), recording("webm")
    place = server(upstream, idle=True)
    for fields in ({}, {"model": "whisper-1"}, {"language": "en"}, {"response_format": "text"}):
        assert place.send(content, **fields).status_code == 200
    place.send(recording("ogg"))
    assert len(upstream.calls) == 4  # the words are the same in every format
    server(upstream, idle=True, openai_base_url="http://another.example/v1").send(content)
    assert len(upstream.calls) == 5


def test_what_was_paid_for_one_way_is_free_the_other_way(server):
    upstream = FalseUpstream()
    place = server(upstream, idle=True)
    first, second = recording("webm"), recording("ogg")
    assert place.send(first).json() == {"transcript": WORDS}
    identity = place.upload(first)
    place.work(place.about(identity))
    assert (place.job(identity)["transcript"], place.job(identity)["seconds_paid"]) == (WORDS, 0)
    identity = place.upload(second)
    place.work(place.about(identity))
    assert place.job(identity)["seconds_paid"] == 3
    assert place.send(second).json() == {"transcript": WORDS}
    assert place.send(second, "/v1/audio/transcriptions").json()["text"] == WORDS
    assert len(upstream.calls) == 2


def test_what_failed_and_cannot_have_been_billed_is_sent_again(server):
    upstream = FalseUpstream(refused(401), heard(WORDS))
    place = server(upstream, idle=True)
    assert place.send(recording("webm")).status_code == 502
    assert place.send(recording("webm")).json() == {"transcript": WORDS}


def test_the_upstreams_whole_answer_is_remembered(server):
    place = server(FalseUpstream(heard(WORDS, languages=[{"code": "en"}])), idle=True)
    content = recording("webm")
    first, second = (place.send(content, "/v1/audio/transcriptions") for _ in range(2))
    assert first.json() == second.json()
    assert first.json()["languages"] == [{"code": "en"}]


# What the fast way cannot do, the sure way does


@pytest.mark.parametrize("kind", ["aac", "aiff", "asf", "avi", "caf", "mpeg-ts"])
def test_what_the_speech_service_does_not_take_is_made_into_what_it_takes(server, kind):
    upstream = FalseUpstream()
    answer = server(upstream).send(recording(kind))
    assert (answer.status_code, answer.json()) == (200, {"transcript": WORDS})
    assert answer.headers["Steno-Model"] == "gpt-transcribe"
    assert all(map(parts, upstream.calls))


def test_an_amr_in_which_nobody_speaks_costs_nothing(server):
    upstream = FalseUpstream()
    answer = server(upstream).send(
        recording("amr"), model="whisper-1", response_format="verbose_json"
    )
    assert (answer.json()["transcript"], answer.json()["no_speech"], upstream.calls) == (
        "",
        True,
        [],
    )


def test_what_the_speech_service_cannot_read_is_repaired(server):
    """As with Safari's recordings, some of which it refuses."""
    upstream = FalseUpstream(refused(400))
    answer = server(upstream).send(recording("fragmented mp4"), response_format="text")
    assert (answer.status_code, answer.text) == (200, f"{WORDS}\n")
    assert [parts(call) for call in upstream.calls] == [False, True]


def test_an_answer_to_far_less_than_was_recorded_is_not_believed(server):
    """As with Safari's recordings, of some of which it hears the first second, and answers 200."""
    first_second = httpx2.Response(
        200, json={"text": "Ever", "usage": {"type": "duration", "seconds": 1}}
    )
    upstream = FalseUpstream(first_second)
    place = server(upstream)
    for _ in range(2):
        assert place.send(recording("fragmented mp4", seconds=10)).json() == {"transcript": WORDS}
    assert [parts(call) for call in upstream.calls] == [False, True]


@pytest.mark.parametrize("kind", ["mp4", "webm", "mp3"])
def test_a_short_answer_to_a_good_recording_is_believed(server, kind):
    upstream = FalseUpstream(
        httpx2.Response(200, json={"text": "", "usage": {"type": "duration", "seconds": 1}})
    )
    assert server(upstream, idle=True).send(recording(kind, seconds=10)).status_code == 200
    assert len(upstream.calls) == 1


def test_a_recording_too_long_for_the_clock_is_a_job_before_anything_is_paid(server):
    upstream = FalseUpstream()
    place = server(upstream, idle=True, request_deadline_seconds=2)
    answer = place.send(long_recording("webm", 120))
    assert answer.status_code == 202
    assert answer.json()["status"] == "queued"
    assert answer.headers["Location"] == f"/api/transcriptions/{answer.json()['id']}"
    assert answer.headers["Retry-After"]
    assert upstream.calls == []
    with place.at_work():
        done = place.send(long_recording("webm", 120), "/v1/audio/transcriptions")
        assert done.status_code in (200, 503)
        assert WORDS in Caller(place).words_of_job(answer.json()["id"])
    assert all(map(parts, upstream.calls))


def test_a_service_that_hangs_costs_the_recording_nothing_but_time(server):
    release = threading.Event()

    def hang(_):
        release.wait(20)
        return heard("too late")

    place = server(FalseUpstream(hang), request_deadline_seconds=6)
    answer = place.send(recording("webm"))
    release.set()
    assert answer.status_code in (200, 202)
    if answer.status_code == 202:
        answer = place.send(recording("webm"))
    assert answer.json() == {"transcript": WORDS}


def test_what_may_have_been_billed_once_is_not_sent_again_by_whoever_sends_it_again(server):
    """The first send hangs and becomes a job; the next ones join it, before and after it is done."""
    release = threading.Event()

    def hang(_):
        release.wait(20)
        return heard("too late")

    upstream, content = FalseUpstream(hang), recording("webm")
    place = server(upstream, idle=True, request_deadline_seconds=4)
    answers = [place.send(content) for _ in range(3)]
    release.set()
    assert [answer.status_code for answer in answers] == [202] * 3
    assert len({answer.headers["Location"] for answer in answers}) == 1
    assert len(upstream.calls) == 1
    place.work(place.about(answers[0].json()["id"]))
    assert place.send(content).json() == {"transcript": WORDS}
    assert [parts(call) for call in upstream.calls] == [False, True]


def test_a_recording_is_whole_in_the_bucket_though_the_given_up_call_reads_it_still(server):
    """They share the file, and must not share the place in it."""
    given_up, all_sent, sent = threading.Event(), threading.Event(), []

    class ReadsHalfAndWaits(httpx2.BaseTransport):
        def handle_request(self, request):
            for chunk in request.stream:
                sent.append(chunk)
                if len(sent) == 3:
                    given_up.wait(20)
            all_sent.set()
            return heard("too late")

    content = recording("wav", "two_cities.wav", 5)
    place = server(ReadsHalfAndWaits(), idle=True, request_deadline_seconds=6)
    identity = place.send(content).json()["id"]
    given_up.set()
    assert (
        place.s3.get_object(Bucket="steno", Key=f"requests/{identity}.wav")["Body"].read()
        == content
    )
    assert all_sent.wait(20)
    assert content in b"".join(sent)


def test_books_that_cannot_be_kept_cost_no_transcript(server):
    place = server(idle=True, daily_seconds=900)

    def stumble(params, **_):
        if "transcript" in params.get("Item", {}) or ":most" not in params.get(
            "ExpressionAttributeValues", {}
        ):
            raise ConnectionResetError

    events = place.jobs.client.meta.events
    events.register("provide-client-params.dynamodb.PutItem", stumble)
    assert place.send(recording("webm")).json() == {"transcript": WORDS}


def test_a_job_that_failed_because_the_service_was_busy_may_be_sent_again():
    error = error_from_code("upstream_busy", "busy")
    assert (error.safe_to_retry, error.retry_after) == (True, 5)


@pytest.mark.parametrize(
    ("usage", "seconds"),
    [
        ({"type": "duration", "seconds": 3}, 3),
        (
            {
                "type": "tokens",
                "input_tokens": 31,
                "output_tokens": 4,
                "input_token_details": {"audio_tokens": 30},
            },
            3,
        ),
        ({"type": "duration", "seconds": "many"}, None),
        ({}, None),
    ],
)
def test_what_counts_is_what_was_billed_however_the_answer_tells_it(server, usage, seconds):
    upstream = FalseUpstream(httpx2.Response(200, json={"text": WORDS, "usage": usage}))
    place, content = server(upstream, idle=True, daily_seconds=900), recording("webm")
    place.send(content)
    assert spent(place)["all"] == pytest.approx(
        seconds or len(content) / 4000, abs=0.01
    )  # or what is usual


def test_a_busy_service_is_waited_for_by_the_worker(server):
    place = server(FalseUpstream(refused(429, retry_after="100"), words=WORDS))
    assert place.send(recording("webm")).json() == {"transcript": WORDS}


@pytest.mark.parametrize(
    ("content", "upstream", "status", "code"),
    [
        (
            recording("webm"),
            lambda: FalseUpstream(*[refused(400)] * 2),
            422,
            "unreadable_recording",
        ),
        (silent_video(), lambda: FalseUpstream(refused(400)), 422, "no_audio"),
        (
            recording("aac"),
            lambda: FalseUpstream(refused(429, "insufficient_quota")),
            502,
            "upstream_quota",
        ),
    ],
)
def test_a_job_that_fails_in_time_gives_the_request_its_own_error(
    server, content, upstream, status, code
):
    answer = server(upstream()).send(content)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Location"].startswith(
        "/api/transcriptions/"
    )  # to try it again, or to delete it


def test_what_only_the_speech_services_own_answer_can_hold_is_no_job(server):
    upstream = FalseUpstream(refused(400))
    answer = server(upstream, idle=True).send(
        recording("webm"), "/v1/audio/transcriptions", model="gpt-4o-transcribe", include="logprobs"
    )
    assert answer.json()["error"]["code"] == "unreadable_recording"


def test_without_a_bucket_the_refusal_is_the_answer(client):
    answer = client(FalseUpstream(refused(400))).post(
        "/api/transcribe", files={"file": recording("webm")}
    )
    assert answer.json()["code"] == "unreadable_recording"


def test_openais_sdk_gets_the_words_of_a_job_by_its_own_retries(server):
    """The first try meets a job that is not finished; the same bytes join it."""
    place = server(FalseUpstream(), idle=True, request_deadline_seconds=1)
    with (
        serving(place.app) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as once,
    ):
        with pytest.raises(openai.InternalServerError) as busy:
            once.audio.transcriptions.create(
                model="gpt-transcribe", file=("a.aac", recording("aac"))
            )
        assert busy.value.response.headers["retry-after"]
        assert busy.value.response.headers["x-should-retry"] == "true"
        with place.at_work():
            answer = once.with_options(max_retries=9).audio.transcriptions.create(
                model="gpt-transcribe", file=("a.aac", recording("aac"))
            )
    assert answer.text == WORDS
    assert answer.usage.seconds == pytest.approx(3, abs=1)


def test_a_failed_job_is_begun_again_by_the_same_recording(server):
    upstream = FalseUpstream(refused(401))
    place = server(upstream)
    assert place.send(recording("aac")).json()["code"] == "upstream_credentials"
    assert place.send(recording("aac")).json() == {"transcript": WORDS}


# The day's budget


def spent(place):
    found = place.jobs.client.scan(TableName="steno")["Items"]
    return {
        item["sk"].partition("#")[0]: float(item["seconds"])
        for item in found
        if item["pk"].startswith("spent#")
    }


def test_requests_at_once_against_a_cap_are_paid_for_up_to_the_cap(server):
    upstream = FalseUpstream()
    place = server(upstream, daily_seconds=13, request_deadline_seconds=60)
    recordings = [recording("ogg", "two_cities.wav", 3 + number / 10) for number in range(9)]
    with ThreadPoolExecutor(9) as pool:
        answers = list(pool.map(place.send, recordings))
    said = [answer.json().get("code") or answer.json().get("transcript") for answer in answers]
    assert set(said) == {WORDS, "budget_exhausted"}
    assert 3 <= said.count(WORDS) == len(upstream.calls) <= 4
    assert spent(place)["all"] == 3 * len(upstream.calls) <= 13


def test_a_spent_budget_says_when_it_opens(server):
    place = server(idle=True, daily_seconds_per_caller=3)
    place.services.jobs.budget.reserve("testclient", 3)
    answer = place.ask()
    assert (answer.status_code, answer.json()["code"]) == (429, "budget_exhausted")
    assert 0 < int(answer.headers["Retry-After"]) <= 86_400
    assert "00:00 UTC" in answer.json()["detail"]


def test_one_callers_seconds_are_not_anothers(server):
    budget = server(idle=True, daily_seconds=10, daily_seconds_per_caller=6).services.jobs.budget
    budget.reserve("ada", 6)
    for caller, seconds in (("ada", 1), ("bob", 5)):
        with pytest.raises(Exception, match="00:00 UTC"):
            budget.reserve(caller, seconds)
    budget.reserve("bob", 4)


def test_what_was_reserved_before_midnight_is_settled_on_its_own_day(server):
    place = server(idle=True, daily_seconds=10)
    now = [1_800_000_000 // 86_400 * 86_400 - 1.0]
    budget = Budget(place.jobs.client, "steno", 10, None, lambda: now[0])
    reservation = budget.reserve("ada", 8)
    now[0] += 2
    budget.settle(reservation, 3)
    found = place.jobs.client.scan(TableName="steno")["Items"]
    assert [float(item["seconds"]) for item in found if item["pk"].startswith("spent#")] == [3]


def test_what_is_reserved_is_settled_by_what_was_billed(server):
    place = server(
        FalseUpstream(refused(401), heard(WORDS), httpx2.Response(502)),
        idle=True,
        daily_seconds=900,
    )
    place.send(recording("webm"))
    assert spent(place) == {"all": 0}
    place.send(recording("webm"))
    assert spent(place) == {"all": 3}
    place.send(recording("webm"))
    assert spent(place)["all"] > 3  # that one may have been billed


def test_a_job_that_meets_the_cap_fails_before_anything_is_paid_and_can_go_on_the_next_day(aws):
    upstream = FalseUpstream()
    clock = Clock()
    place = Server(aws, upstream, Jobs(settings(**aws, daily_seconds=100), clock))
    place.jobs.budget.reserve("another caller", 50)
    identity = place.upload(wav(asset("beckett.wav")[44:] * 8))
    place.work(place.about(identity))
    job = place.job(identity)
    assert (job["status"], job["error"]["code"], upstream.calls) == (
        "failed",
        "budget_exhausted",
        [],
    )
    clock.now += 86_400
    assert place.http.post(f"/api/transcriptions/{identity}/retry").status_code == 202
    place.work(place.about(identity))
    job = place.job(identity)
    assert (job["status"], job["seconds_paid"]) == ("completed", 3 * len(upstream.calls))
