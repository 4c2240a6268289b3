"""main.py on Lambda: real events of an HTTP API, through Mangum, to a real server that stands in for OpenAI."""

import base64
import hashlib
import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

EVENTS = ROOT / "events"
LAMBDA = {"AWS_LAMBDA_FUNCTION_NAME": "steno-api", "AUTH": "open", "OPENAI_API_KEY": "offline"}
INVOKE = (
    "import json, sys; from handler.main import lambda_handler;"
    "print(json.dumps([lambda_handler(event, None) for event in json.load(sys.stdin)]))"
)


def event(name):
    return json.loads((EVENTS / f"{name}.json").read_text())


def invoke(*events, **environment):
    """The answers to the events, one after another in one fresh process, as a warm function gives them."""
    run = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", INVOKE],
        cwd=EVENTS,  # without a developer's `.env`
        env={**os.environ, **LAMBDA, "PYTHONPATH": str(ROOT), **environment},
        input=json.dumps(events),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout.splitlines()[-1])  # behind the figures for CloudWatch


def recording_in(transcribe_event):
    body = base64.b64decode(transcribe_event["body"])
    return body[body.index(b"\x1aE\xdf\xa3") : body.rindex(b"\r\n--")]


def test_a_recording_in_a_base64_event_reaches_the_upstream_byte_for_byte(engine):
    transcribe = event("transcribe")
    (answer,) = invoke(transcribe, OPENAI_BASE_URL=engine.url)
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"]) == {"transcript": "Ever tried."}
    assert answer["isBase64Encoded"] is False
    assert answer["headers"]["steno-model"] == "gpt-transcribe"
    assert answer["headers"]["access-control-allow-origin"] == "http://localhost:3000"
    (call,) = engine.calls()
    assert call["filename"] == "recording.webm"
    assert call["sha256"] == hashlib.sha256(recording_in(transcribe)).hexdigest()


def test_one_process_answers_one_event_after_another(engine):
    answers = invoke(
        event("health"),
        event("transcribe"),
        event("health"),
        event("transcribe"),
        OPENAI_BASE_URL=engine.url,
    )
    assert [answer["statusCode"] for answer in answers] == [200] * 4


def test_a_problem_is_sent_as_text():
    wrong = event("health")
    wrong["rawPath"] = wrong["requestContext"]["http"]["path"] = "/nowhere"
    (answer,) = invoke(wrong)
    assert answer["headers"]["content-type"] == "application/problem+json"
    assert json.loads(answer["body"])["code"] == "not_found"


@pytest.mark.parametrize("body", ["", base64.b64encode(b"--nothing--").decode()])
def test_an_event_without_a_form_in_it_is_refused(body):
    transcribe = event("transcribe") | {"body": body}
    (answer,) = invoke(transcribe)
    assert (answer["statusCode"], json.loads(answer["body"])["code"]) == (422, "invalid_request")


def test_the_jwt_authorizers_subject_is_who_calls(engine):
    nobody, somebody = event("transcribe"), event("transcribe")
    somebody["requestContext"]["authorizer"] = {"jwt": {"claims": {"sub": "ada"}, "scopes": None}}
    without = event("transcribe")
    without["requestContext"]["authorizer"] = None
    answers = invoke(nobody, somebody, without, OPENAI_BASE_URL=engine.url, AUTH="jwt")
    assert [answer["statusCode"] for answer in answers] == [401, 200, 401]


def test_on_lambda_the_token_is_asked_for_unless_the_settings_say_otherwise():
    (answer,) = invoke(event("transcribe"), AUTH="", ACCESS_TOKEN="open-sesame")
    assert answer["statusCode"] == 401
