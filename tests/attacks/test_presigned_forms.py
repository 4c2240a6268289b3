"""The form of an upload: good for one recording at one key, and paid for once however often it is used."""

import base64
import json
from contextlib import suppress

import httpx2
import pytest

from tests.place import Place
from tests.recordings import recording
from tests.upstream import FalseUpstream, heard, refused

SIZE = 1000


@pytest.fixture
def bare(aws):
    """The local AWS with nothing in its bucket and its queue."""
    place = Place(aws)
    place.sqs.purge_queue(QueueUrl=place.queue)
    for key in place.objects():
        place.s3.delete_object(Bucket="steno", Key=key)
    return aws


ADDED = {
    "acl": "public-read",
    "success_action_redirect": "http://127.0.0.1:9/",
    "success_action_status": "201",
    "redirect": "http://127.0.0.1:9/",
    "tagging": "<Tagging><TagSet/></Tagging>",
    "Cache-Control": "public",
    "Content-Disposition": "inline",
    "Content-Encoding": "gzip",
    "Expires": "Thu, 01 Jan 2099 00:00:00 GMT",
    "x-amz-meta-a": "b",
    "x-amz-acl": "public-read-write",
    "x-amz-storage-class": "GLACIER",
    "x-amz-website-redirect-location": "http://127.0.0.1:9/",
    "x-amz-server-side-encryption": "aws:kms",
    "x-amz-server-side-encryption-customer-algorithm": "AES256",
    "x-amz-tagging": "a=b",
    "x-amz-object-lock-mode": "COMPLIANCE",
}


def other_keys(key, another):
    name = key.removeprefix("uploads/")
    yield from (
        another,
        f"transcripts/{name}",
        f"uploads/../transcripts/{name}",
        f"uploads/./{name}",
        f"uploads//{name}",
    )
    yield from (f"/{key}", f"{key}/", f"{key}/${{filename}}", "uploads/${filename}", key.upper(), f"{key}\0", f"{key} ")
    yield from (f"uploads/%2e%2e/transcripts/{name}", name, "", "uploads/", "x", key[:-1], f"{key}\r\nx", "a" * 2000)


def other_policies(policy):
    """The policy as somebody would rather have it, under the signature of the one that was given."""
    told = json.loads(base64.b64decode(policy))
    wider = [
        {**told, "expiration": "2099-01-01T00:00:00Z"},
        {**told, "conditions": []},
        {**told, "conditions": [held for held in told["conditions"] if "content-length-range" not in str(held)]},
        {
            **told,
            "conditions": [["starts-with", "$key", ""], ["starts-with", "$Content-Type", ""], *told["conditions"]],
        },
        {},
    ]
    yield from (base64.b64encode(json.dumps(made).encode()).decode() for made in wider)
    yield from (policy[:-4], policy + "AAAA", policy.swapcase(), "", "e30=", json.dumps(told), " " + policy + "=")


def altered(form, another):
    """What a form can be made into: each field altered, left out, or beside one that was never there."""
    fields, key = form["fields"], form["fields"]["key"]
    for name, value in fields.items():
        yield {other: held for other, held in fields.items() if other != name}
        for at in {0, len(value) // 2, len(value) - 1}:
            yield {**fields, name: value[:at] + ("0" if value[at] != "0" else "1") + value[at + 1 :]}
        yield from ({**fields, name: text} for text in ("", value + "x", value * 2))
    yield from ({**fields, name: value} for name, value in ADDED.items())
    yield from ({**fields, "key": other} for other in other_keys(key, another))
    yield from ({**fields, "policy": other} for other in other_policies(fields["policy"]))
    for kind in ("text/html", "audio/webm;codecs=opus", "image/svg+xml", "AUDIO/WEBM", "audio/webm\r\nX-Injected: yes"):
        yield {**fields, "Content-Type": kind}
    date = next(name for name in fields if name.lower() == "x-amz-date")
    yield from ({**fields, date: when} for when in ("20990101T000000Z", "20000101T000000Z", "now"))


def sent(url, fields, content=b"x" * SIZE):
    return httpx2.post(url, data=fields, files={"file": content}).status_code


def test_a_form_that_was_altered_uploads_nothing(bare, tried):
    place = Place(bare, max_upload_bytes=SIZE)
    form, another = (place.ask(SIZE).json()["upload"] for _ in range(2))
    tries = [(fields, b"x" * SIZE) for fields in altered(form, another["fields"]["key"]) if fields != form["fields"]]
    tries += [(form["fields"], b"x" * size) for size in (0, SIZE + 1, 100 * SIZE)]
    for fields, content in tries:
        assert sent(form["url"], fields, content) in (400, 403, 405, 411, 412, 501), fields
    elsewhere = form["url"].replace("steno", "other", 1) if "steno" in form["url"] else form["url"] + "other"
    with suppress(httpx2.ConnectError):  # no such host
        assert sent(elsewhere, form["fields"]) >= 400
    assert place.objects() == []
    assert sent(form["url"], form["fields"]) == 204
    assert place.objects() == [form["fields"]["key"]]
    tried("Upload forms altered in each field", f"{len(tries)} forms", "all refused by the bucket; nothing stored")


# The same form twice


def uploaded(form, content):
    assert sent(form["url"], form["fields"], content) == 204


@pytest.fixture
def first():
    return recording("webm")


@pytest.fixture
def second():
    return recording("ogg", "endgame_nagg_nell.wav", 2)


def test_a_form_used_again_before_the_worker_came_is_one_recording_and_one_payment(bare, first, second):
    upstream = FalseUpstream()
    place = Place(bare, upstream)
    asked = place.ask(len(first)).json()
    for content in (first, second, first):
        uploaded(asked["upload"], content)
    while records := place.messages():
        place.work(*records)
        for record in records:
            place.sqs.delete_message(QueueUrl=place.queue, ReceiptHandle=record["receiptHandle"])
    assert len(upstream.calls) == 1
    assert place.job(asked["id"])["transcript"] == "Ever tried."


def test_a_form_used_again_while_its_recording_is_heard_changes_nothing(bare, first, second):
    again = []

    def overwrite(_request):
        uploaded(again[0]["upload"], second)
        return heard("The first.")

    upstream = FalseUpstream(overwrite, words="The second.")
    place = Place(bare, upstream)
    asked = place.ask(len(first)).json()
    again.append(asked)
    uploaded(asked["upload"], first)
    place.work(place.about(asked["id"]))
    assert place.job(asked["id"])["transcript"] == "The first."
    place.work(place.about(asked["id"]))
    assert place.job(asked["id"])["transcript"] == "The first."
    assert len(upstream.calls) == 1
    assert place.objects() == [f"transcripts/{asked['id']}.json"]


def test_a_form_used_again_after_its_job_is_done_pays_nothing_and_leaves_nothing(bare, first, often, tried):
    upstream = FalseUpstream()
    place = Place(bare, upstream)
    asked = place.ask(len(first)).json()
    uploaded(asked["upload"], first)
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


def test_a_form_used_again_after_its_job_failed_waits_for_who_asks(bare, first, second):
    """A recording that was put in another's place costs nothing until its owner tries again."""
    upstream = FalseUpstream(refused(401))
    place = Place(bare, upstream)
    asked = place.ask(len(first)).json()
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


def test_a_form_used_after_its_job_was_deleted_leaves_nothing(bare, first):
    upstream = FalseUpstream()
    place = Place(bare, upstream)
    asked = place.ask(len(first)).json()
    assert place.http.delete(f"/api/transcriptions/{asked['id']}").status_code == 204
    uploaded(asked["upload"], first)
    place.work(place.about(asked["id"]))
    assert (place.objects(), upstream.calls) == ([], [])
