"""The form of an upload used again: good for one recording at one key, and paid for once."""

import hashlib
from collections import Counter

import pytest

from tests.false_upstream import FalseUpstream, heard
from tests.jobs.test_presigned_forms import uploaded
from tests.place import Place
from tests.samples import long_recording, recording


def test_a_form_used_again_after_its_job_is_done_pays_nothing_and_leaves_nothing(
    aws, webm, often, tried
):
    upstream = FalseUpstream()
    place = Place(aws, upstream)
    asked = place.ask().json()
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
        "Upload forms used again after their job was done",
        f"{times} times",
        "1 payment; nothing kept, nothing changed",
    )


class Naming(FalseUpstream):
    """Hears in each recording a word that is its own."""

    def _handle(self, request):
        super()._handle(request)
        return heard(hashlib.sha256(self.calls[-1].recording).hexdigest()[:8])


class Counting:
    """Counts the worker's calls of AWS, and acts before one of them."""

    def __init__(self, place, moment, act):
        self.calls = 0
        self._moment, self._act = moment, act
        self._events = [
            client.meta.events
            for client in (place.jobs.client, place.jobs.objects.client, place.jobs.queues.sqs)
        ]

    def __enter__(self):
        for events in self._events:
            events.register("before-send", self._count)
        return self

    def __exit__(self, *_):
        for events in self._events:
            events.unregister("before-send", self._count)

    def _count(self, **_):
        self.calls += 1
        if self.calls == self._moment:
            self._act()


@pytest.mark.parametrize("bytes_are", ["the same", "other"])
@pytest.mark.parametrize("delivered", ["at once", "later"])
def test_a_form_used_again_during_its_job_gives_one_transcript_pays_once_and_leaves_nothing(
    aws, often, tried, bytes_are, delivered
):
    """Before any of the worker's calls of AWS: its message is delivered to another function at once, or after it."""
    upstream = Naming()
    place = Place(aws, upstream, daily_seconds=10**6)
    first, second = long_recording("ogg", 61), long_recording("ogg", 44)
    again = first if bytes_are == "the same" else second
    (alone, calls), (other, _) = (_job(place, content, "alone") for content in (first, second))
    words = [place.job(identity)["transcript"] for identity in (alone, other)]
    moments = often(4, 60)
    for number in range(moments):
        before = len(upstream.calls)
        identity, _ = _job(
            place, first, f"{number}", 1 + number * calls // moments, again, delivered
        )
        assert place.job(identity)["transcript"] in words[: 1 if again is first else 2]
        questions = Counter(call.recording for call in upstream.calls[before:])
        assert max(questions.values()) == 1
        assert again is second or len(questions) == len(words[0].split())
        assert [key for key in place.objects() if identity in key] == [
            f"transcripts/{identity}.json"
        ]
        assert [item["sk"] for item in place.items() if item["pk"] == f"job#{identity}"] == ["job"]
        (spent,) = (
            item
            for item in place.items()
            if item["pk"].startswith("spent#") and item["sk"] == "all"
        )
        assert (spent["seconds"], spent.get("unsettled")) == (3 * len(upstream.calls), None)
    tried(
        f"Upload forms used again during their job, with {bytes_are} bytes, delivered {delivered}",
        f"{moments} times, spread over the worker's {calls} calls of AWS",
        "one recording's transcript each; no part paid twice; nothing left but the transcript",
    )


def _work(place, record):
    """Hands a message about a recording to the worker, and then those of parts."""
    assert place.handle(record) == []
    while place.work_on_parts():
        pass


def _job(place, content, prompt, moment=0, again=b"", delivered=""):
    """A job from its form to its end, whose form is used again at a moment; and how many calls of AWS it took."""
    asked = place.ask(prompt=prompt).json()
    identity, deliveries = asked["id"], 1

    def use_again():
        nonlocal deliveries
        uploaded(asked["upload"], again)
        if delivered == "at once":
            assert place.handle(place.about(identity)) == []
        else:
            deliveries += 1

    uploaded(asked["upload"], content)
    record = place.about(identity)
    with Counting(place, moment, use_again) as counting:
        _work(place, record)
    for _ in range(deliveries - 1):
        _work(place, place.about(identity))
    assert place.job(identity)["status"] == "completed"
    return identity, counting.calls
