"""Answers and refusals as /openapi.json documents them, for a job from its beginning to its end and for odd input."""

import json

import httpx2
import jsonschema_rs
import pytest

from handler.errors import StenoError
from tests.false_upstream import heard
from tests.place import Place
from tests.samples import recording

# As every model answers in every format.
HEARD = httpx2.MockTransport(
    lambda _request: heard(
        "Ever tried.", duration=0.5, segments=[{"id": 0, "start": 0.1, "end": 0.4, "text": "Ever."}]
    )
)


def _kinds(error):
    return [error, *(kind for child in error.__subclasses__() for kind in _kinds(child))]


CODES = {(int(kind.status), kind.code) for kind in _kinds(StenoError)}


def test_a_job_is_as_documented_from_its_beginning_to_its_end(server):
    place = server(HEARD, idle=True)
    document = place.app.openapi()

    def answered(status, method, path, **asked):
        answer = place.http.request(method, path.replace("ID", identity), **asked)
        promised = document["paths"][path.replace("ID", "{identity}")][method.lower()]["responses"][
            str(status)
        ]
        media_type = answer.headers.get("Content-Type", "").partition(";")[0]
        assert answer.status_code == status
        headers = promised.get("headers", {})
        assert {name.lower() for name in headers if headers[name]["required"]} <= {*answer.headers}
        if "content" in promised:
            schema = {
                **promised["content"][media_type]["schema"],
                "components": document["components"],
            }
            jsonschema_rs.validate(
                schema, answer.json() if media_type.endswith("json") else answer.text
            )

    job, transcript = "/api/transcriptions/ID", "/api/transcriptions/ID/transcript"
    for recorded, ends in ((recording("webm"), "completed"), (b"no recording", "failed")):
        identity = place.ask().json()["id"]
        answered(200, "GET", job)
        answered(409, "GET", transcript)
        identity = place.upload(recorded)
        answered(200, "GET", job)
        place.work()
        assert place.job(identity)["status"] == ends
        answered(200, "GET", job)
        for response_format in ("json", "text", "srt", "vtt", "verbose_json"):
            params = {"response_format": response_format}
            answered(200 if ends == "completed" else 409, "GET", transcript, params=params)
        answered(202 if ends == "failed" else 409, "POST", f"{job}/retry")
        answered(204, "DELETE", job)
        answered(404, "GET", job)


@pytest.mark.parametrize(
    "body", [{"language": 5}, {"language": False}, {"keywords": [1]}, {"keywords": [None]}]
)
def test_an_option_of_another_type_is_refused(client, body):
    answer = client().post("/api/uploads", json={"size": 1, **body})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option")


@pytest.mark.parametrize(
    "identity", ["a" * 3000, "%00", "%2F", "..%2F..", "%ED%A0%80", "é" * 1500, "A" * 32, "%20"]
)
@pytest.mark.parametrize(
    ("method", "rest"), [("GET", ""), ("GET", "/transcript"), ("POST", "/retry"), ("DELETE", "")]
)
def test_no_text_in_the_place_of_a_jobs_id_is_more_than_unknown(aws, identity, method, rest):
    answer = Place(aws).http.request(method, f"/api/transcriptions/{identity}{rest}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        '"',
        "[" * 100_000,
        '{"size": NaN}',
        '{"size": 1e999}',
        '{"size": %s}' % ("9" * 5000),
    ],
)
def test_no_json_is_worse_than_refused(client, body):
    answer = client().post(
        "/api/uploads", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert (answer.status_code, answer.json()["code"]) in CODES


@pytest.mark.parametrize(
    "text", ["\0", "\ud800", "\udfff\ud800", "\U0010ffff", "\u202e", "\x1b[2J", "\r\nX: y"]
)
@pytest.mark.parametrize(
    "name", ["filename", "prompt", "keywords", "content_type", "language", "model", "unheard_of"]
)
def test_no_character_breaks_an_upload(aws, name, text):
    value = [text] if name == "keywords" else text
    answer = Place(aws).http.post(
        "/api/uploads",
        content=json.dumps({"size": 1, name: value}),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code in (
        (415, 422) if "\ud800" in text else (201, 415, 422)
    )  # no UTF-8 can say it
