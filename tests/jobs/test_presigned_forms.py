"""Tests of presigned forms that are used more than once: only one recording is billed."""

import httpx2
import pytest

from tests.fake_upstream import FakeUpstream, error_response, transcript_response
from tests.harness import Harness
from tests.samples import recording


def upload_with(form, content):
    httpx2.post(form["url"], data=form["fields"], files={"file": content}).raise_for_status()


@pytest.fixture
def first():
    return recording("webm")


@pytest.fixture
def second():
    return recording("ogg", "endgame_nagg_nell.wav", 2)


def test_a_form_used_again_before_the_worker_starts_is_billed_once(aws, first, second):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    created = harness.request_upload().json()
    for content in (first, second, first):
        upload_with(created["upload"], content)
    while records := harness.messages():
        assert harness.run_worker(*records) == []
    assert len(upstream.calls) == 1
    assert harness.job(created["id"])["transcript"] == "Ever tried."


def test_a_form_used_again_while_its_recording_is_transcribed_changes_nothing(aws, first, second):
    form_response = []

    def overwrite(_request):
        upload_with(form_response[0]["upload"], second)
        return transcript_response("The first.")

    upstream = FakeUpstream(overwrite, words="The second.")
    harness = Harness(aws, upstream)
    created = harness.request_upload().json()
    form_response.append(created)
    upload_with(created["upload"], first)
    assert harness.handle(harness.upload_record(created["id"])) == []
    assert harness.handle_part_records()
    assert harness.job(created["id"])["transcript"] == "The first."
    assert harness.handle(harness.upload_record(created["id"])) == []
    assert harness.job(created["id"])["transcript"] == "The first."
    assert len(upstream.calls) == 1
    assert harness.objects() == [f"transcripts/{created['id']}.json"]


def test_a_form_used_again_after_its_job_failed_waits_for_a_retry(aws, first, second):
    """The second recording replaces the first, and is not transcribed until the job is retried."""
    upstream = FakeUpstream(error_response(401))
    harness = Harness(aws, upstream)
    created = harness.request_upload().json()
    upload_with(created["upload"], first)
    harness.run_worker(harness.upload_record(created["id"]))
    assert harness.job(created["id"])["error"]["code"] == "upstream_credentials"
    for _ in range(3):
        upload_with(created["upload"], second)
        harness.run_worker(harness.upload_record(created["id"]))
    assert len(upstream.calls) == 1
    assert harness.http.post(f"/api/transcriptions/{created['id']}/retry").status_code == 202
    harness.run_worker(harness.upload_record(created["id"]))
    assert harness.job(created["id"])["status"] == "completed"
    assert len(upstream.calls) == 2


def test_a_form_used_after_its_job_was_deleted_leaves_nothing(aws, first):
    upstream = FakeUpstream()
    harness = Harness(aws, upstream)
    created = harness.request_upload().json()
    assert harness.http.delete(f"/api/transcriptions/{created['id']}").status_code == 204
    upload_with(created["upload"], first)
    harness.run_worker(harness.upload_record(created["id"]))
    assert (harness.objects(), upstream.calls) == ([], [])
