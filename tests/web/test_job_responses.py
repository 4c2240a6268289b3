"""Tests of responses.py and errors.py: responses of the job routes."""

import json
from io import StringIO

import pytest

from handler.aws.metrics import Metrics
from handler.jobs.progress import job_key
from tests.fake_upstream import FakeUpstream, error_response
from tests.harness import Harness
from tests.samples import recording


def test_a_job_with_a_paid_result_has_one_part(aws):
    upstream, content = FakeUpstream(), recording("webm")
    harness = Harness(aws, upstream)
    for _ in range(2):
        job_id = harness.upload(content)
        harness.run_worker(harness.upload_record(job_id))
        job = harness.job(job_id)
        assert (job["status"], job["progress"]) == ("completed", {"done": 1, "total": 1})
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(("age", "seconds"), [(0, "2"), (31, "5"), (301, "15"), (86_000, "15")])
def test_the_polling_interval_increases_with_the_age_of_a_job(aws, age, seconds):
    harness = Harness(aws)
    job_id = harness.upload(recording("webm"))
    harness.jobs.client.update_item(
        TableName=harness.jobs.table,
        Key=job_key(job_id),
        UpdateExpression="SET created_at = created_at - :age",
        ExpressionAttributeValues={":age": age},
    )
    address = f"/api/transcriptions/{job_id}"
    for path in (address, f"{address}/transcript"):
        assert harness.http.get(path).headers["Retry-After"] == seconds


@pytest.mark.parametrize(
    ("content", "reply", "code"),
    [
        (b"<html>" * 100, None, "unsupported_media"),
        (recording("webm"), error_response(429, "insufficient_quota"), "upstream_quota"),
        (recording("webm"), error_response(401), "upstream_credentials"),
    ],
)
def test_the_transcript_of_a_failed_job_is_the_error_of_the_job(aws, content, reply, code):
    out = StringIO()
    harness = Harness(aws, FakeUpstream(*([reply] if reply else [])), metrics=Metrics(out))
    job_id = harness.upload(content)
    queued = harness.transcript(job_id)
    assert (queued.status_code, queued.json()["code"]) == (409, "not_ready")
    assert queued.headers["Retry-After"]
    harness.run_worker(harness.upload_record(job_id))
    response, error = harness.transcript(job_id), harness.job(job_id)["error"]
    assert (response.status_code, response.json()["code"]) == (409, error["code"]) == (409, code)
    assert (
        response.json()["detail"] == f"The job failed, so it has no transcript. {error['detail']}"
    )
    assert "Retry-After" not in response.headers  # repeating the request would not help
    assert response.headers["Location"] == f"/api/transcriptions/{job_id}"
    codes = [json.loads(line).get("Code") for line in out.getvalue().splitlines()]
    assert codes.count(code) == 1  # counted by the worker, but not again for each request
