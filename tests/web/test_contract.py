"""Tests that responses match /openapi.json, for every status of a job and for unusual input."""

import json

import httpx2
import jsonschema_rs
import pytest

from handler.errors import StenoError
from tests.fake_upstream import transcript_response
from tests.harness import Harness
from tests.samples import recording

# An upstream whose response is valid for every model and format.
UPSTREAM = httpx2.MockTransport(
    lambda _request: transcript_response(
        "Ever tried.", duration=0.5, segments=[{"id": 0, "start": 0.1, "end": 0.4, "text": "Ever."}]
    )
)


def _subclasses(error):
    return [error, *(kind for child in error.__subclasses__() for kind in _subclasses(child))]


def without_other_fields(components):
    """Return the schemas without additional fields, so that undocumented fields are found."""
    schemas = {
        name: {"additionalProperties": False, **schema}
        for name, schema in components["schemas"].items()
    }
    return {**components, "schemas": schemas}


CODES = {(int(kind.status), kind.code) for kind in _subclasses(StenoError)}


def test_all_responses_about_a_job_are_as_documented(server):
    harness = server(UPSTREAM, idle=True)
    document = harness.app.openapi()
    components = without_other_fields(document["components"])

    def check(status, method, path, **request):
        response = harness.http.request(method, path.replace("ID", identity), **request)
        documented = document["paths"][path.replace("ID", "{id}")][method.lower()]["responses"][
            str(status)
        ]
        media_type = response.headers.get("Content-Type", "").partition(";")[0]
        assert response.status_code == status
        headers = documented.get("headers", {})
        assert {name.lower() for name in headers if headers[name]["required"]} <= {
            *response.headers
        }
        if "content" in documented:
            schema = {**documented["content"][media_type]["schema"], "components": components}
            jsonschema_rs.validate(
                schema, response.json() if media_type.endswith("json") else response.text
            )

    job, transcript = "/api/transcriptions/ID", "/api/transcriptions/ID/transcript"
    for content, final_status in ((recording("webm"), "completed"), (b"no recording", "failed")):
        identity = harness.request_upload().json()["id"]
        check(200, "GET", job)
        check(409, "GET", transcript)
        identity = harness.upload(content)
        check(200, "GET", job)
        harness.run_worker()
        assert harness.job(identity)["status"] == final_status
        check(200, "GET", job)
        for response_format in ("json", "text", "srt", "vtt", "verbose_json"):
            params = {"response_format": response_format}
            check(200 if final_status == "completed" else 409, "GET", transcript, params=params)
        check(202 if final_status == "failed" else 409, "POST", f"{job}/retry")
        check(204, "DELETE", job)
        check(404, "GET", job)


@pytest.mark.parametrize(
    "body", [{"language": 5}, {"language": False}, {"keywords": [1]}, {"keywords": [None]}]
)
def test_an_option_of_the_wrong_type_is_rejected(client, body):
    response = client().post("/api/uploads", json={"size": 1, **body})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_option")


@pytest.mark.parametrize(
    "identity", ["a" * 3000, "%00", "%2F", "..%2F..", "%ED%A0%80", "é" * 1500, "A" * 32, "%20"]
)
@pytest.mark.parametrize(
    ("method", "rest"), [("GET", ""), ("GET", "/transcript"), ("POST", "/retry"), ("DELETE", "")]
)
def test_an_invalid_job_id_is_not_found(aws, identity, method, rest):
    response = Harness(aws).http.request(method, f"/api/transcriptions/{identity}{rest}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


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
def test_invalid_json_is_rejected(client, body):
    response = client().post(
        "/api/uploads", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 422
    assert (response.status_code, response.json()["code"]) in CODES


@pytest.mark.parametrize(
    "text", ["\0", "\ud800", "\udfff\ud800", "\U0010ffff", "\u202e", "\x1b[2J", "\r\nX: y"]
)
@pytest.mark.parametrize(
    "name", ["filename", "prompt", "keywords", "content_type", "language", "model", "unheard_of"]
)
def test_no_character_breaks_an_upload(aws, name, text):
    value = [text] if name == "keywords" else text
    response = Harness(aws).http.post(
        "/api/uploads",
        content=json.dumps({"size": 1, name: value}),
        headers={"Content-Type": "application/json"},
    )
    expected = (415, 422) if "\ud800" in text else (201, 415, 422)  # a surrogate is not valid UTF-8
    assert response.status_code in expected
