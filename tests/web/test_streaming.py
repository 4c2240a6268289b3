"""Tests of `stream=true`: OpenAI's SDK reads server-sent events while the recording is transcribed.

The tests control when the upstream responds, so no test depends on timing.
"""

import asyncio
import base64
import contextlib
import json
import math
import threading
from io import BytesIO

import httpx2
import openai
import pytest
from fastapi import FastAPI, Request
from mangum import Mangum

from handler.jobs.job import ANONYMOUS, Job
from handler.jobs.parts import PartTranscript, text_without_gaps
from handler.services import build_services
from handler.transcription.options import OpenAIOptions
from handler.transcripts.transcript import Transcript
from handler.web.gateway import Gateway
from handler.web.streaming import live_response
from tests.conftest import app, serving, settings
from tests.fake_upstream import FakeUpstream, error_response, transcript_response
from tests.harness import run_concurrently
from tests.samples import long_recording, recording

ROUTE = "/v1/audio/transcriptions"
MODEL = "gpt-4o-transcribe"
USAGE = {"type": "tokens", "input_tokens": 30, "output_tokens": 4, "total_tokens": 34}
DONE = {"type": "transcript.text.done", "text": "Ever tried.", "usage": USAGE}


def delta(text):
    return {"type": "transcript.text.delta", "delta": text}


def sse(*events):
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()


def streamed(*chunks, **headers):
    """Return a streamed response. A chunk is an event, bytes, an exception, or a call to wait."""

    def content():
        for chunk in chunks:
            if isinstance(chunk, Exception):
                raise chunk
            if callable(chunk):
                chunk()
            else:
                yield chunk if isinstance(chunk, bytes) else sse(chunk)

    headers = {"content-type": "text/event-stream", **headers}
    return lambda _request: httpx2.Response(200, headers=headers, content=content())


@contextlib.contextmanager
def sdk(application):
    """Yield OpenAI's client for the application, which runs on uvicorn."""
    with (
        serving(application) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="anything", max_retries=0) as client,
    ):
        yield client


def stream(client, content=None, **options):
    options = {"model": MODEL, **options}
    file = recording("webm") if content is None else content
    return client.audio.transcriptions.create(file=("a.webm", file), stream=True, **options)


def text_of(events):
    return "".join(event.delta for event in events if event.type == "transcript.text.delta")


def wait(event):
    assert event.wait(timeout=20)


def test_a_delta_arrives_before_the_upstream_has_sent_the_next_one():
    first_was_read = threading.Event()
    upstream = FakeUpstream(
        streamed(delta("Ever"), lambda: wait(first_was_read), delta(" tried."), DONE)
    )
    with sdk(app(upstream)) as client:
        events = iter(stream(client))
        assert next(events).delta == "Ever"
        first_was_read.set()
        rest = list(events)
    assert "Ever" + text_of(rest) == rest[-1].text == "Ever tried."
    assert rest[-1].usage.to_dict() == USAGE
    assert upstream.calls[0].fields["stream"] == ["true"]


@pytest.mark.anyio
async def test_the_asynchronous_sdk_reads_the_same_events():
    upstream = FakeUpstream(streamed(delta("Ever"), delta(" tried."), DONE))
    with serving(app(upstream)) as url:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="anything") as client:
            events = [event async for event in await stream(client)]
    assert text_of(events) == events[-1].text == "Ever tried."


def test_a_model_that_does_not_stream_sends_its_text_at_the_end():
    upstream = FakeUpstream(transcript_response("Ever tried.", languages=[{"code": "en"}]))
    with sdk(app(upstream)) as client:
        events = list(stream(client, model="gpt-transcribe"))
    assert text_of(events) == events[-1].text == "Ever tried."
    assert events[-1].to_dict()["languages"] == [{"code": "en"}]
    assert "stream" not in upstream.calls[0].fields


def test_the_text_of_a_job_arrives_part_by_part(server):
    """The second part is transcribed only after the text of the first part was read."""
    upstream = FakeUpstream(transcript_response("Ever tried."), transcript_response("Ever failed."))
    harness = server(upstream, idle=True)
    options = {"model": "gpt-transcribe", "response_format": "verbose_json"}
    events, has_first = [], threading.Event()
    with sdk(harness.app) as client:

        def read():
            for event in stream(client, long_recording("ogg", 80), **options):
                events.append(event)
                has_first.set()

        thread = threading.Thread(target=read)
        thread.start()
        harness.handle(*harness.messages(wait=20))
        parts = sorted(
            harness.part_messages(), key=lambda part: json.loads(part["body"])["part"]["number"]
        )
        harness.handle(parts[0])
        wait(has_first)
        assert text_of(events) == "Ever tried."
        for part in parts[1:]:
            harness.handle(part)
        thread.join(timeout=20)
    assert events[-1].type == "transcript.text.done"
    assert text_of(events) == events[-1].text
    assert events[-1].text.startswith("Ever tried. Ever failed.")
    segments = [event for event in events if event.type == "transcript.text.segment"]
    assert " ".join(segment.text for segment in segments) == events[-1].text


class OnLambda(httpx2.BaseTransport):
    """Passes each request as an event of an HTTP API to the app's Lambda handler."""

    def __init__(self, application):
        self._application = application

    def handle_request(self, request):
        event = {
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": request.url.path,
            "rawQueryString": "",
            "headers": dict(request.headers),
            "requestContext": {
                "http": {
                    "method": request.method,
                    "path": request.url.path,
                    "sourceIp": "127.0.0.1",
                }
            },
            "body": base64.b64encode(request.read()).decode(),
            "isBase64Encoded": True,
        }
        (response,) = run_concurrently(lambda: self._invoke(event))
        assert response["isBase64Encoded"] is False
        return httpx2.Response(
            response["statusCode"], headers=response["headers"], text=response["body"]
        )

    def _invoke(self, event):
        with asyncio.Runner() as runner:
            asyncio.set_event_loop(runner.get_loop())  # Mangum uses the loop of its thread
            handler = Mangum(
                self._application,
                lifespan="off",
                custom_handlers=[Gateway],
                text_mime_types=["text/", "application/json"],
            )
            return handler(event, None)


@pytest.mark.parametrize("model", [MODEL, "gpt-transcribe"])
def test_on_lambda_the_same_events_arrive_at_the_end(model):
    upstream = FakeUpstream()
    client = openai.OpenAI(
        base_url="https://steno.example/v1",
        api_key="anything",
        http_client=httpx2.Client(transport=OnLambda(app(upstream))),
    )
    events = list(stream(client, model=model))
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert text_of(events) == events[-1].text == "Ever tried."
    assert "stream" not in upstream.calls[0].fields


def test_on_lambda_a_job_that_is_not_finished_is_a_503_and_the_next_try_joins_it(server):
    harness = server(idle=True, request_deadline_seconds=0.5)
    client = openai.OpenAI(
        base_url="https://steno.example/v1",
        api_key="anything",
        max_retries=0,
        http_client=httpx2.Client(transport=OnLambda(harness.app)),
    )
    options = {"model": "gpt-transcribe", "response_format": "verbose_json"}
    content = recording("webm")
    with pytest.raises(openai.InternalServerError) as error:
        stream(client, content, **options)
    assert error.value.response.headers["x-should-retry"] == "true"
    harness.run_worker()
    events = list(stream(client, content, **options))
    assert text_of(events) == events[-1].text == "Ever tried."


def test_a_client_that_disconnects_pays_once_and_gets_the_transcript_at_its_next_try(
    server, caplog
):
    has_disconnected = threading.Event()
    upstream = FakeUpstream(
        streamed(delta("Ever"), lambda: wait(has_disconnected), delta(" tried."), DONE)
    )
    content = recording("webm")
    with sdk(server(upstream).app) as client:
        events = stream(client, content)
        assert next(iter(events)).delta == "Ever"
        events.close()
        has_disconnected.set()
        again = list(stream(client, content))
    assert text_of(again) == again[-1].text == "Ever tried."
    assert again[-1].usage.to_dict() == USAGE
    assert len(upstream.calls) == 1
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_streamed_transcript_is_not_billed_again_without_stream(server):
    upstream = FakeUpstream(streamed(delta("Ever"), delta(" tried."), DONE))
    harness, content = server(upstream), recording("webm")
    for form in ({"stream": "true"}, {"stream": "false"}):
        response = harness.send(content, ROUTE, model=MODEL, **form)
    assert response.json() == {"text": "Ever tried.", "usage": USAGE}
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (error_response(401), 502, "upstream_credentials"),
        (streamed(b"data: {\n\n"), 502, "upstream_failed"),
        (streamed(sse({"error": {"message": "no more sk-test-key"}})), 502, "upstream_failed"),
        (streamed(), 502, "upstream_failed"),
    ],
)
def test_a_failure_before_the_first_event_has_an_error_status(client, webm, reply, status, code):
    form = {"model": MODEL, "stream": "true"}
    response = client(FakeUpstream(reply)).post(ROUTE, files={"file": webm}, data=form)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert "sk-test-key" not in response.text


@pytest.mark.parametrize(
    "failure",
    [
        httpx2.ReadError("cut"),
        sse({"error": {"message": "overloaded"}}),
        sse({"type": "transcript.text.segment"}),
    ],
    ids=["connection", "error event", "incomplete segment"],
)
def test_a_failure_after_the_first_event_is_an_error_event(failure):
    upstream = FakeUpstream(streamed(delta("Ever"), failure))
    with sdk(app(upstream)) as client:
        events = iter(stream(client))
        assert next(events).delta == "Ever"
        with pytest.raises(openai.APIError) as error:
            list(events)
    assert error.value.code == "upstream_failed"
    assert len(upstream.calls) == 1


def test_an_upstream_that_ignores_stream_is_supported(client, webm):
    upstream = FakeUpstream(transcript_response("Ever tried."))
    form = {"model": MODEL, "stream": "true"}
    response = client(upstream).post(ROUTE, files={"file": webm}, data=form)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert '"text": "Ever tried."' in response.text
    assert upstream.calls[0].fields["stream"] == ["true"]


def test_speakers_are_streamed_as_segments():
    segment = {"id": "seg_7", "start": 0.5, "end": 1.5, "text": "Ever tried.", "speaker": "A"}
    upstream = FakeUpstream(
        streamed(delta("Ever tried."), {"type": "transcript.text.segment", **segment}, DONE)
    )
    with sdk(app(upstream)) as client:
        events = list(
            stream(client, model="gpt-4o-transcribe-diarize", response_format="diarized_json")
        )
    assert [event.type.rpartition(".")[2] for event in events] == ["delta", "segment", "done"]
    assert events[1].to_dict() == {**segment, "id": "seg_0", "type": "transcript.text.segment"}


def test_logprobs_are_in_the_last_event():
    logprobs = [{"token": "Ever", "logprob": -0.1}]
    upstream = FakeUpstream(streamed(delta("Ever tried."), {**DONE, "logprobs": logprobs}))
    with sdk(app(upstream)) as client:
        events = list(stream(client, include=["logprobs"]))
    assert events[-1].to_dict()["logprobs"] == logprobs


def test_whitespace_around_the_text_is_not_sent():
    done = {**DONE, "text": " Ever tried. "}
    upstream = FakeUpstream(streamed(delta(" Ever"), delta(" "), delta("tried. "), done))
    with sdk(app(upstream)) as client:
        events = list(stream(client))
    assert text_of(events) == events[-1].text == "Ever tried."


def test_silence_is_only_the_last_event():
    with sdk(app(FakeUpstream(streamed({**DONE, "text": ""})))) as client:
        events = list(stream(client))
    assert [(event.type, event.text) for event in events] == [("transcript.text.done", "")]


def test_comments_keep_an_idle_connection_open():
    release = threading.Event()
    application = FastAPI()

    @application.get("/")
    async def idle(request: Request):
        async def transcribe(_listener):
            await asyncio.to_thread(wait, release)
            return Transcript("Ever tried.", "gpt-transcribe")

        return await live_response(request, transcribe, "json", keep_alive_seconds=0.01)

    with serving(application) as url, httpx2.stream("GET", url) as response:
        lines = response.iter_lines()
        assert next(lines) == ": keep-alive"
        release.set()
        assert any('"delta": "Ever tried."' in line for line in lines)


@pytest.mark.parametrize(
    "form",
    [
        {"response_format": "srt"},
        {"response_format": "vtt"},
        {"response_format": "verbose_json", "timestamp_granularities[]": "word"},
    ],
)
def test_formats_that_have_no_events_are_rejected(client, webm, form):
    upstream = FakeUpstream()
    response = client(upstream).post(
        ROUTE, files={"file": webm}, data={"stream": "true", "model": "whisper-1", **form}
    )
    assert (response.status_code, response.json()["error"]["param"]) == (422, "stream")
    assert upstream.calls == []


def part(number, start, text, samples):
    return PartTranscript(number, start, text, samples=samples)


def test_the_text_of_a_job_ends_before_its_first_missing_part():
    first, second, third = (
        part(0, 0, "One.", 10),
        part(1, 10, "Two.", 10),
        part(2, 20, "Three.", 10),
    )
    assert text_without_gaps([first, third]) == "One."
    assert text_without_gaps([third, second]) == ""
    assert text_without_gaps([first, second, third]) == "One. Two. Three."


def test_the_text_of_a_split_part_ends_before_its_first_missing_piece():
    whole = part(0, 0, "", 0)
    pieces = part(10_000, 0, "One.", 10), part(10_001, 10, "Two.", 10)
    after = part(1, 20, "Three.", 10)
    assert text_without_gaps([whole, after]) == ""
    assert text_without_gaps([whole, pieces[1], after]) == ""
    assert text_without_gaps([pieces[0], whole, after]) == "One."
    assert text_without_gaps([pieces[0], whole, pieces[1], after]) == "One. Two. Three."


@pytest.mark.parametrize("content_type", ["text/event-stream", "Text/Event-Stream; charset=utf-8"])
def test_the_media_type_of_a_stream_is_not_case_sensitive(client, webm, content_type):
    reply = streamed(delta("Ever tried."), DONE, **{"content-type": content_type})
    form = {"model": MODEL, "stream": "true"}
    response = client(FakeUpstream(reply)).post(ROUTE, files={"file": webm}, data=form)
    assert '"text": "Ever tried."' in response.text


def test_a_connection_that_is_cut_in_a_response_without_a_stream_is_an_upstream_failure(
    client, webm
):
    reply = streamed(b'{"text": ', httpx2.ReadError("cut"), **{"content-type": "application/json"})
    form = {"model": MODEL, "stream": "true"}
    response = client(FakeUpstream(reply)).post(ROUTE, files={"file": webm}, data=form)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_failed")


def test_the_last_event_has_the_complete_text_if_the_deltas_differ_from_it(caplog):
    upstream = FakeUpstream(streamed(delta("Ever"), delta("tried."), DONE))
    with sdk(app(upstream)) as client:
        events = list(stream(client))
    assert text_of(events) == "Evertried."
    assert events[-1].text == "Ever tried."
    assert "differs from the text" in caplog.text


def test_a_job_is_the_same_with_and_without_a_stream(server):
    harness, content = server(idle=True, request_deadline_seconds=0.5), recording("webm")
    options = {"model": "gpt-transcribe", "response_format": "verbose_json"}
    on_lambda = httpx2.Client(transport=OnLambda(harness.app))
    statuses = {
        on_lambda.post(
            f"https://steno.example{ROUTE}",
            files={"file": content},
            data={**options, "stream": stream},
        ).status_code
        for stream in ("true", "false")
    }
    assert statuses == {503}
    assert len({message["body"] for message in harness.messages()}) == 1  # has the job's id


async def disconnection(listener):
    while listener.is_connected:  # noqa: ASYNC110 - a listener has no event
        await asyncio.sleep(0.01)


def test_a_transcription_ends_before_the_server_stops_though_its_client_has_disconnected():
    seen = []
    application = FastAPI()

    @application.get("/")
    async def respond(request: Request):
        async def transcribe(listener):
            listener.update("Ever")
            await disconnection(listener)
            seen.append("disconnected")
            await asyncio.sleep(0.5)  # uvicorn notices within 0.1 s that it must stop
            seen.append("transcribed")
            return Transcript("Ever tried.", "gpt-transcribe")

        return await live_response(request, transcribe, "json")

    with serving(application) as url, httpx2.stream("GET", url) as response:
        assert "Ever" in next(response.iter_lines())
    assert seen == ["disconnected", "transcribed"]


@pytest.mark.parametrize("connected", [True, False])
def test_a_bug_during_a_stream_is_logged_with_its_traceback(connected, caplog):
    application = FastAPI()
    application.state.services = build_services(settings())

    @application.get("/")
    async def respond(request: Request):
        async def transcribe(listener):
            listener.update("Ever")
            await asyncio.sleep(0)
            if not connected:
                await disconnection(listener)
            raise KeyError("a bug")

        return await live_response(request, transcribe, "json")

    with serving(application) as url, httpx2.stream("GET", url) as response:
        if connected:
            assert "internal_error" in "".join(response.iter_text())
    (record,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert record.exc_info


class Disconnected:
    """A listener whose client has disconnected."""

    is_connected = False

    def update(self, text):
        raise AssertionError(text)


@pytest.mark.anyio
async def test_a_job_is_not_polled_any_more_after_its_client_has_disconnected(server):
    options = OpenAIOptions(model="gpt-transcribe", response_format="verbose_json")
    result = await server(idle=True).services.direct.transcribe(
        BytesIO(recording("webm")), options, ANONYMOUS, math.inf, Disconnected()
    )
    assert isinstance(result, Job)
