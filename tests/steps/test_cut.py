"""cut.py: what the recordings queue may bring, and how a recording becomes parts."""

import itertools
import json
import tempfile
import threading
from dataclasses import replace
from io import BytesIO

import httpx2
import pytest
from starlette.testclient import TestClient

from handler.jobs.job import ANONYMOUS
from handler.recordings.container import identify
from infra.local.engine import decode
from tests.false_upstream import FalseUpstream, heard, refused
from tests.place import PACING, Gateway, Place, at_once, before, failing, outage, visibilities
from tests.recordings.test_speech_activity import SILENCES, samples
from tests.samples import asset, long_recording, recording, silent_video, wav

SPOKEN = (decode(asset("endgame_nagg_nell.wav"), "wav") * 32767).astype("<i2").tobytes()


@pytest.fixture
def place(aws):
    return Place(aws)


def notification(identity, key=None):
    return json.dumps({"Records": [{"s3": {"object": {"key": key or f"uploads/{identity}.webm"}}}]})


def by_size(request):
    """An answer about the bytes of the request, so that every part has words of its own."""
    return heard(f"Part of {len(request.read())} bytes.")


def cut_off(_request):
    usage = {"type": "tokens", "input_tokens": 1, "output_tokens": 1990, "total_tokens": 1991}
    return httpx2.Response(200, json={"text": "Ever", "usage": usage})


def part_of(record):
    return json.loads(record["body"])["part"]


def numbers(records):
    return [part_of(record)["number"] for record in records]


# What the queue may bring


def test_a_message_about_nothing_of_ours_changes_nothing(place):
    test_event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "steno"}
    for body in (
        json.dumps(test_event),
        notification("0" * 32),
        notification("x", key="uploads/..%2F..%2Fetc%2Fpasswd"),
        notification("x", key="elsewhere/file.webm"),
    ):
        assert place.handle(place.message(body)) == []
    assert place.items() == []


@pytest.mark.parametrize(
    "body",
    [
        "hello",
        "[]",
        '{"Records": [{}]}',
        '{"Records": 1}',
        '{"key": 5}',
        '{"part": {}}',
        '{"halve": 1}',
    ],
)
def test_a_message_that_makes_no_sense_is_reported_and_stops_no_other(place, body):
    identity = place.upload(recording("webm"))
    good, bad = place.about(identity), place.message(body)
    assert place.work(bad, good) == [bad["messageId"]]
    assert place.job(identity)["status"] == "completed"


def test_a_message_that_makes_no_sense_is_delivered_again_within_seconds(place):
    """So that its two hundred deliveries end within the hour, and not after two days."""
    message = place.message("hello")
    with visibilities(place) as kept:
        assert place.handle(message) == [message["messageId"]]
    assert kept == [10]


def test_the_same_message_twice_sends_each_part_once(place):
    identity = place.upload(long_recording("ogg", 40))
    message = place.about(identity)
    assert place.handle(message) == []
    assert place.handle(message) == []
    assert numbers(place.part_messages()) == [0, 1]


def test_two_deliveries_at_the_same_time_pay_once(aws):
    upstream, both = FalseUpstream(), threading.Barrier(2)
    place = Place(aws, upstream)
    identity = place.upload(long_recording("ogg", 40))
    message = place.about(identity)
    with before(place, "s3.HeadObject", lambda _: both.wait(60)):
        assert at_once(*[lambda: place.handle(message)] * 2) == [[], []]
    while place.work_on_parts():
        pass
    assert place.job(identity)["status"] == "completed"
    assert len(upstream.calls) == 2


def test_a_message_comes_again_soon_if_the_worker_dies(place):
    """The queue's own visibility timeout is longer; the worker shortens it before anything else."""
    place.upload(recording("webm"))
    with visibilities(place) as kept:
        place.work()
    assert kept == [
        PACING.claim_seconds,
        PACING.claim_seconds,
    ]  # of the recording's message, and of its part's


def test_a_recording_that_takes_long_to_cut_keeps_its_message(aws):
    kept = threading.Semaphore(0)
    place = Place(aws, pacing=replace(PACING, claim_seconds=0.06))
    place.upload(recording("webm"))
    events = place.jobs.queues.sqs.meta.events
    events.register("after-call.sqs.ChangeMessageVisibility", lambda **_: kept.release())

    def wait_until_kept(_):
        assert all(kept.acquire(timeout=60) for _ in range(4))

    with before(place, "s3.PutObject", wait_until_kept):
        assert place.handle(*place.messages()) == []


def test_a_recording_that_arrives_after_its_job_was_deleted_is_deleted_too(place):
    asked = place.ask().json()
    assert place.http.delete(f"/api/transcriptions/{asked['id']}").status_code == 204
    place.post(asked["upload"], recording("webm"))
    assert place.work(place.about(asked["id"])) == []
    assert (place.objects(), place.items()) == ([], [])


def test_leftovers_of_a_completed_job_are_deleted_when_its_message_comes_again(place):
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    place.work(message)
    for left in (f"uploads/{identity}.webm", f"parts/{identity}/x/0000.flac"):
        place.s3.put_object(Bucket="steno", Key=left, Body=b"x")
    assert place.handle(message) == []
    assert place.objects() == [f"transcripts/{identity}.json"]


def test_a_recording_that_no_worker_can_cut_fails_its_job_after_five_attempts(place):
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    with failing(place, "s3.HeadObject", ConnectionResetError()):
        for _ in range(5):
            assert place.handle(message) == [message["messageId"]]
            assert place.job(identity)["status"] == "processing"
    assert place.handle(message) == []
    assert (place.job(identity)["status"], place.job(identity)["error"]["code"]) == (
        "failed",
        "internal_error",
    )
    assert place.http.post(f"/api/transcriptions/{identity}/retry").status_code == 202
    assert place.work(place.about(identity)) == []
    assert place.job(identity)["status"] == "completed"


def test_a_recording_that_is_gone_fails_its_job(place):
    identity = place.upload(recording("webm"))
    place.s3.delete_object(Bucket="steno", Key=f"uploads/{identity}.webm")
    assert place.work() == []
    assert (place.job(identity)["status"], place.job(identity)["error"]["code"]) == (
        "failed",
        "not_found",
    )


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"<html>" * 100, "unsupported_media"),
        (silent_video(), "no_audio"),
        (recording("webm")[:300], None),
    ],
)
def test_a_recording_that_cannot_be_read_fails_with_a_reason(place, content, code):
    identity = place.upload(content)
    assert place.work() == []
    job = place.job(identity)
    assert job["status"] == "failed"
    assert job["error"]["detail"]
    assert code in (None, job["error"]["code"])
    assert place.transcript(identity).status_code == 409


def test_a_recording_longer_than_the_limit_fails(aws):
    place = Place(aws, max_audio_seconds=2)
    identity = place.upload(recording("webm"))
    place.work()
    assert place.job(identity)["error"]["code"] == "recording_too_large"


@pytest.mark.parametrize(("deliveries", "seconds"), [(1, 60), (4, 480), (200, 900)])
def test_in_an_outage_a_message_is_kept_back_longer_each_time(place, deliveries, seconds):
    identity = place.upload(recording("webm"))
    message = place.about(identity) | {"attributes": {"ApproximateReceiveCount": str(deliveries)}}
    with outage(place, "dynamodb.UpdateItem"), visibilities(place) as kept:
        assert place.handle(message) == [message["messageId"]]
    assert kept == [PACING.claim_seconds, seconds]


@pytest.mark.parametrize("call", ["s3.HeadObject", "s3.PutObject", "sqs.SendMessage"])
def test_an_outage_costs_a_job_none_of_its_attempts(place, call):
    identity = place.upload(recording("webm"))
    message = place.about(identity)
    with outage(place, call), visibilities(place) as kept:
        for _ in range(6):
            assert place.handle(message) == [message["messageId"]]
            assert place.job(identity)["status"] == "processing"
    assert kept == [PACING.claim_seconds, 60] * 6
    assert place.work(message) == []
    assert place.job(identity)["status"] == "completed"


# Parts


def test_parts_are_announced_as_they_are_cut_and_their_number_is_known_before(place):
    identity = place.upload(long_recording("ogg", 80))
    seen = []
    with before(place, "sqs.SendMessage", lambda _: seen.append(place.job(identity)["progress"])):
        assert numbers(place.cut(identity)) == [0, 1, 2]
    assert seen == [{"done": 0, "total": 3}] * 3


def test_a_recorder_that_was_asleep_makes_no_more_parts_than_there_is_sound_for(place):
    identity = place.upload(long_recording("webm", 80, gap=300))
    place.work()
    job = place.job(identity)
    assert job["progress"]["done"] == job["progress"]["total"] <= 3
    assert job["duration"] == pytest.approx(380, abs=1)


def test_a_part_is_deleted_from_the_disk_once_it_was_sent(place, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = []

    def look(_):
        left.append(sorted(path.name for path in tmp_path.glob("steno-*/*.flac")))

    identity = place.upload(long_recording("ogg", 80))
    with before(place, "s3.PutObject", look):
        place.cut(identity)
    assert left[-1] == ["0002.flac"]
    assert list(tmp_path.iterdir()) == []


def test_a_recording_without_speech_costs_nothing_and_is_completed_at_once(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    identity = place.upload(wav(bytes(32_000 * 50)))
    assert place.cut(identity) == []
    job = place.job(identity)
    assert (job["status"], job["transcript"], job["no_speech"]) == ("completed", "", True)
    assert (job["seconds_paid"], upstream.calls) == (0, [])


def test_silence_of_any_kind_costs_nothing(aws):
    """Takes seconds: each of a dozen recordings is cut by a process of its own."""
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    assert len(SILENCES) >= 10
    for silence in SILENCES.values():
        identity = place.upload(wav(samples(silence)))
        assert place.handle(place.about(identity)) == []
        job = place.job(identity)
        assert (job["status"], job["no_speech"], job["seconds_paid"]) == ("completed", True, 0)
    assert place.part_messages() == []


def test_a_part_without_speech_is_not_sent(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    spoken = asset("two_cities.wav")[44:]
    identity = place.upload(wav(spoken[: 32_000 * 20] + bytes(32_000 * 60) + spoken[: 32_000 * 20]))
    place.work()
    job = place.job(identity)
    assert job["progress"]["total"] > len(upstream.calls) >= 2
    assert job["transcript"].count("Ever tried.") == len(upstream.calls)


def test_parts_that_somebody_waits_for_go_to_the_express_queue(place):
    """Those of short recordings, and those of recordings that came in a request."""
    short, long = place.upload(recording("webm")), place.upload(long_recording("ogg", 40))
    request = BytesIO(long_recording("ogg", 40))
    requested = place.jobs.create_from_request(
        "f" * 32, request, identify(request), {}, ANONYMOUS
    ).id
    assert place.handle(*place.messages()) == []
    express, parts = place.messages(place.express_queue), place.messages(place.parts_queue)
    assert sorted(part_of(record)["job"] for record in express) == sorted(
        [short, requested, requested]
    )
    assert [part_of(record)["job"] for record in parts] == [long, long]


def test_messages_are_grouped_by_their_caller_so_that_the_queue_serves_all_in_turn(aws):
    place = Place(aws, auth="jwt", aws_lambda_function_name="api")
    groups = []
    for name in ("ada", "bob"):
        place.http = TestClient(Gateway(place.app, name))
        identity = place.upload(long_recording("ogg", 40))
        with before(
            place,
            "sqs.SendMessage",
            lambda sent, name=name: groups.append((name, sent["MessageGroupId"])),
        ):
            assert place.handle(place.about(identity)) == []
    ada, bob = ([group for name, group in groups if name == whose] for whose in ("ada", "bob"))
    assert (len(ada), len(bob)) == (2, 2)
    assert (len(set(ada)), len(set(bob)), len({*ada, *bob})) == (1, 1, 2)


# Halves


def test_an_answer_that_was_cut_off_is_asked_for_again_in_two_halves(aws):
    upstream = FalseUpstream(cut_off, heard("Ever tried."), heard("Ever failed."))
    place = Place(aws, upstream)
    identity = place.upload(long_recording("ogg", 30))
    place.work()
    job = place.job(identity)
    assert job["transcript"] == "Ever tried. Ever failed."
    assert len(upstream.calls) == 3
    assert job["seconds_paid"] == pytest.approx(
        36, abs=0.1
    )  # the answer that was cut off was paid, too


def test_a_part_that_is_halved_counts_as_done_and_its_halves_as_two_more(aws):
    place = Place(aws, FalseUpstream(cut_off))
    identity = place.upload(long_recording("ogg", 30))
    (whole,) = place.cut(identity)
    assert place.handle(whole) == []
    assert place.job(identity)["progress"] == {"done": 0, "total": 1}
    (split,) = place.messages()
    for _ in range(2):  # as it may be delivered twice
        assert place.handle(split) == []
        assert place.job(identity)["progress"] == {"done": 1, "total": 3}
    assert place.handle(whole) == []  # nor does the part's own message change anything
    assert place.messages(wait=0) == []
    while place.work_on_parts():
        pass
    assert place.job(identity)["progress"] == {"done": 3, "total": 3}
    assert place.handle(split) == []
    assert place.job(identity)["status"] == "completed"


def test_a_half_without_speech_is_not_sent(aws):
    upstream = FalseUpstream(cut_off)
    place = Place(aws, upstream, pacing=replace(PACING, part_seconds=60))
    identity = place.upload(wav(SPOKEN + bytes(32_000 * 26)))
    place.work(place.about(identity))
    assert place.job(identity)["transcript"] == "Ever tried."
    assert len(upstream.calls) == 2


def test_the_times_of_two_halves_are_those_of_the_recording(aws):
    segments = [
        {
            "type": "transcript.text.segment",
            "id": "s",
            "text": "Ever",
            "speaker": "A",
            "start": 1,
            "end": 2,
        }
    ]

    def cut_off_if_long(request):
        tokens = 1990 if len(request.read()) > 250_000 else 10
        usage = {
            "type": "tokens",
            "input_tokens": 1,
            "output_tokens": tokens,
            "total_tokens": tokens + 1,
        }
        return httpx2.Response(200, json={"text": "Ever", "usage": usage, "segments": segments})

    place = Place(aws, httpx2.MockTransport(cut_off_if_long))
    identity = place.upload(long_recording("ogg", 80), model="gpt-4o-transcribe-diarize")
    place.work()
    told = place.transcript(identity, response_format="verbose_json").json()["segments"]
    assert len(told) >= 5
    assert all(later["start"] - sooner["start"] > 3 for sooner, later in itertools.pairwise(told))
    assert told[-1]["start"] > 55
    assert len({segment["speaker"] for segment in told}) == len(told)


@pytest.mark.parametrize("model", ["gpt-transcribe", "whisper-1"])
def test_a_long_text_of_another_script_is_not_taken_for_one_that_was_cut_off(aws, model):
    text = "и снова " * 525  # five minutes of Russian
    segment = {"id": 0, "start": 0, "end": 1, "text": text}
    upstream = FalseUpstream(heard(text, segments=[segment]))
    place = Place(aws, upstream)
    place.upload(long_recording("ogg", 30), model=model)
    place.work()
    assert len(upstream.calls) == 1


def test_a_halving_of_a_job_that_has_ended_or_is_deleted_changes_nothing(aws):
    place = Place(aws, FalseUpstream(cut_off, refused(400)))
    identity = place.upload(long_recording("ogg", 60))
    whole, other = place.cut(identity)
    assert place.handle(whole) == []
    (split,) = place.messages()
    assert place.handle(other) == []
    failed = place.job(identity)
    assert failed["status"] == "failed"
    assert place.handle(split) == []
    assert place.job(identity) == failed
    place.jobs.delete(identity)
    assert place.handle(split) == []
    assert (place.objects(), place.items(), place.part_messages()) == ([], [], [])


# Generations


def test_a_form_used_again_before_all_parts_are_cut_replaces_the_recording(aws):
    """The later recording arrives while the first is being cut, and is cut at once by another worker."""
    upstream = httpx2.MockTransport(by_size)
    place, other = Place(aws, upstream), Place(aws, upstream)
    asked = place.ask().json()
    place.post(asked["upload"], long_recording("ogg", 80))
    message = place.about(asked["id"])
    later = iter([recording("webm")])

    def replace_recording(_):
        for content in later:
            other.post(asked["upload"], content)
            other.handle(other.about(asked["id"]))

    with before(place, "s3.PutObject", replace_recording):
        assert place.work(message) == []
    job = place.job(asked["id"])
    assert (job["status"], job["progress"]) == ("completed", {"done": 1, "total": 1})
    assert job["duration"] == pytest.approx(3, abs=0.1)
    assert place.objects() == [f"transcripts/{asked['id']}.json"]


def test_a_form_used_again_after_all_parts_are_cut_is_ignored(aws):
    place = Place(aws, httpx2.MockTransport(by_size))
    asked = place.ask().json()
    place.post(asked["upload"], recording("webm"))
    (part,) = place.cut(asked["id"])
    place.post(asked["upload"], long_recording("ogg", 80))
    assert place.cut(asked["id"]) == []
    assert place.handle(part) == []
    assert place.job(asked["id"])["duration"] == pytest.approx(3, abs=0.1)
    assert place.objects() == [f"transcripts/{asked['id']}.json"]


def test_saved_parts_of_one_recording_are_not_used_for_another_of_the_same_length(aws):
    """The worker dies after it has sent the first recording's only part; then the form is used again."""
    place = Place(aws, FalseUpstream(heard("The first."), heard("The second.")))
    asked = place.ask().json()
    place.post(asked["upload"], wav(SPOKEN[: 32_000 * 5]))
    message = place.about(asked["id"])
    with failing(place, "dynamodb.UpdateItem", ConnectionResetError(), ":total"):
        assert place.handle(message) == [message["messageId"]]
    assert place.work_on_parts()
    place.post(asked["upload"], wav(SPOKEN[32_000 * 5 : 32_000 * 10]))
    assert place.work(place.about(asked["id"])) == []
    assert place.job(asked["id"])["transcript"] == "The second."


def test_a_worker_that_dies_between_two_parts_is_followed_by_one_that_pays_for_none_again(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    identity = place.upload(long_recording("ogg", 80))
    message = place.about(identity)
    with failing(place, "sqs.SendMessage", ConnectionResetError(), '"number": 1'):
        assert place.handle(message) == [message["messageId"]]
    assert place.job(identity)["progress"]["total"] == 3
    assert place.work_on_parts()
    assert place.job(identity)["progress"]["done"] == 1
    assert place.work(message) == []
    assert place.job(identity)["status"] == "completed"
    assert len(upstream.calls) == 3


def test_a_retry_sends_only_the_parts_that_were_not_transcribed(aws):
    upstream = FalseUpstream(heard("One."), refused(400), words="Two.")
    place = Place(aws, upstream)
    identity = place.upload(long_recording("ogg", 40))
    for part in place.cut(identity):
        assert place.handle(part) == []
    failed = place.job(identity)
    assert (failed["status"], failed["progress"]["done"], failed["seconds_paid"]) == (
        "failed",
        1,
        3,
    )
    assert place.http.post(f"/api/transcriptions/{identity}/retry").status_code == 202
    (part,) = place.cut(identity)
    assert part_of(part)["number"] == 1
    assert place.job(identity)["progress"] == {"done": 1, "total": 2}
    assert place.handle(part) == []
    job = place.job(identity)
    assert (job["transcript"], job["seconds_paid"]) == ("One. Two.", 6)
    assert len(upstream.calls) == 3
