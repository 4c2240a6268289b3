"""answers.py: what the routes of jobs answer."""

from tests.place import Place
from tests.recordings import recording
from tests.upstream import FalseUpstream


def test_a_job_that_the_ledger_answers_is_one_part_of_one(aws):
    upstream, content = FalseUpstream(), recording("webm")
    place = Place(aws, upstream)
    for _ in range(2):
        identity = place.upload(content)
        place.work(place.about(identity))
        job = place.job(identity)
        assert (job["status"], job["progress"]) == ("completed", {"done": 1, "total": 1})
    assert len(upstream.calls) == 1
