"""Tests of main.py on Lambda: the app handles HTTP API events and uses the offline engine."""

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
    """Handle the events one after another in a new process, as a warm Lambda function does."""
    run = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", INVOKE],
        cwd=EVENTS,  # this folder contains no `.env` file
        env={**os.environ, **LAMBDA, "PYTHONPATH": str(ROOT), **environment},
        input=json.dumps(events),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout.splitlines()[-1])  # earlier lines are CloudWatch metrics


def recording_in(transcribe_event):
    body = base64.b64decode(transcribe_event["body"])
    return body[body.index(b"\x1aE\xdf\xa3") : body.rindex(b"\r\n--")]


def test_a_recording_in_a_base64_event_reaches_the_upstream_byte_for_byte(engine):
    transcribe = event("transcribe")
    (response,) = invoke(transcribe, OPENAI_BASE_URL=engine.url)
    assert response["statusCode"] == 200
    assert json.loads(response["body"]) == {"transcript": "Ever tried."}
    assert response["isBase64Encoded"] is False
    assert response["headers"]["steno-model"] == "gpt-transcribe"
    assert response["headers"]["access-control-allow-origin"] == "http://localhost:3000"
    (call,) = engine.calls()
    assert call["filename"] == "recording.webm"
    assert call["sha256"] == hashlib.sha256(recording_in(transcribe)).hexdigest()


def test_one_process_handles_several_events(engine):
    responses = invoke(
        event("health"),
        event("transcribe"),
        event("health"),
        event("transcribe"),
        OPENAI_BASE_URL=engine.url,
    )
    assert [response["statusCode"] for response in responses] == [200] * 4


def test_a_problem_is_sent_as_text():
    wrong = event("health")
    wrong["rawPath"] = wrong["requestContext"]["http"]["path"] = "/nowhere"
    (response,) = invoke(wrong)
    assert response["headers"]["content-type"] == "application/problem+json"
    assert json.loads(response["body"])["code"] == "not_found"


@pytest.mark.parametrize("body", ["", base64.b64encode(b"--nothing--").decode()])
def test_an_event_without_a_form_is_rejected(body):
    transcribe = event("transcribe") | {"body": body}
    (response,) = invoke(transcribe)
    assert (response["statusCode"], json.loads(response["body"])["code"]) == (
        422,
        "invalid_request",
    )


def test_the_jwt_subject_is_the_caller(engine):
    without_authorizer, authorized = event("transcribe"), event("transcribe")
    authorized["requestContext"]["authorizer"] = {"jwt": {"claims": {"sub": "ada"}, "scopes": None}}
    null_authorizer = event("transcribe")
    null_authorizer["requestContext"]["authorizer"] = None
    events = (without_authorizer, authorized, null_authorizer)
    responses = invoke(*events, OPENAI_BASE_URL=engine.url, AUTH="jwt")
    assert [response["statusCode"] for response in responses] == [401, 200, 401]


def test_on_lambda_a_token_is_required_by_default():
    (response,) = invoke(event("transcribe"), AUTH="", ACCESS_TOKEN="open-sesame")
    assert response["statusCode"] == 401
