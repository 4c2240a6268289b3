"""Who may call: without the token or the gateway's word nothing is told or spent."""

import hashlib

import pytest
from starlette.testclient import TestClient

from handler.billing.ledger import answer_key
from infra.stack import OPEN_ROUTES
from tests.place import Gateway, Place
from tests.samples import recording

TOKEN = "Open-Sesame_0123456789"


def routes_of(router):
    for route in router.routes:
        if hasattr(route, "original_router"):
            yield from routes_of(route.original_router)
        else:
            yield from ((method, route.path) for method in route.methods)


def closed_routes(app):
    """Whatever the app has and the gateway does not open; an id is put where one belongs."""
    found = {(method, path) for method, path in routes_of(app) if path not in OPEN_ROUTES}
    assert len(found) >= 8
    return sorted((method, path.replace("{identity}", "0" * 32)) for method, path in found)


def code_of(answer):
    told = answer.json()
    return (told.get("error") or told)["code"]


BODIES = (
    ("application/json", b'{"size": 10}'),
    ("application/json", b"{"),
    ("application/json", b'{"size": "x", "evil": 1}'),
    ("application/json", b"[" * 100_000),
    ("multipart/form-data", b"--x"),
    ("multipart/form-data; boundary=x", b"--x\r\n"),
    ("text/plain", b"\xff\0"),
)


def test_who_has_no_token_learns_nothing_of_what_was_sent(client):
    """Not even that it is wrong: the token is asked for before a byte of the body is looked at."""
    http = client(auth="token", access_token=TOKEN)
    for method, path in closed_routes(http.app):
        told = set()
        for kind, body in BODIES:
            answer = http.request(method, path, content=body, headers={"Content-Type": kind})
            told.add(answer.text.replace(answer.headers["x-request-id"], "its id"))
        assert len(told) == 1
        assert "unauthorized" in told.pop()


@pytest.mark.parametrize("sub", [None, "", 0, 7, True, ["root"], {"sub": "root"}])
def test_a_subject_that_is_no_text_is_nobody(client, sub):
    app = client(auth="jwt", aws_lambda_function_name="steno-api").app
    http = TestClient(Gateway(app, sub))
    for method, path in closed_routes(app):
        assert code_of(http.request(method, path)) == "unauthorized"
    assert TestClient(Gateway(app, "root")).get("/v1/models").status_code == 200


DOORS = (("GET", ""), ("GET", "/transcript"), ("POST", "/retry"), ("DELETE", ""))


def answered(http, identity):
    return [http.request(method, f"/api/transcriptions/{identity}{end}") for method, end in DOORS]


def callers(app, *subjects):
    return [TestClient(Gateway(app, subject)) for subject in subjects]


def test_who_knows_a_recording_and_its_owner_can_name_its_job_and_gets_nothing(aws):
    """A recording that came in one request has the hash of its owner, its bytes and its options for an id."""
    place = Place(aws, auth="jwt", aws_lambda_function_name="steno-api", request_deadline_seconds=1)
    content = recording("aac")  # which is always made a job of
    mine, stranger = callers(place.app, "mine", "stranger")
    where = mine.post("/api/transcribe", files={"file": content}).headers["Location"]
    digest = hashlib.sha256(content).hexdigest()
    guess = answer_key("mine", digest, {"model": "gpt-transcribe"}, place.services.models.base_url)[
        :32
    ]
    assert where == f"/api/transcriptions/{guess}"
    assert {answer.status_code for answer in answered(stranger, guess)} == {404}
    assert mine.get(where).status_code == 200


def test_behind_the_gateway_the_page_is_the_stacks_own_whatever_its_name(client, webm):
    """API Gateway answers to no name but those of its own, so that none can be led there."""
    http = client(auth="open", aws_lambda_function_name="steno-api")
    host = "a1b2c3.execute-api.eu-west-1.amazonaws.com"
    for origin, status in ((f"https://{host}", 200), ("https://evil.example", 401)):
        answer = http.post(
            "/api/transcribe", headers={"Origin": origin, "Host": host}, files={"file": webm}
        )
        assert answer.status_code == status
