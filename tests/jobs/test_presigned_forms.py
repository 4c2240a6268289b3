"""The form of an upload used again: good for one recording at one key, and paid for once."""

import httpx2
import pytest

from tests.false_upstream import FalseUpstream, heard, refused
from tests.place import Place
from tests.samples import recording


def uploaded(form, content):
    httpx2.post(form["url"], data=form["fields"], files={"file": content}).raise_for_status()


@pytest.fixture
def first():
    return recording("webm")


@pytest.fixture
def second():
    return recording("ogg", "endgame_nagg_nell.wav", 2)


def test_a_form_used_again_before_the_worker_came_is_one_recording_and_one_payment(
    aws, first, second
):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    asked = place.ask().json()
    for content in (first, second, first):
        uploaded(asked["upload"], content)
    while records := place.messages():
        assert place.work(*records) == []
    assert len(upstream.calls) == 1
    assert place.job(asked["id"])["transcript"] == "Ever tried."


def test_a_form_used_again_while_its_recording_is_transcribed_changes_nothing(aws, first, second):
    again = []

    def overwrite(_request):
        uploaded(again[0]["upload"], second)
        return heard("The first.")

    upstream = FalseUpstream(overwrite, words="The second.")
    place = Place(aws, upstream)
    asked = place.ask().json()
    again.append(asked)
    uploaded(asked["upload"], first)
    assert place.handle(place.about(asked["id"])) == []
    assert place.work_on_parts()
    assert place.job(asked["id"])["transcript"] == "The first."
    assert place.handle(place.about(asked["id"])) == []
    assert place.job(asked["id"])["transcript"] == "The first."
    assert len(upstream.calls) == 1
    assert place.objects() == [f"transcripts/{asked['id']}.json"]


def test_a_form_used_again_after_its_job_failed_waits_for_who_asks(aws, first, second):
    """A recording that was put in another's place costs nothing until its owner tries again."""
    upstream = FalseUpstream(refused(401))
    place = Place(aws, upstream)
    asked = place.ask().json()
    uploaded(asked["upload"], first)
    place.work(place.about(asked["id"]))
    assert place.job(asked["id"])["error"]["code"] == "upstream_credentials"
    for _ in range(3):
        uploaded(asked["upload"], second)
        place.work(place.about(asked["id"]))
    assert len(upstream.calls) == 1
    assert place.http.post(f"/api/transcriptions/{asked['id']}/retry").status_code == 202
    place.work(place.about(asked["id"]))
    assert place.job(asked["id"])["status"] == "completed"
    assert len(upstream.calls) == 2


def test_a_form_used_after_its_job_was_deleted_leaves_nothing(aws, first):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    asked = place.ask().json()
    assert place.http.delete(f"/api/transcriptions/{asked['id']}").status_code == 204
    uploaded(asked["upload"], first)
    place.work(place.about(asked["id"]))
    assert (place.objects(), upstream.calls) == ([], [])
