"""Tests of OpenAI's SDK for Node.js, and of requests of the Python SDK that take seconds.

The servers run on uvicorn. `test_deployment.py` sends the same requests to the deployed stack.
"""

import threading

import openai
import pytest

from handler.web.app import create_app
from tests.conftest import app, serving, settings
from tests.fake_upstream import FakeUpstream, transcript_response
from tests.openai_clients import (
    JOB,
    STREAM,
    WorkBetweenRequests,
    node_client,
    run_node_client,
    text_of,
)
from tests.samples import ASSETS, long_recording, recording
from tests.web.test_streaming import DONE, USAGE, delta, streamed, wait

BECKETT = ASSETS / "beckett.wav"
WORDS = "Ever tried. Ever failed."


@pytest.fixture
def voice(tmp_path):
    """Return the path of a recording of three seconds."""
    path = tmp_path / "voice.webm"
    path.write_bytes(recording("webm"))
    return path


@pytest.mark.parametrize("as_stream", [True, False])
def test_the_node_sdk_transcribes_a_file(npm, server, engine, as_stream):
    request = {"params": {"model": "gpt-transcribe"}, "asStream": as_stream}
    with serving(server(openai_base_url=engine.url).app) as url:
        (response,) = run_node_client(npm, url, BECKETT, request)
    assert response["result"]["text"].startswith(WORDS)
    assert response["headers"]["steno-model"] == "gpt-transcribe"
    assert response["request_id"] == response["headers"]["x-request-id"] != ""


def test_the_node_sdk_reads_a_stream(npm, engine):
    with serving(create_app(settings(openai_base_url=engine.url))) as url:
        *events, done, end = run_node_client(npm, url, BECKETT, {"params": STREAM})
    assert done["type"] == "transcript.text.done"
    assert text_of(events) == done["text"]
    assert done["text"].startswith(WORDS)
    assert len(events) == len(done["text"].split())
    assert done["usage"] == {"type": "duration", "seconds": 10}
    assert end["headers"]["content-type"].startswith("text/event-stream")


def test_the_node_sdk_gets_a_delta_before_the_upstream_has_sent_the_next_one(npm, voice):
    first_was_read = threading.Event()
    upstream = FakeUpstream(
        streamed(delta("Ever"), lambda: wait(first_was_read), delta(" tried."), DONE)
    )
    with (
        serving(app(upstream)) as url,
        node_client(npm, url, voice, {"params": STREAM}) as lines,
    ):
        assert next(lines) == delta("Ever")
        first_was_read.set()
        second, done, _ = lines
    assert (second, done["text"], done["usage"]) == (delta(" tried."), "Ever tried.", USAGE)


def test_the_node_sdk_reads_the_stream_of_a_job_with_several_parts(npm, server, engine, tmp_path):
    path = tmp_path / "long.ogg"
    path.write_bytes(long_recording("ogg", 80))
    harness = server(openai_base_url=engine.url)
    with serving(harness.app) as url:
        params = {**JOB, "stream": True}
        *events, done, _ = run_node_client(npm, url, path, {"params": params})
    assert text_of(events) == done["text"]
    assert "It was the" in done["text"]
    segments = [event for event in events if event["type"] == "transcript.text.segment"]
    assert " ".join(segment["text"] for segment in segments) == done["text"]
    assert segments[-1]["end"] <= 80
    assert done["usage"] == {"type": "duration", "seconds": 80}
    assert len(engine.calls()) > 1


def test_the_node_sdk_gets_the_times_of_words(npm, server, engine):
    params = {**JOB, "timestamp_granularities": ["word"]}
    with serving(server(openai_base_url=engine.url).app) as url:
        (response,) = run_node_client(npm, url, BECKETT, {"params": params})
    words = response["result"]["words"]
    assert " ".join(word["word"] for word in words) == response["result"]["text"]
    assert "segments" not in response["result"]
    assert response["headers"]["steno-timestamps"] == "aligned"


def test_an_error_in_a_stream_is_an_error_of_the_node_sdk(npm, voice):
    broken = {"error": {"message": "overloaded"}}
    upstream = FakeUpstream(streamed(delta("Ever"), broken))
    with serving(app(upstream)) as url:
        first, error = run_node_client(npm, url, voice, {"params": STREAM})
    assert first == delta("Ever")
    assert (error["error"], error["code"]) == ("APIError", "upstream_failed")


def test_the_node_sdk_throws_its_errors(npm, server, engine, voice):
    right = {"apiKey": "right"}
    unknown = {"model": "gpt-transcribe", "temperature": 2}
    harness = server(openai_base_url=engine.url, auth="token", access_token="right")
    engine.script({"status": 401, "body": {"error": {"message": "no"}}, "times": 9})
    with serving(harness.app) as url:
        errors = run_node_client(
            npm,
            url,
            voice,
            {"params": {"model": "gpt-transcribe"}},
            {"params": {**STREAM, "response_format": "srt"}, "client": right},
            {"params": unknown, "client": right},
            {"params": {"model": "gpt-transcribe"}, "client": {**right, "maxRetries": 2}},
        )
    assert [
        (error["error"], error["status"], error["code"], error["param"]) for error in errors
    ] == [
        ("AuthenticationError", 401, "unauthorized", None),
        ("UnprocessableEntityError", 422, "invalid_option", "stream"),
        ("UnprocessableEntityError", 422, "invalid_option", "temperature"),
        ("InternalServerError", 502, "upstream_credentials", None),
    ]
    assert len({error["requestID"] for error in errors} - {None}) == 4
    assert len(engine.calls()) == 1


def test_the_node_sdk_retries_until_the_job_is_finished_and_pays_once(npm, server, engine):
    harness = server(openai_base_url=engine.url, idle=True, request_deadline_seconds=1)
    application = WorkBetweenRequests(harness.app, harness.run_worker)
    with serving(application) as url:
        (response,) = run_node_client(npm, url, BECKETT, {"params": JOB}, maxRetries=5)
    assert response["result"]["text"].startswith(WORDS)
    assert application.requests >= 2
    assert [call["seconds"] for call in engine.calls()] == [10]


def test_the_node_sdk_does_not_retry_if_its_file_is_a_stream(npm, server, voice):
    request = {"params": JOB, "asStream": True}
    with serving(server(idle=True, request_deadline_seconds=0.5).app) as url:
        (error,) = run_node_client(npm, url, voice, request, maxRetries=9)
    assert (error["error"], error["code"]) == ("InternalServerError", "upstream_busy")


def test_the_node_sdk_pays_once_if_it_times_out_and_tries_again(npm, server, voice):
    has_timed_out = threading.Event()

    def reply(_request):
        wait(has_timed_out)
        return transcript_response("Ever tried.")

    upstream = FakeUpstream(reply)
    params = {"model": "gpt-transcribe"}
    requests = {"params": params, "options": {"timeout": 500}}, {"params": params}
    with (
        serving(server(upstream).app) as url,
        node_client(npm, url, voice, *requests) as lines,
    ):
        assert next(lines)["error"] == "APIConnectionTimeoutError"
        has_timed_out.set()
        assert next(lines)["result"]["text"] == "Ever tried."
    assert len(upstream.calls) == 1


def test_the_python_sdk_retries_until_the_job_is_finished_and_pays_once(server, engine):
    harness = server(openai_base_url=engine.url, idle=True, request_deadline_seconds=1)
    application = WorkBetweenRequests(harness.app, harness.run_worker)
    with (
        serving(application) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="anything", max_retries=5) as client,
    ):
        response = client.audio.transcriptions.create(file=BECKETT, **JOB)
    assert response.text.startswith(WORDS)
    assert application.requests >= 2
    assert [call["seconds"] for call in engine.calls()] == [10]
