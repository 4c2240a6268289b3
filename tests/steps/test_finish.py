"""finish.py: the parts become one transcript, once; what is left then; and the budget from its reservation on."""

import threading

import httpx2
import pysubs2
import pytest

from tests.false_upstream import FalseUpstream, heard, refused
from tests.place import Place, at_once, before, failing
from tests.samples import asset, long_recording, recording, wav


@pytest.fixture
def place(aws):
    return Place(aws)


def items(place, prefix):
    """What the table has under keys that begin like this."""
    return [item for item in place.items() if item["pk"].startswith(prefix)]


def spent(place):
    """The seconds that are spent today, and whether some are reserved."""
    (item,) = items(place, "spent#")
    return float(item["seconds"]), "unsettled" in item


def diarized(*speakers):
    """An answer in which each of the speakers says a word."""
    segments = [
        {
            "type": "transcript.text.segment",
            "id": "s",
            "text": "Ever",
            "speaker": name,
            "start": at,
            "end": at + 0.5,
        }
        for at, name in enumerate(speakers)
    ]
    usage = {"type": "tokens", "input_tokens": 1, "output_tokens": 10, "total_tokens": 11}
    return httpx2.Response(
        200, json={"text": " ".join(["Ever"] * len(speakers)), "usage": usage, "segments": segments}
    )


def speakers(place, identity):
    segments = place.transcript(identity, response_format="verbose_json").json()["segments"]
    return [segment["speaker"] for segment in segments]


# Joining


def test_the_parts_are_joined_in_the_order_of_the_recording_whichever_ends_first(aws):
    place = Place(aws, FalseUpstream(heard("three."), heard("One"), heard("two")))
    identity = place.upload(long_recording("ogg", 80))
    first, second, third = place.cut(identity)
    for part in (third, first, second):
        assert place.handle(part) == []
    job = place.job(identity)
    assert (job["status"], job["transcript"]) == ("completed", "One two three.")
    assert (job["progress"], job["seconds_paid"]) == ({"done": 3, "total": 3}, 9)
    assert job["duration"] == pytest.approx(80, abs=0.1)


def test_times_are_those_of_the_whole_recording_in_every_format(aws):
    segment = {"id": 0, "start": 1.0, "end": 2.5, "text": "Ever tried."}
    place = Place(
        aws, httpx2.MockTransport(lambda _: heard("Ever tried.", segments=[segment], duration=20.0))
    )
    identity = place.upload(long_recording("ogg", 80), model="whisper-1")
    place.work()
    whole = place.transcript(identity, response_format="verbose_json").json()
    starts = [segment["start"] for segment in whole["segments"]]
    assert starts[0] == pytest.approx(1.0, abs=0.01)
    assert starts[1] == pytest.approx(27.7, abs=12.1)
    assert starts[2] == pytest.approx(54.3, abs=12.1)
    for name in ("srt", "vtt"):
        text = place.transcript(identity, response_format=name).text
        assert [
            cue.start / 1000 for cue in pysubs2.SSAFile.from_string(text, name)
        ] == pytest.approx(starts, abs=0.001)
    assert (
        place.transcript(identity, response_format="text").text
        == "Ever tried. Ever tried. Ever tried.\n"
    )


def test_speakers_of_different_parts_have_different_names(aws):
    place = Place(aws, FalseUpstream(diarized("A", "B"), diarized("A")))
    identity = place.upload(long_recording("ogg", 40), model="gpt-4o-transcribe-diarize")
    place.work()
    assert speakers(place, identity) == ["1-A", "1-B", "2-A"]


def test_speakers_of_the_only_part_keep_their_names(aws):
    place = Place(aws, FalseUpstream(diarized("A", "B")))
    identity = place.upload(recording("webm"), model="gpt-4o-transcribe-diarize")
    place.work()
    assert speakers(place, identity) == ["A", "B"]


def test_speakers_keep_their_names_if_nobody_speaks_in_the_other_parts(aws):
    upstream = FalseUpstream(diarized("A", "B"))
    place = Place(aws, upstream)
    spoken = asset("two_cities.wav")[44 : 44 + 32_000 * 10]
    identity = place.upload(wav(bytes(32_000 * 40) + spoken), model="gpt-4o-transcribe-diarize")
    place.work()
    assert place.job(identity)["progress"]["total"] > len(upstream.calls) == 1
    assert speakers(place, identity) == ["A", "B"]


def test_a_recording_in_whose_parts_nobody_was_heard_has_an_empty_transcript(aws):
    place = Place(aws, FalseUpstream(words=""))
    identity = place.upload(long_recording("ogg", 40))
    place.work()
    job = place.job(identity)
    assert (job["status"], job["transcript"], job["no_speech"], job["seconds_paid"]) == (
        "completed",
        "",
        True,
        6,
    )


# Once


def test_two_deliveries_that_both_see_the_job_whole_complete_it_once(aws, caplog):
    """The worker that saved the last part died; its message and that of the other part come at the same moment."""
    caplog.set_level("INFO", "steno")
    upstream, both = FalseUpstream(), threading.Barrier(2)
    place = Place(aws, upstream, daily_seconds=1000)
    identity = place.upload(long_recording("ogg", 40))
    first, second = place.cut(identity)
    assert place.handle(first) == []
    with failing(place, "s3.PutObject", ConnectionResetError()):
        assert place.handle(second) == [second["messageId"]]
    with before(place, "s3.PutObject", lambda _: both.wait(60)):
        assert at_once(lambda: place.handle(first), lambda: place.handle(second)) == [[], []]
    job = place.job(identity)
    assert (job["status"], job["transcript"]) == ("completed", "Ever tried. Ever tried.")
    assert caplog.text.count("is completed") == 1
    assert spent(place) == (6, False)
    assert len(upstream.calls) == 2


@pytest.mark.parametrize(
    ("call", "write"),
    [
        ("s3.PutObject", "transcripts/"),
        ("dynamodb.UpdateItem", "'completed'"),
        ("dynamodb.UpdateItem", "DELETE unsettled"),
        ("s3.DeleteObject", "uploads/"),
        ("s3.DeleteObject", "parts/"),
        ("dynamodb.DeleteItem", "parts#"),
    ],
)
def test_a_worker_that_dies_at_the_end_of_a_job_is_followed_by_one_that_ends_it(aws, call, write):
    upstream = FalseUpstream()
    place = Place(aws, upstream, daily_seconds=1000)
    identity = place.upload(recording("webm"))
    (part,) = place.cut(identity)
    with failing(place, call, ConnectionResetError(), write):
        assert place.handle(part) == [part["messageId"]]
    assert place.handle(part) == []
    assert (place.job(identity)["status"], place.transcript(identity).json()["transcript"]) == (
        "completed",
        "Ever tried.",
    )
    assert place.objects() == [f"transcripts/{identity}.json"]
    assert [item["sk"] for item in items(place, "job#")] == ["job"]
    assert spent(place) == (3, False)
    assert len(upstream.calls) == 1


# What is left


def test_only_the_transcript_and_the_job_are_left_of_a_completed_job(place):
    identity = place.upload(long_recording("ogg", 40))
    parts = place.cut(identity)
    assert len(place.objects()) == 3  # the recording and two parts
    for part in parts:
        assert place.handle(part) == []
    assert place.objects() == [f"transcripts/{identity}.json"]
    assert [item["sk"] for item in items(place, "job#")] == ["job"]


def test_a_failed_job_keeps_its_recording_and_its_saved_parts_but_no_sound_of_parts(aws):
    place = Place(aws, FalseUpstream(heard("One."), refused(400)), daily_seconds=1000)
    identity = place.upload(long_recording("ogg", 40))
    for part in place.cut(identity):
        assert place.handle(part) == []
    job = place.job(identity)
    assert (job["status"], job["transcript"], job["progress"]["done"]) == ("failed", "One.", 1)
    assert place.objects() == [f"uploads/{identity}.webm"]
    assert spent(place) == (3, False)


def test_a_job_that_failed_keeps_the_first_reason(aws):
    """Two parts are refused at the same moment."""
    both = threading.Barrier(2)

    def refuse(status):
        def reply(_):
            both.wait(60)
            return refused(status)

        return reply

    place = Place(aws, FalseUpstream(refuse(400), refuse(401)))
    identity = place.upload(long_recording("ogg", 40))
    first, second = place.cut(identity)
    assert at_once(lambda: place.handle(first), lambda: place.handle(second)) == [[], []]
    failed = place.job(identity)
    assert failed["error"]["code"] in ("unreadable_recording", "upstream_credentials")
    assert place.handle(first) == place.handle(second) == []
    assert place.job(identity) == failed


def test_the_whole_transcript_serves_the_same_recording_in_another_job(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    content = long_recording("ogg", 40)
    for _ in range(2):
        identity = place.upload(content)
        place.work(place.about(identity))
        job = place.job(identity)
        assert (job["status"], job["transcript"]) == ("completed", "Ever tried. Ever tried.")
    assert (job["seconds_paid"], len(upstream.calls)) == (0, 2)


def test_answers_about_a_recording_that_was_replaced_are_not_kept(aws):
    """The form is used again after a part of the first recording was transcribed."""
    place = Place(aws, FalseUpstream(heard("A secret."), words="Ever tried."))
    asked = place.ask().json()
    place.post(asked["upload"], long_recording("ogg", 40))
    message = place.about(asked["id"])
    with failing(place, "dynamodb.UpdateItem", ConnectionResetError(), ":total"):
        assert place.handle(message) == [message["messageId"]]
    first, _second = place.part_messages()
    assert place.handle(first) == []
    place.post(asked["upload"], recording("webm"))
    assert place.work(place.about(asked["id"])) == []
    assert place.job(asked["id"])["transcript"] == "Ever tried."
    assert place.http.delete(f"/api/transcriptions/{asked['id']}").status_code == 204
    assert place.items() == []


# The budget


def test_the_budget_is_reserved_once_for_all_parts_however_often_the_recording_is_delivered(aws):
    place = Place(aws, daily_seconds=1000)
    identity = place.upload(long_recording("ogg", 80))
    message = place.about(identity)
    with failing(place, "dynamodb.UpdateItem", ConnectionResetError(), ":total"):
        for _ in range(2):
            assert place.handle(message) == [message["messageId"]]
            assert spent(place) == (pytest.approx(80, abs=0.1), True)
    assert place.handle(message) == []
    assert spent(place) == (pytest.approx(80, abs=0.1), True)
    assert len(place.part_messages()) == 9


def test_a_recording_longer_than_the_daily_budget_is_refused_before_anything_is_paid(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream, daily_seconds=60)
    identity = place.upload(long_recording("ogg", 80))
    assert place.work() == []
    job = place.job(identity)
    assert (job["status"], job["error"]["code"], job["seconds_paid"]) == (
        "failed",
        "budget_exhausted",
        0,
    )
    assert upstream.calls == []
    assert [item["sk"] for item in place.items() if float(item.get("seconds", 0))] == []


def test_the_budget_is_settled_once_however_often_the_end_is_repeated(aws):
    place = Place(aws, daily_seconds=1000)
    identities = [place.upload(recording("webm"), prompt=str(number)) for number in range(2)]
    messages = place.messages()
    assert place.handle(*messages) == []
    assert spent(place) == (pytest.approx(6, abs=0.1), True)
    first, second = parts = place.part_messages()
    assert place.handle(first) == []
    for _ in range(2):
        assert place.handle(first, *messages) == []
    assert spent(place) == (
        pytest.approx(6, abs=0.1),
        True,
    )  # of which the other job has reserved one half
    assert place.handle(second) == []
    for _ in range(2):
        assert place.handle(*parts, *messages) == []
    assert spent(place) == (6, False)
    assert [place.job(identity)["status"] for identity in identities] == ["completed"] * 2


def test_a_retry_pays_of_the_budget_only_for_what_it_sends(aws):
    place = Place(aws, FalseUpstream(heard("One."), refused(400)), daily_seconds=1000)
    identity = place.upload(long_recording("ogg", 40))
    for part in place.cut(identity):
        assert place.handle(part) == []
    assert place.http.post(f"/api/transcriptions/{identity}/retry").status_code == 202
    (part,) = place.cut(identity)
    seconds, is_reserved = spent(place)
    assert is_reserved
    assert 3 + 8 < seconds < 3 + 32
    assert place.handle(part) == []
    assert spent(place) == (6, False)


def test_a_request_that_may_have_been_billed_is_spent_when_its_job_fails(aws):
    place = Place(aws, FalseUpstream(*[httpx2.ReadError("unplugged")] * 3), daily_seconds=1000)
    identity = place.upload(recording("ogg"))
    place.work()
    assert place.job(identity)["status"] == "failed"
    assert spent(place) == (pytest.approx(9, abs=0.1), False)


# Deleted


def assert_nothing_is_left(place):
    """All messages are delivered; then the table has what is no job's: seconds that were spent, a busy upstream."""
    while records := place.messages(wait=0) + place.part_messages():
        assert place.handle(*records) == []
    assert place.objects() == []
    assert {item["pk"].partition("#")[0] for item in place.items()} <= {"spent", "upstream"}
    assert not any("unsettled" in item for item in place.items())


@pytest.mark.parametrize(
    ("reply", "status"),
    [(refused(400), "failed"), (refused(429, retry_after="0"), "processing"), (None, "completed")],
)
def test_delete_leaves_nothing_whatever_the_job_came_to(aws, reply, status):
    place = Place(aws, FalseUpstream(*([reply] if reply else [])), daily_seconds=1000)
    identity = place.upload(recording("webm"))
    records = [place.about(identity)]
    assert place.handle(*records) == []
    records += place.part_messages()
    place.handle(records[1])
    assert place.job(identity)["status"] == status
    assert place.http.delete(f"/api/transcriptions/{identity}").status_code == 204
    assert_nothing_is_left(place)
    assert place.handle(*records) == []  # which may come once more
    assert_nothing_is_left(place)


def test_delete_leaves_nothing_of_a_job_that_waits_for_its_retry(aws):
    place = Place(aws, FalseUpstream(heard("One."), refused(400)), daily_seconds=1000)
    identity = place.upload(long_recording("ogg", 40))
    place.work()
    assert place.http.post(f"/api/transcriptions/{identity}/retry").status_code == 202
    assert place.http.delete(f"/api/transcriptions/{identity}").status_code == 204
    assert_nothing_is_left(place)


# The calls of a job whose only part is cut in halves, in their order, and whether each is tested often.
CALLS = [
    ("s3.HeadObject", "uploads/", False),
    ("dynamodb.UpdateItem", ":new", False),
    ("dynamodb.UpdateItem", ":parts", False),
    ("dynamodb.UpdateItem", "reserved_on =", False),
    ("dynamodb.UpdateItem", "ADD seconds", False),
    ("s3.PutObject", "parts/", True),
    ("sqs.SendMessage", '"part"', False),
    ("dynamodb.UpdateItem", ":total", False),
    ("dynamodb.UpdateItem", "paid#", False),
    ("s3.HeadObject", "parts/", False),
    ("dynamodb.PutItem", "'crashes'", True),
    ("dynamodb.PutItem", "'paid'", False),
    ("sqs.SendMessage", '"halve"', False),
    ("dynamodb.PutItem", "'heard'", True),
    ("dynamodb.UpdateItem", ":pieces", True),
    ("s3.PutObject", "/10000.flac", False),
    ("sqs.SendMessage", '"number": 10001', True),
    ("dynamodb.PutItem", "#10001", False),
    ("dynamodb.UpdateItem", "{10001}", False),
    ("s3.PutObject", "transcripts/", False),
    ("dynamodb.UpdateItem", "'completed'", True),
    ("dynamodb.UpdateItem", "DELETE unsettled", False),
    ("s3.DeleteObject", "uploads/", True),
    ("dynamodb.DeleteItem", "parts#", False),
]


@pytest.mark.parametrize(
    ("call", "text"),
    [pytest.param(*call, marks=[] if often else pytest.mark.exhaustive) for *call, often in CALLS],
)
def test_delete_at_any_moment_leaves_nothing(aws, call, text):
    usage = {"type": "tokens", "input_tokens": 1, "output_tokens": 1990, "total_tokens": 1991}
    cut_off = {"text": "Ever", "usage": usage}
    place = Place(aws, FalseUpstream(httpx2.Response(200, json=cut_off)), daily_seconds=1000)
    other = Place(aws, daily_seconds=1000)
    identity = place.upload(wav(asset("two_cities.wav")[44:][: 32_000 * 22]))
    deleted = []

    def delete_once(params):
        if text in str(params) and not deleted:
            deleted.append(other.http.delete(f"/api/transcriptions/{identity}").status_code)

    with before(place, call, delete_once):
        assert place.work() == []
    assert deleted == [204]
    assert_nothing_is_left(place)


@pytest.mark.parametrize(
    "reply", [heard("Ever tried."), refused(400), refused(429, retry_after="0")]
)
def test_delete_while_a_part_is_transcribed_leaves_nothing(aws, reply):
    def delete_then_answer(_):
        place.jobs.delete(identity)
        return reply

    place = Place(aws, FalseUpstream(delete_then_answer), daily_seconds=1000)
    identity = place.upload(recording("webm"))
    assert place.work() == []
    assert_nothing_is_left(place)
