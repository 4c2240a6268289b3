"""Tests of authentication: without a token or JWT, no data is returned and nothing is billed."""

import hashlib

import pytest
from starlette.testclient import TestClient

from handler.billing.ledger import answer_key
from infra.stack import OPEN_ROUTES
from tests.harness import Harness, JwtGateway
from tests.samples import recording

TOKEN = "Open-Sesame_0123456789"


def routes_of(router):
    for route in router.routes:
        if hasattr(route, "original_router"):
            yield from routes_of(route.original_router)
        else:
            yield from ((method, route.path) for method in route.methods)


def closed_routes(app):
    """Return the method and path of each route that requires authentication.

    Job ids in the paths are replaced with a sample id.
    """
    found = {(method, path) for method, path in routes_of(app) if path not in OPEN_ROUTES}
    assert len(found) >= 8
    return sorted((method, path.replace("{id}", "0" * 32)) for method, path in found)


def code_of(response):
    body = response.json()
    return (body.get("error") or body)["code"]


BODIES = (
    ("application/json", b'{"size": 10}'),
    ("application/json", b"{"),
    ("application/json", b'{"size": "x", "evil": 1}'),
    ("application/json", b"[" * 100_000),
    ("multipart/form-data", b"--x"),
    ("multipart/form-data; boundary=x", b"--x\r\n"),
    ("text/plain", b"\xff\0"),
)


def test_without_a_token_all_responses_are_the_same(client):
    """The token is checked before the body is read, so no response reveals a validation error."""
    http = client(auth="token", access_token=TOKEN)
    for method, path in closed_routes(http.app):
        responses = set()
        for kind, body in BODIES:
            response = http.request(method, path, content=body, headers={"Content-Type": kind})
            responses.add(response.text.replace(response.headers["x-request-id"], "its id"))
        assert len(responses) == 1
        assert "unauthorized" in responses.pop()


@pytest.mark.parametrize("sub", [None, "", 0, 7, True, ["root"], {"sub": "root"}])
def test_a_jwt_subject_that_is_not_text_is_unauthorized(client, sub):
    app = client(auth="jwt", aws_lambda_function_name="steno-api").app
    http = TestClient(JwtGateway(app, sub))
    for method, path in closed_routes(app):
        assert code_of(http.request(method, path)) == "unauthorized"
    assert TestClient(JwtGateway(app, "root")).get("/v1/models").status_code == 200


JOB_ROUTES = (("GET", ""), ("GET", "/transcript"), ("POST", "/retry"), ("DELETE", ""))


def request_all(http, job_id):
    return [
        http.request(method, f"/api/transcriptions/{job_id}{end}") for method, end in JOB_ROUTES
    ]


def callers(app, *subjects):
    return [TestClient(JwtGateway(app, subject)) for subject in subjects]


def test_a_stranger_who_computes_the_id_of_a_job_cannot_read_it(aws):
    """The id of a job that was created for a request is a hash.

    The hash is calculated from the job's owner, recording and options.
    """
    harness = Harness(
        aws, auth="jwt", aws_lambda_function_name="steno-api", request_deadline_seconds=1
    )
    content = recording("aac")  # a recording in this format always becomes a job
    mine, stranger = callers(harness.app, "mine", "stranger")
    location = mine.post("/api/transcribe", files={"file": content}).headers["Location"]
    digest = hashlib.sha256(content).hexdigest()
    guess = answer_key(
        "mine", digest, {"model": "gpt-transcribe"}, harness.services.models.get().base_url
    )[:32]
    assert location == f"/api/transcriptions/{guess}"
    assert {response.status_code for response in request_all(stranger, guess)} == {404}
    assert mine.get(location).status_code == 200


def test_behind_the_gateway_the_page_at_its_own_host_may_call_the_api(client, webm):
    """API Gateway accepts only its own host names, so the Host header can be trusted."""
    http = client(auth="open", aws_lambda_function_name="steno-api")
    host = "a1b2c3.execute-api.eu-west-1.amazonaws.com"
    for origin, status in ((f"https://{host}", 200), ("https://evil.example", 403)):
        response = http.post(
            "/api/transcribe", headers={"Origin": origin, "Host": host}, files={"file": webm}
        )
        assert response.status_code == status
