"""Tests of client.py: upstream calls, their responses and errors, and retries."""

import contextlib
import socket
import ssl
import threading
from tempfile import TemporaryFile

import anyio
import anyio.to_thread
import httpx2
import openai
import pytest
import trustme
from anyio import wait_all_tasks_blocked

from handler.errors import (
    EmptyRecording,
    InvalidOption,
    RecordingTooLarge,
    UnreadableRecording,
    UpstreamBusy,
    UpstreamCredentials,
    UpstreamFailed,
    UpstreamModel,
    UpstreamQuota,
    UpstreamTimeout,
)
from handler.recordings.container import MP4, WEBM
from handler.services import build_services
from handler.transcripts.transcript import Segment, WordTime
from handler.upstream.client import UpstreamClient
from handler.upstream.models import OPENAI_URL, Models, Upstream
from tests.conftest import TODAY, settings
from tests.fake_upstream import FakeUpstream, error_response, transcript_response

pytestmark = pytest.mark.anyio

MODELS = Models("gpt-transcribe", (Upstream(OPENAI_URL),), lambda: TODAY)
MODEL = MODELS.get()
JSON = {"model": "gpt-transcribe", "response_format": "json"}
TIMED = {"model": "whisper-1", "response_format": "verbose_json"}


_opened = []


def on_disk(content):
    file = TemporaryFile()  # noqa: SIM115 - closed by the fixture _close_files
    _opened.append(file)
    file.write(content)
    file.seek(0)
    return file


@pytest.fixture(autouse=True)
def _close_files():
    yield
    while _opened:
        _opened.pop().close()


async def ready_client(transport, **overrides):
    return await build_services(settings(**overrides), transport=transport).clients[""].ready()


async def send(
    upstream, recording=b"sound", container=WEBM, parameters=JSON, seconds=20.0, **overrides
):
    speech = await ready_client(upstream, **overrides)
    return await speech.transcribe(
        on_disk(recording), container, MODELS.get(parameters["model"]), parameters, seconds
    )


async def test_the_request_has_the_canonical_file_name_and_type_and_the_key():
    upstream = FakeUpstream()
    await send(upstream, b"the bytes", MP4)
    (call,) = upstream.calls
    assert (call.filename, call.content_type, call.recording) == (
        "recording.m4a",
        "audio/mp4",
        b"the bytes",
    )
    assert call.fields == {"model": ["gpt-transcribe"], "response_format": ["json"]}
    assert call.authorization == "Bearer sk-test-key"


async def test_lists_are_sent_as_repeated_fields_with_brackets():
    upstream = FakeUpstream()
    await send(upstream, parameters={**JSON, "keywords": ["Steno", "Ada"], "languages": ["en"]})
    assert upstream.calls[0].fields["keywords[]"] == ["Steno", "Ada"]
    assert upstream.calls[0].fields["languages[]"] == ["en"]


@pytest.mark.parametrize("key", ["sk-test\u2026", "sk-te\nst"])
async def test_a_key_that_is_not_a_valid_header_value_is_a_credentials_error(key):
    upstream = FakeUpstream()
    with pytest.raises(UpstreamCredentials):
        await send(upstream, openai_api_key=key)
    assert not upstream.calls


@pytest.mark.parametrize(
    "parameters",
    [
        {
            **JSON,
            "prompt": "Beckett",
            "keywords": ["Ada", "B"],
            "languages": ["en", "fr"],
            "include": ["logprobs"],
        },
        {
            **TIMED,
            "language": "en",
            "temperature": 0.2,
            "timestamp_granularities": ["word", "segment"],
        },
        {
            **JSON,
            "chunking_strategy": "auto",
            "known_speaker_names": ["A"],
            "known_speaker_references": ["data:,x"],
        },
        {
            **JSON,
            "chunking_strategy": {
                "type": "server_vad",
                "threshold": 0.5,
                "silence_duration_ms": 200,
            },
        },
    ],
)
async def test_the_form_equals_that_of_the_openai_sdk(parameters):
    response = {"text": "Ever tried.", "segments": [{"start": 0, "end": 2, "text": "Ever tried."}]}
    ours, theirs = (FakeUpstream(httpx2.Response(200, json=response)) for _ in range(2))
    await send(ours, parameters=parameters)
    sdk = openai.OpenAI(
        api_key="sk-test-key", max_retries=0, http_client=httpx2.Client(transport=theirs)
    )
    sdk.audio.transcriptions.with_raw_response.create(
        file=("recording.webm", b"sound", "audio/webm"), **parameters
    )
    assert ours.calls == theirs.calls


async def test_the_response_is_converted_to_a_transcript():
    upstream = FakeUpstream(transcript_response(" Ever tried. ", languages=[{"code": "en"}]))
    transcript = await send(upstream)
    assert (transcript.text, transcript.model, transcript.language) == (
        "Ever tried.",
        "gpt-transcribe",
        "en",
    )
    assert transcript.duration == 3


async def test_timestamps_are_converted_to_segments():
    segments = [{"id": 0, "start": 0.5, "end": 2, "text": " Ever tried.", "speaker": "A"}]
    transcript = await send(
        FakeUpstream(transcript_response("Ever tried.", segments=segments, duration=2.5)),
        parameters=TIMED,
    )
    (segment,) = transcript.segments
    assert (segment.start, segment.end, segment.text, segment.speaker) == (
        0.5,
        2.0,
        " Ever tried.",
        "A",
    )
    assert transcript.duration == 2.5


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (error_response(400, "invalid_value", "file"), UnreadableRecording),
        (error_response(400), UnreadableRecording),
        (error_response(415), UnreadableRecording),
        (error_response(422), UnreadableRecording),
        (error_response(400, "audio_too_short", "file"), EmptyRecording),
        (error_response(400, "invalid_value", "languages"), InvalidOption),
        (error_response(400, None, "model"), UpstreamModel),
        (error_response(413), RecordingTooLarge),
        (error_response(401, "invalid_api_key"), UpstreamCredentials),
        (error_response(403), UpstreamCredentials),
        (error_response(403, "model_not_found"), UpstreamModel),
        (error_response(404, "model_not_found"), UpstreamModel),
        (error_response(429, "insufficient_quota"), UpstreamQuota),
        (error_response(429, "project_spend_limit_exceeded"), UpstreamQuota),
        (error_response(429, "organization_spend_limit_exceeded"), UpstreamQuota),
        (error_response(502), UpstreamFailed),
        (error_response(504), UpstreamTimeout),
        (error_response(520), UpstreamFailed),
        (error_response(418), UpstreamFailed),
        (error_response(429, x_should_retry="false"), UpstreamBusy),
        (httpx2.ReadError("reset"), UpstreamFailed),
        (httpx2.RemoteProtocolError("server disconnected"), UpstreamFailed),
        (httpx2.ReadTimeout("slow"), UpstreamTimeout),
        (httpx2.WriteTimeout("slow"), UpstreamTimeout),
        (httpx2.Response(200, text="<html>It works!</html>"), UpstreamFailed),
        (httpx2.Response(200, json={"words": 3}), UpstreamFailed),
        (httpx2.Response(200, json={"text": None}), UpstreamFailed),
        (httpx2.Response(200, json=["text"]), UpstreamFailed),
        (httpx2.Response(200, content=b"\xff\xfe"), UpstreamFailed),
        (httpx2.Response(200, content=b'{"text":' + b"[" * 100_000), UpstreamFailed),
        (
            lambda _: httpx2.Response(
                200, headers={"content-encoding": "gzip"}, stream=Bytes(b"no gzip")
            ),
            UpstreamFailed,
        ),
        (
            httpx2.Response(400, json={"error": {"message": "no", "param": ["a"]}}),
            UnreadableRecording,
        ),
    ],
)
async def test_permanent_and_possibly_billed_failures_are_not_retried(reply, error):
    upstream = FakeUpstream(reply)
    with pytest.raises(error) as failure:
        await send(upstream)
    assert type(failure.value) is error
    assert len(upstream.calls) == 1


NOT_BILLED = [
    (lambda: error_response(429, retry_after="0"), UpstreamBusy),
    (lambda: error_response(503, retry_after="0"), UpstreamBusy),
    (lambda: error_response(500, retry_after="0"), UpstreamFailed),
    (lambda: error_response(408, retry_after="0"), UpstreamTimeout),
    (lambda: error_response(502, retry_after="0", x_should_retry="true"), UpstreamFailed),
    (lambda: httpx2.ConnectError("refused"), UpstreamFailed),
]


@pytest.mark.parametrize(
    "reply",
    [
        *(reply for reply, _ in NOT_BILLED),
        lambda: httpx2.ConnectTimeout("no route"),
        lambda: httpx2.PoolTimeout("none free"),
        lambda: error_response(500),
    ],
)
async def test_a_failure_that_was_not_billed_is_retried_with_the_whole_recording(reply):
    upstream = FakeUpstream(reply())
    assert (await send(upstream, b"the bytes")).text == "Ever tried."
    assert [call.recording for call in upstream.calls] == [b"the bytes"] * 2


@pytest.mark.parametrize(("reply", "error"), NOT_BILLED)
async def test_after_three_attempts_the_error_is_safe_to_retry(reply, error):
    upstream = FakeUpstream(*(reply() for _ in range(9)))
    with pytest.raises(error) as failure:
        await send(upstream)
    assert failure.value.safe_to_retry
    assert len(upstream.calls) == 3


async def test_a_wait_beyond_the_deadline_is_returned_to_the_caller():
    upstream = FakeUpstream(error_response(429, retry_after="30"))
    with pytest.raises(UpstreamBusy) as failure:
        await send(upstream, seconds=5)
    assert (len(upstream.calls), failure.value.retry_after) == (1, 30)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "Fri, 31 Dec 2199 23:59:59 GMT"}, 86_400),
        ({"retry_after": "9" * 400}, 86_400),
        ({"retry_after": "30.5"}, 30.5),
        ({"retry_after_ms": "31500", "retry_after": "99"}, 31.5),
    ],
)
async def test_retry_after_may_be_a_fraction_milliseconds_or_a_date_and_is_at_most_a_day(
    headers, seconds
):
    with pytest.raises(UpstreamBusy) as failure:
        await send(FakeUpstream(error_response(503, **headers)))
    assert failure.value.retry_after == seconds


async def test_the_default_wait_is_five_seconds():
    with pytest.raises(UpstreamBusy) as failure:
        await send(FakeUpstream(error_response(503)), seconds=2)
    assert failure.value.retry_after == 5


async def test_the_upstream_message_and_request_id_are_passed_on_without_keys():
    body = {
        "error": {"message": "Incorrect API key provided: sk-proj-abc**xyz. Bearer sk-live_123"}
    }
    reply = httpx2.Response(401, json=body, headers={"x-request-id": "req_7"})
    with pytest.raises(UpstreamCredentials) as failure:
        await send(FakeUpstream(reply))
    assert "Incorrect API key provided: [key]" in failure.value.detail
    assert "req_7" in failure.value.detail
    assert "sk-" not in failure.value.detail


async def test_a_key_with_another_prefix_is_removed():
    body = {"error": {"message": "gsk_abcdefgh1234 is not a key"}}
    with pytest.raises(UpstreamCredentials) as failure:
        await send(FakeUpstream(httpx2.Response(401, json=body)), openai_api_key="gsk_abcdefgh1234")
    assert "gsk" not in failure.value.detail


async def test_an_html_page_is_not_passed_on():
    with pytest.raises(UpstreamFailed) as failure:
        await send(FakeUpstream(httpx2.Response(502, html="<html>nginx</html>")))
    assert "HTTP 502" in failure.value.detail
    assert "nginx" not in failure.value.detail


async def test_missing_timestamps_are_a_failure():
    with pytest.raises(UpstreamFailed):
        await send(FakeUpstream(transcript_response("Ever tried.")), parameters=TIMED)


@pytest.mark.parametrize(
    "segment",
    [
        '{"start": 0, "end": NaN, "text": "Ever"}',
        '{"start": 0, "end": Infinity, "text": "Ever"}',
        '{"start": 1e400, "end": 2, "text": "Ever"}',
        '{"start": 1e9, "end": 2e9, "text": "Ever"}',
        f'{{"start": 0, "end": 1{"0" * 400}, "text": "Ever"}}',
        '{"start": 0, "end": 1, "text": null}',
        '{"start": 0, "end": 1, "text": 5}',
    ],
)
async def test_invalid_segments_are_a_failure(segment):
    body = f'{{"text": "Ever", "segments": [{segment}]}}'
    with pytest.raises(UpstreamFailed, match="not valid verbose_json"):
        await send(FakeUpstream(httpx2.Response(200, text=body)), parameters=TIMED)


async def test_segments_are_sorted_by_time_and_end_after_they_start():
    segments = [{"start": 3, "end": 2, "text": "tried."}, {"start": -1, "end": 2, "text": "Ever"}]
    transcript = await send(
        FakeUpstream(transcript_response("Ever tried.", segments=segments)), parameters=TIMED
    )
    assert transcript.segments == (Segment(0.0, 2.0, "Ever"), Segment(3.0, 3.0, "tried."))


async def test_the_end_of_a_segment_has_a_limit():
    segments = [{"start": 0, "end": 1e308, "text": "Ever"}]
    transcript = await send(
        FakeUpstream(transcript_response("Ever", segments=segments)), parameters=TIMED
    )
    assert transcript.segments == (Segment(0.0, 1e6, "Ever"),)


async def test_word_timestamps_alone_are_accepted():
    words = [{"word": "Ever", "start": 0.1, "end": 0.4}]
    transcript = await send(
        FakeUpstream(transcript_response("Ever", words=words)), parameters=TIMED
    )
    assert transcript.segments == (Segment(0.1, 0.4, "Ever", words=(WordTime("Ever", 0.1, 0.4),)),)


async def test_silence_has_no_segments_and_is_no_failure():
    assert (
        await send(FakeUpstream(transcript_response("", segments=[])), parameters=TIMED)
    ).text == ""


async def test_the_limiter_admits_the_configured_number_of_calls_instead_of_40():
    together = threading.Barrier(60)

    def wait_for_all(_request):
        together.wait(timeout=10)  # times out if fewer than 60 calls run concurrently
        return transcript_response("Ever tried.")

    speech = (
        await build_services(
            settings(max_concurrent_calls=60), transport=httpx2.MockTransport(wait_for_all)
        )
        .clients[""]
        .ready()
    )
    async with anyio.create_task_group() as tasks:
        for _ in range(60):
            tasks.start_soon(speech.transcribe, on_disk(b"sound"), WEBM, MODEL, JSON, 20.0)


async def test_the_limiter_admits_no_more_than_the_configured_number_of_calls():
    running, most, lock, gate, full = 0, 0, threading.Lock(), threading.Event(), threading.Event()

    def count(_request):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 2:
                full.set()
        gate.wait(10)
        with lock:
            running -= 1
        return transcript_response("Ever tried.")

    speech = (
        await build_services(
            settings(max_concurrent_calls=2), transport=httpx2.MockTransport(count)
        )
        .clients[""]
        .ready()
    )
    async with anyio.create_task_group() as tasks:
        for _ in range(30):
            tasks.start_soon(speech.transcribe, on_disk(b"sound"), WEBM, MODEL, JSON, 20.0)
        await wait_all_tasks_blocked()
        assert await anyio.to_thread.run_sync(full.wait, 10)
        gate.set()
    assert most == 2


async def test_a_call_that_times_out_in_the_limiter_is_safe_to_retry():
    release = threading.Event()

    def hold(_request):
        release.wait(10)
        return transcript_response("Ever tried.")

    speech = await ready_client(httpx2.MockTransport(hold), max_concurrent_calls=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(speech.transcribe, on_disk(b"sound"), WEBM, MODEL, JSON, 20.0)
        await wait_all_tasks_blocked()
        with pytest.raises(UpstreamBusy) as failure:
            await speech.transcribe(on_disk(b"sound"), WEBM, MODEL, JSON, 0.1)
        assert failure.value.safe_to_retry
        release.set()


async def test_a_hanging_call_is_abandoned_at_the_deadline():
    abandoned, ended = threading.Event(), threading.Event()

    def hang(_request):
        abandoned.wait(10)
        ended.set()
        return transcript_response("too late")

    with pytest.raises(UpstreamTimeout):
        await send(httpx2.MockTransport(hang), seconds=0.1)
    assert not ended.is_set()
    abandoned.set()


class SlowKey:
    """A key source whose method `renew` waits until the test sets `read`.

    If `slow` is "get", the method `get` waits too.
    """

    def __init__(self, slow):
        self._slow = slow
        self.read = threading.Event()
        self.read_started = threading.Event()

    def get(self):
        if self._slow == "get":
            self._wait()
        return "sk-test-key"

    def renew(self, _refused):
        self._wait()
        return True

    def _wait(self):
        self.read_started.set()
        self.read.wait(10)


@pytest.mark.parametrize(("slow", "calls"), [("get", 0), ("renew", 1)])
@pytest.mark.parametrize("ended", ["at its deadline", "by its caller"])
async def test_a_call_that_is_abandoned_while_its_key_is_read_sends_nothing(slow, calls, ended):
    upstream, key = FakeUpstream(error_response(401, "invalid_api_key")), SlowKey(slow)
    if slow == "get":
        upstream.replies.clear()
    speech = UpstreamClient(key, "http://upstream/v1", 1, transport=upstream)
    deadline_seconds = 0.05 if ended == "at its deadline" else 20
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(expect_busy, speech, deadline_seconds)
            assert await anyio.to_thread.run_sync(key.read_started.wait, 10)
            if ended == "by its caller":
                scope.cancel()
    key.read.set()
    # There is only one thread, so the abandoned call ends before the next one runs.
    transcript = await speech.transcribe(on_disk(b"sound"), WEBM, MODEL, JSON, 20.0)
    assert transcript.text == "Ever tried."
    assert len(upstream.calls) == calls + 1


async def expect_busy(speech, seconds):
    with pytest.raises(UpstreamBusy, match="no time left") as failure:
        await speech.transcribe(on_disk(b"sound"), WEBM, MODEL, JSON, seconds)
    assert failure.value.safe_to_retry


async def test_the_timeouts_of_a_call_end_at_the_deadline():
    timeouts = []

    def record_timeout(request):
        timeouts.append(request.extensions["timeout"])
        return transcript_response("Ever tried.")

    await send(httpx2.MockTransport(record_timeout), seconds=3)
    assert 0 < timeouts[0]["read"] <= 3
    assert 0 < timeouts[0]["connect"] <= 3


class Bytes(httpx2.SyncByteStream):
    def __init__(self, content):
        self._content = content

    def __iter__(self):
        yield self._content


class SlowBody(httpx2.SyncByteStream):
    """A response body that arrives byte by byte for 10 s, so that no single read times out."""

    def __init__(self):
        self.closed = threading.Event()

    def __iter__(self):
        for _ in range(1000):
            self.closed.wait(0.01)
            yield b" "

    def close(self):
        self.closed.set()


@pytest.mark.parametrize("status", [200, 400])
async def test_a_slow_response_body_is_closed_at_the_deadline(status):
    body = SlowBody()
    with pytest.raises(UpstreamTimeout):
        await send(FakeUpstream(httpx2.Response(status, stream=body)), seconds=0.1)
    assert await anyio.to_thread.run_sync(body.closed.wait, 5)


async def test_a_response_over_the_size_limit_is_a_failure():
    endless = httpx2.Response(200, stream=Bytes(bytes(33_000_000)))
    with pytest.raises(UpstreamFailed, match="too long"):
        await send(FakeUpstream(endless))


async def test_every_call_opens_a_new_connection():
    connections = []

    def serve(listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=respond, args=(connection,), daemon=True).start()

    def respond(connection):
        """Respond to every request and keep the connection open."""
        body = b'{"text": "Ever tried."}'
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with connection, contextlib.suppress(OSError):
            while connection.recv(1_000_000):
                connection.sendall(head.encode() + body)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        speech = (
            await build_services(
                settings(openai_base_url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
            )
            .clients[""]
            .ready()
        )
        for _ in range(3):
            await speech.transcribe(on_disk(b"sound"), WEBM, MODEL, JSON, 20.0)
        listener.shutdown(socket.SHUT_RDWR)
    assert len(connections) == 3


async def test_an_unreachable_upstream_is_reported():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UpstreamFailed, match="cannot be reached"):
        await send(None, openai_base_url=f"http://127.0.0.1:{port}/v1")


async def test_an_untrusted_certificate_is_not_retried():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connections.append(1)
                try:
                    with context.wrap_socket(connection, server_side=True) as tls:
                        tls.recv(1)
                except OSError:
                    pass

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(UpstreamFailed, match="certificate"):
            await send(None, openai_base_url=f"https://127.0.0.1:{listener.getsockname()[1]}/v1")
        listener.shutdown(socket.SHUT_RDWR)
    assert len(connections) == 1


async def test_a_connection_that_breaks_during_the_response_is_not_retried(engine):
    engine.script({"body": {"text": "x" * 100}, "broken": True, "times": 3})
    with pytest.raises(UpstreamFailed) as failure:
        await send(None, openai_base_url=engine.url)
    assert not failure.value.safe_to_retry
    assert len(engine.calls()) == 1
