"""Tests of the job routes: upload, read, retry, delete, ownership and expiry."""

import json
import threading
import time

import httpx2
import pytest
from starlette.testclient import TestClient

from handler.jobs.job import Caller
from handler.jobs.store import Jobs
from tests.conftest import settings
from tests.fake_upstream import FakeUpstream, error_response, transcript_response
from tests.harness import Clock, Harness, JwtGateway, before_call, failing_calls, run_concurrently
from tests.samples import long_recording, recording


@pytest.fixture
def harness(aws):
    return Harness(aws)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def timed(aws, clock):
    """Return a harness whose clock changes only when the test sets it."""
    return Harness(aws, jobs=Jobs(settings(**aws), clock))


def retry(harness, job_id):
    return harness.http.post(f"/api/transcriptions/{job_id}/retry")


def delete(harness, job_id):
    return harness.http.delete(f"/api/transcriptions/{job_id}")


# Uploads


def test_an_upload_is_transcribed_without_another_request(harness):
    created = harness.request_upload(30_000)
    assert created.status_code == 201
    job_id = created.json()["id"]
    assert created.headers["Location"] == f"/api/transcriptions/{job_id}"
    assert created.json()["status"] == harness.job(job_id)["status"] == "awaiting_upload"
    harness.post(created.json()["upload"], recording("webm"))
    assert harness.job(job_id)["status"] == "queued"
    assert harness.transcript(job_id).json()["code"] == "not_ready"
    assert harness.run_worker() == []
    job = harness.job(job_id)
    assert (job["status"], job["transcript"], job["error"]) == ("completed", "Ever tried.", None)
    assert (job["progress"], job["seconds_paid"], job["model"]) == (
        {"done": 1, "total": 1},
        3.0,
        "gpt-transcribe",
    )
    assert job["duration"] == pytest.approx(3, abs=0.1)
    assert job["no_speech"] is False
    assert harness.transcript(job_id).json() == {"transcript": "Ever tried."}


@pytest.mark.parametrize(
    ("fields", "status", "code"),
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
def test_an_invalid_upload_is_rejected_without_a_form(harness, fields, status, code):
    response = harness.request_upload(**fields)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert "upload" not in response.json()


@pytest.mark.parametrize(
    "content_type", ["audio/webm;codecs=opus", "video/mp4", "application/octet-stream", ""]
)
def test_every_content_type_of_a_recording_is_accepted_and_fixed_in_the_form(harness, content_type):
    form = harness.request_upload(content_type=content_type).json()["upload"]
    assert form["fields"]["Content-Type"] == (content_type or "application/octet-stream")


def test_the_bucket_rejects_another_key_type_or_size(aws):
    form = Harness(aws).request_upload(size=1000).json()["upload"]

    def post(content=b"x" * 1000, **fields):
        return httpx2.post(
            form["url"], data={**form["fields"], **fields}, files={"file": content}
        ).status_code

    assert post(content=b"x" * 1001) in (400, 403)
    assert post(key="uploads/another.webm") == 403
    assert post(**{"Content-Type": "text/html"}) == 403
    assert post(policy="e30=") in (400, 403)
    assert post() == 204


def test_the_bucket_rejects_an_expired_form(aws):
    """This test takes a second, because it waits until the form has expired."""
    _, form = Jobs(settings(**aws), upload_seconds=1).create("a.webm", "audio/webm", 1000, {})
    until = time.monotonic() + 20
    while httpx2.post(form["url"], data=form["fields"], files={"file": b"x"}).status_code == 204:
        assert time.monotonic() < until


def test_a_form_is_sent_to_the_region_of_the_bucket(aws, monkeypatch):
    """S3's global endpoint would redirect the form, and browsers do not follow this redirect."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    jobs = Jobs(settings(**aws))
    jobs.client.meta.events.register("before-call.dynamodb", lambda **_: (httpx2.Response(200), {}))
    _, form = jobs.create("a.webm", "audio/webm", 1000, {})
    assert form["url"] == "https://steno.s3.eu-central-1.amazonaws.com/"


def test_an_allowed_origin_may_read_the_response_to_the_form(harness):
    form = harness.request_upload().json()["upload"]
    preflight = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    allowed = httpx2.options(form["url"], headers=preflight)
    assert allowed.headers["access-control-allow-origin"] in ("http://localhost:3000", "*")


def test_a_job_without_an_uploaded_recording_fails(timed, clock):
    job_id = timed.request_upload().json()["id"]
    clock.now += 901
    # An upload that began before the form expired may still be in progress.
    assert timed.job(job_id)["status"] == "awaiting_upload"
    clock.now += 7200
    job = timed.job(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "invalid_request")
    assert retry(timed, job_id).status_code == 404


def test_without_a_bucket_there_are_no_uploads(client):
    response = client().post("/api/uploads", json={"size": 1})
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


# Read


def test_a_job_in_progress_shows_its_progress_and_partial_text(aws):
    harness = Harness(
        aws,
        FakeUpstream(
            transcript_response("Two"), transcript_response("One"), transcript_response("three.")
        ),
    )
    created = harness.request_upload().json()
    job_id = created["id"]
    assert harness.job(job_id)["progress"] == {"done": 0, "total": None}
    harness.post(created["upload"], long_recording("ogg", 80))
    assert harness.job(job_id)["progress"] == {"done": 0, "total": None}
    first, second, third = harness.cut(job_id)
    steps = []
    for part in (second, first, third):
        job = harness.job(job_id)
        steps.append((job["status"], job["progress"], job["transcript"], job["seconds_paid"]))
        assert harness.handle(part) == []
    assert steps == [
        ("processing", {"done": 0, "total": 3}, "", 0),
        ("processing", {"done": 1, "total": 3}, "Two", 3),
        ("processing", {"done": 2, "total": 3}, "One Two", 6),
    ]
    job = harness.job(job_id)
    assert (job["status"], job["progress"], job["seconds_paid"]) == (
        "completed",
        {"done": 3, "total": 3},
        9,
    )


def test_a_job_has_a_retry_after_header_until_it_ends(harness):
    job_id = harness.upload(recording("webm"))
    address = f"/api/transcriptions/{job_id}"
    assert harness.http.get(address).headers["Retry-After"]
    harness.run_worker()
    assert "Retry-After" not in harness.http.get(address).headers


def test_an_unknown_format_is_rejected(harness):
    job_id = harness.upload(recording("webm"))
    harness.run_worker()
    assert harness.transcript(job_id, response_format="docx").status_code == 422


# Retry


def test_only_a_failed_job_can_be_retried(harness):
    created = harness.request_upload().json()
    job_id = created["id"]
    for step in (
        lambda: harness.post(created["upload"], recording("webm")),
        lambda: harness.cut(job_id),
    ):
        response = retry(harness, job_id)
        assert (response.status_code, response.json()["code"]) == (409, "not_failed")
        step()
    assert retry(harness, job_id).status_code == 409


def test_a_failed_job_is_retried_without_an_upload(aws):
    harness = Harness(aws, FakeUpstream(error_response(401)))
    job_id = harness.upload(recording("webm"))
    harness.run_worker()
    assert harness.job(job_id)["status"] == "failed"
    response = retry(harness, job_id)
    assert (response.status_code, response.json()["status"], response.json()["error"]) == (
        202,
        "queued",
        None,
    )
    assert response.headers["Location"] == f"/api/transcriptions/{job_id}"
    assert harness.run_worker(harness.upload_record(job_id)) == []
    assert harness.job(job_id)["status"] == "completed"
    assert retry(harness, job_id).json()["code"] == "not_failed"


def test_a_retry_whose_message_was_not_sent_can_be_repeated(harness):
    job_id = harness.upload(b"<html>" * 100)
    harness.run_worker()
    with failing_calls(harness, "sqs.SendMessage", ConnectionResetError()):
        assert retry(harness, job_id).status_code == 500
    assert harness.job(job_id)["status"] == "queued"
    assert retry(harness, job_id).status_code == 202
    assert harness.run_worker(harness.upload_record(job_id)) == []
    assert harness.job(job_id)["status"] == "failed"


def test_two_concurrent_retries_are_one(aws):
    both, upstream = threading.Barrier(2), FakeUpstream(error_response(401))
    harness, other = Harness(aws, upstream), Harness(aws, upstream)
    job_id = harness.upload(recording("webm"))
    harness.run_worker()

    def retried_by(who):
        with before_call(who, "s3.HeadObject", lambda _: both.wait(60)):
            return retry(who, job_id).status_code

    assert run_concurrently(lambda: retried_by(harness), lambda: retried_by(other)) == [202, 202]
    assert harness.run_worker() == []
    assert harness.job(job_id)["status"] == "completed"
    assert len(upstream.calls) == 2


@pytest.mark.parametrize("status", ["processing", "completed"])
def test_a_late_retry_changes_nothing(aws, status):
    """After the late request has read the status `failed`, another request retries the job."""
    upstream = FakeUpstream(error_response(401))
    harness, other = Harness(aws, upstream), Harness(aws, upstream)
    job_id = harness.upload(recording("webm"))
    harness.run_worker()
    parts = []

    def overtake(_):
        assert retry(other, job_id).status_code == 202
        parts.extend(other.cut(job_id))
        if status == "completed":
            assert other.handle(*parts) == []

    with before_call(harness, "dynamodb.UpdateItem", overtake):
        assert retry(harness, job_id).json()["status"] == status
    assert harness.run_worker(harness.upload_record(job_id)) == []
    assert harness.handle(*parts) == []
    assert harness.job(job_id)["status"] == "completed"
    assert len(upstream.calls) == 2


def test_a_retry_that_is_late_for_another_failure_is_not_billed(aws):
    upstream = FakeUpstream(error_response(401), error_response(401))
    harness, other = Harness(aws, upstream), Harness(aws, upstream)
    job_id = harness.upload(recording("webm"))
    harness.run_worker()

    def overtake(_):
        assert retry(other, job_id).status_code == 202
        other.run_worker()

    with before_call(harness, "dynamodb.UpdateItem", overtake):
        assert retry(harness, job_id).json()["status"] == "failed"
    harness.run_worker()
    assert harness.job(job_id)["status"] == "failed"
    assert len(upstream.calls) == 2


def test_a_failed_job_that_release_0_1_retries_is_transcribed(harness):
    """Release 0.1 only sets `retry`. The worker, which may be newer, updates the status."""
    job_id = harness.upload(recording("webm"))
    key = {"pk": f"job#{job_id}", "sk": "job"}
    harness.jobs.client.update_item(
        TableName=harness.jobs.table,
        Key=key,
        UpdateExpression="SET #status = :failed, retry = :yes"
        " REMOVE progressed_at, retries, generation",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":failed": "failed", ":yes": True},
    )
    assert harness.job(job_id)["status"] == "queued"
    harness.run_worker()
    assert harness.job(job_id)["status"] == "completed"


def test_a_job_of_release_0_1_that_fails_again_reads_as_failed(aws):
    harness = Harness(aws, FakeUpstream(error_response(401)))
    job_id = harness.upload(recording("webm"))
    harness.jobs.client.update_item(
        TableName=harness.jobs.table,
        Key={"pk": f"job#{job_id}", "sk": "job"},
        UpdateExpression="SET retry = :yes",
        ExpressionAttributeValues={":yes": True},
    )
    harness.run_worker()
    assert harness.job(job_id)["status"] == "failed"


def test_a_message_that_release_0_1_cannot_handle_is_a_list_which_it_returns_to_the_queue(harness):
    """During a stack update, the worker of release 0.1 still receives messages from the queue."""
    harness.jobs.queues.send_recording(f"requests/{'0' * 32}.webm", "")
    harness.jobs.queues.send_recording(f"uploads/{'0' * 32}.webm", "")
    bodies = [json.loads(record["body"]) for record in harness.messages()]
    assert sorted(bodies, key=str) == [
        [{"key": f"requests/{'0' * 32}.webm"}],
        {"key": f"uploads/{'0' * 32}.webm"},
    ]


def test_a_job_without_its_recording_cannot_be_retried(harness):
    job_id = harness.upload(b"<html>" * 100)
    harness.run_worker()
    harness.s3.delete_object(Bucket="steno", Key=f"uploads/{job_id}.webm")
    response = retry(harness, job_id)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert harness.job(job_id)["status"] == "failed"


# Jobs whose messages are lost


def test_a_job_without_progress_for_six_hours_fails_and_can_be_retried(timed, clock):
    job_id = timed.upload(recording("webm"))
    timed.cut(job_id)  # the part's message is received, but never processed
    clock.now += 6 * 3600 - 10
    assert timed.job(job_id)["status"] == "processing"
    clock.now += 20
    job = timed.job(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "internal_error")
    assert "retry" in job["error"]["detail"].lower()
    response = retry(timed, job_id)
    assert (response.status_code, response.json()["status"]) == (202, "queued")
    assert timed.run_worker(timed.upload_record(job_id)) == []
    assert timed.job(job_id)["status"] == "completed"


def test_an_old_job_that_makes_progress_does_not_fail(timed, clock):
    job_id = timed.upload(long_recording("ogg", 80))
    first, second, third = timed.cut(job_id)
    for part in (first, second):
        clock.now += 5 * 3600
        assert timed.handle(part) == []
    clock.now += 5 * 3600
    assert timed.job(job_id)["status"] == "processing"
    assert retry(timed, job_id).json()["code"] == "not_failed"
    clock.now += 2 * 3600
    assert timed.job(job_id)["status"] == "failed"
    assert timed.handle(third) == []  # this message has been in the queue for hours
    assert timed.job(job_id)["status"] == "completed"


def test_a_retry_does_not_restart_a_stalled_job_whose_message_arrives_meanwhile(aws, timed, clock):
    other = Harness(aws, jobs=Jobs(settings(**aws), clock))
    job_id = timed.upload(long_recording("ogg", 40))
    first, second = timed.cut(job_id)
    clock.now += 6 * 3600 + 10
    assert timed.job(job_id)["status"] == "failed"
    with before_call(timed, "s3.HeadObject", lambda _: other.handle(first)):
        assert retry(timed, job_id).json()["status"] == "processing"
    assert timed.handle(second) == []
    assert timed.job(job_id)["status"] == "completed"


def test_a_queued_job_fails_after_a_day(timed, clock):
    job_id = timed.upload(recording("webm"))
    for _ in range(2):
        timed.messages()  # the message is received, but never processed
        clock.now += 86_390
        assert timed.job(job_id)["status"] == "queued"
        clock.now += 20
        assert timed.job(job_id)["error"]["code"] == "internal_error"
        assert retry(timed, job_id).status_code == 202
        assert timed.job(job_id)["status"] == "queued"
    assert timed.run_worker(timed.upload_record(job_id)) == []
    assert timed.job(job_id)["status"] == "completed"


# Ownership and expiry


def test_a_job_of_another_owner_is_not_found(aws):
    jobs = Jobs(settings(**aws))
    job, _ = jobs.create("a.webm", "audio/webm", 1000, {}, Caller("ada", "ada"))
    assert jobs.get(job.id, "ada").id == job.id
    harness = Harness(aws)  # with `AUTH=open`, which does not distinguish callers
    assert harness.job(job.id)["code"] == "not_found"
    assert delete(harness, job.id).status_code == 404
    assert harness.job("0" * 32)["code"] == harness.job("../../etc")["code"] == "not_found"


def test_jobs_belong_to_one_jwt_subject(aws):
    harness = Harness(aws, auth="jwt", aws_lambda_function_name="api")
    ada, bob = (TestClient(JwtGateway(harness.app, name)) for name in ("ada", "bob"))
    harness.http = ada
    job_id = harness.upload(recording("webm"))
    harness.run_worker(harness.upload_record(job_id))
    assert bob.post(f"/api/transcriptions/{job_id}/retry").status_code == 404
    for address in (
        f"/api/transcriptions/{job_id}",
        f"/api/transcriptions/{job_id}/transcript",
    ):
        assert ada.get(address).status_code == 200
        assert bob.get(address).status_code == 404
    assert bob.delete(f"/api/transcriptions/{job_id}").status_code == 404
    assert ada.delete(f"/api/transcriptions/{job_id}").status_code == 204


def test_a_transcript_expires_after_30_days(timed, clock):
    job_id = timed.upload(recording("webm"))
    timed.run_worker(timed.upload_record(job_id))
    clock.now += 29 * 86_400
    assert timed.job(job_id)["status"] == "completed"
    clock.now += 2 * 86_400
    assert timed.job(job_id)["code"] == "not_found"


# Delete


def test_a_deleted_job_is_not_found(harness):
    job_id = harness.upload(recording("webm"))
    harness.run_worker()
    assert delete(harness, job_id).status_code == 204
    assert harness.job(job_id)["code"] == "not_found"
    assert delete(harness, job_id).status_code == 404


def test_the_paid_result_of_a_deleted_job_is_not_reused(aws):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    for _ in range(2):
        job_id = harness.upload(recording("webm"))
        harness.run_worker(harness.upload_record(job_id))
        assert delete(harness, job_id).status_code == 204
    assert len(upstream.calls) == 2
