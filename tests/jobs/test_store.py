"""Jobs as callers use them: uploads, reading, retry, delete, whose they are, and how long they are kept."""

import json
import threading
import time

import httpx2
import pytest
from starlette.testclient import TestClient

from handler.jobs.job import Caller
from handler.jobs.store import Jobs
from tests.conftest import settings
from tests.false_upstream import FalseUpstream, heard, refused
from tests.place import Clock, Gateway, Place, at_once, before, failing
from tests.samples import long_recording, recording


@pytest.fixture
def place(aws):
    return Place(aws)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def timed(aws, clock):
    """A place whose time only the test moves."""
    return Place(aws, jobs=Jobs(settings(**aws), clock))


def retry(place, identity):
    return place.http.post(f"/api/transcriptions/{identity}/retry")


def delete(place, identity):
    return place.http.delete(f"/api/transcriptions/{identity}")


# Uploads


def test_an_upload_is_transcribed_without_another_request(place):
    asked = place.ask(30_000)
    assert asked.status_code == 201
    identity = asked.json()["id"]
    assert asked.headers["Location"] == f"/api/transcriptions/{identity}"
    assert asked.json()["status"] == place.job(identity)["status"] == "awaiting_upload"
    place.post(asked.json()["upload"], recording("webm"))
    assert place.job(identity)["status"] == "queued"
    assert place.transcript(identity).json()["code"] == "not_ready"
    assert place.work() == []
    job = place.job(identity)
    assert (job["status"], job["transcript"], job["error"]) == ("completed", "Ever tried.", None)
    assert (job["progress"], job["seconds_paid"], job["model"]) == (
        {"done": 1, "total": 1},
        3.0,
        "gpt-transcribe",
    )
    assert job["duration"] == pytest.approx(3, abs=0.1)
    assert job["no_speech"] is False
    assert place.transcript(identity).json() == {"transcript": "Ever tried."}


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"size": 0}, 422, "empty_recording"),
        ({"size": 2_000_000_001}, 413, "recording_too_large"),
        ({"content_type": "text/html"}, 415, "unsupported_media"),
        ({"content_type": "image/png"}, 415, "unsupported_media"),
        ({"size": "many"}, 422, "invalid_request"),
        ({"model": "whisper-9"}, 422, "invalid_option"),
        ({"model": "whisper-1", "keywords": ["Steno"]}, 422, "invalid_option"),
        ({"response_format": "docx"}, 422, "invalid_option"),
        ({"include": ["logprobs"]}, 422, "invalid_option"),
        ({"language": "english please"}, 422, "invalid_option"),
        ({"unheard_of": 1}, 422, "invalid_request"),
    ],
)
def test_an_upload_that_cannot_be_transcribed_is_refused_before_there_is_a_form(
    place, more, status, code
):
    answer = place.ask(**more)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "upload" not in answer.json()


@pytest.mark.parametrize(
    "content_type", ["audio/webm;codecs=opus", "video/mp4", "application/octet-stream", ""]
)
def test_every_type_that_a_browser_gives_a_recording_is_taken_and_pinned(place, content_type):
    form = place.ask(content_type=content_type).json()["upload"]
    assert form["fields"]["Content-Type"] == (content_type or "application/octet-stream")


def test_the_bucket_itself_refuses_another_key_type_or_size(aws):
    form = Place(aws).ask(size=1000).json()["upload"]

    def post(content=b"x" * 1000, **fields):
        return httpx2.post(
            form["url"], data={**form["fields"], **fields}, files={"file": content}
        ).status_code

    assert post(content=b"x" * 1001) in (400, 403)
    assert post(key="uploads/another.webm") == 403
    assert post(**{"Content-Type": "text/html"}) == 403
    assert post(policy="e30=") in (400, 403)
    assert post() == 204


def test_after_its_time_the_bucket_refuses_the_form(aws):
    """Takes a second: the bucket has a clock of its own."""
    _, form = Jobs(settings(**aws), upload_seconds=1).create("a.webm", "audio/webm", 1000, {})
    until = time.monotonic() + 20
    while httpx2.post(form["url"], data=form["fields"], files={"file": b"x"}).status_code == 204:
        assert time.monotonic() < until


def test_a_form_goes_to_the_buckets_own_region(aws, monkeypatch):
    """The global address redirects, and no browser follows that with a form."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    jobs = Jobs(settings(**aws))
    jobs.client.meta.events.register("before-call.dynamodb", lambda **_: (httpx2.Response(200), {}))
    _, form = jobs.create("a.webm", "audio/webm", 1000, {})
    assert form["url"] == "https://steno.s3.eu-central-1.amazonaws.com/"


def test_a_form_from_an_allowed_page_may_be_read_by_it(place):
    form = place.ask().json()["upload"]
    preflight = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    allowed = httpx2.options(form["url"], headers=preflight)
    assert allowed.headers["access-control-allow-origin"] in ("http://localhost:3000", "*")


def test_a_job_whose_recording_never_came_fails(timed, clock):
    identity = timed.ask().json()["id"]
    clock.now += 901
    assert (
        timed.job(identity)["status"] == "awaiting_upload"
    )  # a slow upload may have begun in time
    clock.now += 7200
    job = timed.job(identity)
    assert (job["status"], job["error"]["code"]) == ("failed", "invalid_request")
    assert retry(timed, identity).status_code == 404


def test_without_a_bucket_there_are_no_uploads(client):
    answer = client().post("/api/uploads", json={"size": 1})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


# Reading


def test_the_progress_and_the_text_so_far_are_told_while_the_job_goes_on(aws):
    place = Place(aws, FalseUpstream(heard("Two"), heard("One"), heard("three.")))
    asked = place.ask().json()
    identity = asked["id"]
    assert place.job(identity)["progress"] == {"done": 0, "total": None}
    place.post(asked["upload"], long_recording("ogg", 80))
    assert place.job(identity)["progress"] == {"done": 0, "total": None}
    first, second, third = place.cut(identity)
    steps = []
    for part in (second, first, third):
        job = place.job(identity)
        steps.append((job["status"], job["progress"], job["transcript"], job["seconds_paid"]))
        assert place.handle(part) == []
    assert steps == [
        ("processing", {"done": 0, "total": 3}, "", 0),
        ("processing", {"done": 1, "total": 3}, "Two", 3),
        ("processing", {"done": 2, "total": 3}, "One Two", 6),
    ]
    job = place.job(identity)
    assert (job["status"], job["progress"], job["seconds_paid"]) == (
        "completed",
        {"done": 3, "total": 3},
        9,
    )


def test_a_job_is_to_be_read_again_until_it_ends(place):
    identity = place.upload(recording("webm"))
    address = f"/api/transcriptions/{identity}"
    assert place.http.get(address).headers["Retry-After"]
    place.work()
    assert "Retry-After" not in place.http.get(address).headers


def test_an_unknown_format_is_refused(place):
    identity = place.upload(recording("webm"))
    place.work()
    assert place.transcript(identity, response_format="docx").status_code == 422


# Retry


def test_only_a_failed_job_can_be_retried(place):
    asked = place.ask().json()
    identity = asked["id"]
    for step in (
        lambda: place.post(asked["upload"], recording("webm")),
        lambda: place.cut(identity),
    ):
        answer = retry(place, identity)
        assert (answer.status_code, answer.json()["code"]) == (409, "not_failed")
        step()
    assert retry(place, identity).status_code == 409


def test_a_failed_job_is_retried_without_an_upload(aws):
    place = Place(aws, FalseUpstream(refused(401)))
    identity = place.upload(recording("webm"))
    place.work()
    assert place.job(identity)["status"] == "failed"
    answer = retry(place, identity)
    assert (answer.status_code, answer.json()["status"], answer.json()["error"]) == (
        202,
        "queued",
        None,
    )
    assert answer.headers["Location"] == f"/api/transcriptions/{identity}"
    assert place.work(place.about(identity)) == []
    assert place.job(identity)["status"] == "completed"
    assert retry(place, identity).json()["code"] == "not_failed"


def test_a_retry_whose_message_was_not_sent_can_be_asked_for_again(place):
    identity = place.upload(b"<html>" * 100)
    place.work()
    with failing(place, "sqs.SendMessage", ConnectionResetError()):
        assert retry(place, identity).status_code == 500
    assert place.job(identity)["status"] == "queued"
    assert retry(place, identity).status_code == 202
    assert place.work(place.about(identity)) == []
    assert place.job(identity)["status"] == "failed"


def test_two_retries_at_the_same_moment_are_one(aws):
    both, upstream = threading.Barrier(2), FalseUpstream(refused(401))
    place, other = Place(aws, upstream), Place(aws, upstream)
    identity = place.upload(recording("webm"))
    place.work()

    def retried_by(who):
        with before(who, "s3.HeadObject", lambda _: both.wait(60)):
            return retry(who, identity).status_code

    assert at_once(lambda: retried_by(place), lambda: retried_by(other)) == [202, 202]
    assert place.work() == []
    assert place.job(identity)["status"] == "completed"
    assert len(upstream.calls) == 2


@pytest.mark.parametrize("status", ["processing", "completed"])
def test_a_retry_that_comes_late_takes_nothing_from_the_job(aws, status):
    """The job is retried by another request, and goes on, after it was read as failed."""
    upstream = FalseUpstream(refused(401))
    place, other = Place(aws, upstream), Place(aws, upstream)
    identity = place.upload(recording("webm"))
    place.work()
    parts = []

    def overtake(_):
        assert retry(other, identity).status_code == 202
        parts.extend(other.cut(identity))
        if status == "completed":
            assert other.handle(*parts) == []

    with before(place, "dynamodb.UpdateItem", overtake):
        assert retry(place, identity).json()["status"] == status
    assert place.work(place.about(identity)) == []
    assert place.handle(*parts) == []
    assert place.job(identity)["status"] == "completed"
    assert len(upstream.calls) == 2


def test_a_retry_that_comes_after_another_has_failed_pays_nothing(aws):
    upstream = FalseUpstream(refused(401), refused(401))
    place, other = Place(aws, upstream), Place(aws, upstream)
    identity = place.upload(recording("webm"))
    place.work()

    def overtake(_):
        assert retry(other, identity).status_code == 202
        other.work()

    with before(place, "dynamodb.UpdateItem", overtake):
        assert retry(place, identity).json()["status"] == "failed"
    place.work()
    assert place.job(identity)["status"] == "failed"
    assert len(upstream.calls) == 2


def test_a_failed_job_that_release_0_1_has_begun_again_is_transcribed(place):
    """It marks the job and leaves its status to the worker, which may be a newer one by then."""
    identity = place.upload(recording("webm"))
    key = {"pk": f"job#{identity}", "sk": "job"}
    place.jobs.client.update_item(
        TableName=place.jobs.table,
        Key=key,
        UpdateExpression="SET #status = :failed, retry = :yes REMOVE progressed_at, retries, generation",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":failed": "failed", ":yes": True},
    )
    assert place.job(identity)["status"] == "queued"
    place.work()
    assert place.job(identity)["status"] == "completed"


def test_a_job_of_release_0_1_that_fails_again_reads_as_failed(aws):
    place = Place(aws, FalseUpstream(refused(401)))
    identity = place.upload(recording("webm"))
    place.jobs.client.update_item(
        TableName=place.jobs.table,
        Key={"pk": f"job#{identity}", "sk": "job"},
        UpdateExpression="SET retry = :yes",
        ExpressionAttributeValues={":yes": True},
    )
    place.work()
    assert place.job(identity)["status"] == "failed"


def test_a_message_that_release_0_1_would_delete_is_a_list_which_it_gives_back(place):
    """Its worker takes messages from the same queue while a stack is updated."""
    place.jobs.queues.send_recording(f"requests/{'0' * 32}.webm", "")
    place.jobs.queues.send_recording(f"uploads/{'0' * 32}.webm", "")
    bodies = [json.loads(record["body"]) for record in place.messages()]
    assert sorted(bodies, key=str) == [
        [{"key": f"requests/{'0' * 32}.webm"}],
        {"key": f"uploads/{'0' * 32}.webm"},
    ]


def test_a_job_whose_recording_is_gone_cannot_be_retried(place):
    identity = place.upload(b"<html>" * 100)
    place.work()
    place.s3.delete_object(Bucket="steno", Key=f"uploads/{identity}.webm")
    answer = retry(place, identity)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert place.job(identity)["status"] == "failed"


# Jobs that no message brings to an end


def test_a_job_without_progress_for_six_hours_fails_and_can_be_retried(timed, clock):
    identity = timed.upload(recording("webm"))
    timed.cut(identity)  # and the message about its part is lost
    clock.now += 6 * 3600 - 10
    assert timed.job(identity)["status"] == "processing"
    clock.now += 20
    job = timed.job(identity)
    assert (job["status"], job["error"]["code"]) == ("failed", "internal_error")
    assert "retry" in job["error"]["detail"].lower()
    answer = retry(timed, identity)
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert timed.work(timed.about(identity)) == []
    assert timed.job(identity)["status"] == "completed"


def test_a_job_that_makes_progress_goes_on_however_old_it_is(timed, clock):
    identity = timed.upload(long_recording("ogg", 80))
    first, second, third = timed.cut(identity)
    for part in (first, second):
        clock.now += 5 * 3600
        assert timed.handle(part) == []
    clock.now += 5 * 3600
    assert timed.job(identity)["status"] == "processing"
    assert retry(timed, identity).json()["code"] == "not_failed"
    clock.now += 2 * 3600
    assert timed.job(identity)["status"] == "failed"
    assert timed.handle(third) == []  # a message that had waited in a long queue
    assert timed.job(identity)["status"] == "completed"


def test_a_retry_leaves_a_stalled_job_to_the_message_that_comes_at_last(aws, timed, clock):
    other = Place(aws, jobs=Jobs(settings(**aws), clock))
    identity = timed.upload(long_recording("ogg", 40))
    first, second = timed.cut(identity)
    clock.now += 6 * 3600 + 10
    assert timed.job(identity)["status"] == "failed"
    with before(timed, "s3.HeadObject", lambda _: other.handle(first)):
        assert retry(timed, identity).json()["status"] == "processing"
    assert timed.handle(second) == []
    assert timed.job(identity)["status"] == "completed"


def test_a_queued_job_waits_for_a_day_before_it_fails(timed, clock):
    identity = timed.upload(recording("webm"))
    for _ in range(2):
        timed.messages()  # and its message is lost
        clock.now += 86_390
        assert timed.job(identity)["status"] == "queued"
        clock.now += 20
        assert timed.job(identity)["error"]["code"] == "internal_error"
        assert retry(timed, identity).status_code == 202
        assert timed.job(identity)["status"] == "queued"
    assert timed.work(timed.about(identity)) == []
    assert timed.job(identity)["status"] == "completed"


# Whose, and for how long


def test_a_job_of_somebody_else_is_not_found(aws):
    jobs = Jobs(settings(**aws))
    job, _ = jobs.create("a.webm", "audio/webm", 1000, {}, Caller("ada", "ada"))
    assert jobs.get(job.id, "ada").id == job.id
    place = Place(aws)  # where callers are not told apart
    assert place.job(job.id)["code"] == "not_found"
    assert delete(place, job.id).status_code == 404
    assert place.job("0" * 32)["code"] == place.job("../../etc")["code"] == "not_found"


def test_jobs_of_one_subject_are_no_others(aws):
    place = Place(aws, auth="jwt", aws_lambda_function_name="api")
    ada, bob = (TestClient(Gateway(place.app, name)) for name in ("ada", "bob"))
    place.http = ada
    identity = place.upload(recording("webm"))
    place.work(place.about(identity))
    assert bob.post(f"/api/transcriptions/{identity}/retry").status_code == 404
    for address in (
        f"/api/transcriptions/{identity}",
        f"/api/transcriptions/{identity}/transcript",
    ):
        assert ada.get(address).status_code == 200
        assert bob.get(address).status_code == 404
    assert bob.delete(f"/api/transcriptions/{identity}").status_code == 404
    assert ada.delete(f"/api/transcriptions/{identity}").status_code == 204


def test_a_transcript_expires_after_its_days_and_not_before(timed, clock):
    identity = timed.upload(recording("webm"))
    timed.work(timed.about(identity))
    clock.now += 29 * 86_400
    assert timed.job(identity)["status"] == "completed"
    clock.now += 2 * 86_400
    assert timed.job(identity)["code"] == "not_found"


# Delete


def test_a_deleted_job_is_not_found_any_more(place):
    identity = place.upload(recording("webm"))
    place.work()
    assert delete(place, identity).status_code == 204
    assert place.job(identity)["code"] == "not_found"
    assert delete(place, identity).status_code == 404


def test_an_answer_about_a_deleted_job_is_not_used_again(aws):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    for _ in range(2):
        identity = place.upload(recording("webm"))
        place.work(place.about(identity))
        assert delete(place, identity).status_code == 204
    assert len(upstream.calls) == 2
