"""The form of an upload used again: good for one recording at one key, and paid for once."""

from tests.place import Place
from tests.recordings import recording
from tests.test_presigned_forms import uploaded
from tests.upstream import FalseUpstream


def test_a_form_used_again_after_its_job_is_done_pays_nothing_and_leaves_nothing(aws, webm, often, tried):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    asked = place.ask(len(webm)).json()
    uploaded(asked["upload"], webm)
    place.work(place.about(asked["id"]))
    times = often(3, 100)
    for number in range(times):
        uploaded(asked["upload"], recording("wav", "endgame_nagg_nell.wav", 1 + number % 4))
        place.work(place.about(asked["id"]))
        assert place.objects() == [f"transcripts/{asked['id']}.json"]
    assert place.job(asked["id"])["transcript"] == "Ever tried."
    assert len(upstream.calls) == 1
    tried(
        "Upload forms used again after their job was done", f"{times} times", "1 payment; nothing kept, nothing changed"
    )
