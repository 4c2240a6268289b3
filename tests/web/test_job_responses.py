"""responses.py and errors.py: what the routes of jobs answer."""

import json
from io import StringIO

import pytest

from handler.aws.metrics import Metrics
from handler.jobs.progress import job_key
from tests.false_upstream import FalseUpstream, refused
from tests.place import Place
from tests.samples import recording


def test_a_job_that_the_ledger_answers_is_one_part_of_one(aws):
    upstream, content = FalseUpstream(), recording("webm")
    place = Place(aws, upstream)
    for _ in range(2):
        identity = place.upload(content)
        place.work(place.about(identity))
        job = place.job(identity)
        assert (job["status"], job["progress"]) == ("completed", {"done": 1, "total": 1})
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(("age", "seconds"), [(0, "2"), (31, "5"), (301, "15"), (86_000, "15")])
def test_a_job_is_to_be_asked_for_more_rarely_the_older_it_is(aws, age, seconds):
    place = Place(aws)
    identity = place.upload(recording("webm"))
    place.jobs.client.update_item(
        TableName=place.jobs.table,
        Key=job_key(identity),
        UpdateExpression="SET created_at = created_at - :age",
        ExpressionAttributeValues={":age": age},
    )
    address = f"/api/transcriptions/{identity}"
    for where in (address, f"{address}/transcript"):
        assert place.http.get(where).headers["Retry-After"] == seconds


@pytest.mark.parametrize(
    ("content", "reply", "code"),
    [
        (b"<html>" * 100, None, "unsupported_media"),
        (recording("webm"), refused(429, "insufficient_quota"), "upstream_quota"),
        (recording("webm"), refused(401), "upstream_credentials"),
    ],
)
def test_the_transcript_of_a_failed_job_is_refused_with_the_jobs_own_error(
    aws, content, reply, code
):
    out = StringIO()
    place = Place(aws, FalseUpstream(*([reply] if reply else [])), metrics=Metrics(out))
    identity = place.upload(content)
    waiting = place.transcript(identity)
    assert (waiting.status_code, waiting.json()["code"]) == (409, "not_ready")
    assert waiting.headers["Retry-After"]
    place.work(place.about(identity))
    answer, error = place.transcript(identity), place.job(identity)["error"]
    assert (answer.status_code, answer.json()["code"]) == (409, error["code"]) == (409, code)
    assert answer.json()["detail"] == f"The job failed, so it has no transcript. {error['detail']}"
    assert "Retry-After" not in answer.headers  # it would never help
    assert answer.headers["Location"] == f"/api/transcriptions/{identity}"
    told = [json.loads(line).get("Code") for line in out.getvalue().splitlines()]
    assert told.count(code) == 1  # by the worker, and not again for each request
