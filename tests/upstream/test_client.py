"""client.py: one call to the upstream, everything it can answer, and what is sent again."""

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
from handler.transcripts.transcript import Segment
from handler.upstream.client import UpstreamClient
from tests.conftest import settings
from tests.false_upstream import FalseUpstream, heard, refused

pytestmark = pytest.mark.anyio

JSON = {"model": "gpt-transcribe", "response_format": "json"}
TIMED = {"model": "whisper-1", "response_format": "verbose_json"}


_opened = []


def on_disk(content):
    file = TemporaryFile()  # noqa: SIM115 - closed when the test has ended
    _opened.append(file)
    file.write(content)
    file.seek(0)
    return file


@pytest.fixture(autouse=True)
def _closed():
    yield
    while _opened:
        _opened.pop().close()


async def built(transport, **given):
    return await build_services(settings(**given), transport=transport).client.ready()


async def send(
    upstream, recording=b"sound", container=WEBM, parameters=JSON, seconds=20.0, **given
):
    speech = await built(upstream, **given)
    return await speech.transcribe(on_disk(recording), container, parameters, seconds)


async def test_the_recording_goes_up_under_the_canonical_name_and_type_with_the_key():
    upstream = FalseUpstream()
    await send(upstream, b"the bytes", MP4)
    (call,) = upstream.calls
    assert (call.filename, call.content_type, call.recording) == (
        "recording.m4a",
        "audio/mp4",
        b"the bytes",
    )
    assert call.fields == {"model": ["gpt-transcribe"], "response_format": ["json"]}
    assert call.authorization == "Bearer sk-test-key"


async def test_lists_go_up_as_the_upstream_reads_them():
    upstream = FalseUpstream()
    await send(upstream, parameters={**JSON, "keywords": ["Steno", "Ada"], "languages": ["en"]})
    assert upstream.calls[0].fields["keywords[]"] == ["Steno", "Ada"]
    assert upstream.calls[0].fields["languages[]"] == ["en"]


@pytest.mark.parametrize("key", ["sk-test\u2026", "sk-te\nst"])
async def test_a_key_that_no_header_can_carry_is_the_owners_to_mend(key):
    upstream = FalseUpstream()
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
async def test_the_form_is_the_one_that_openais_own_sdk_sends(parameters):
    answer = {"text": "Ever tried.", "segments": [{"start": 0, "end": 2, "text": "Ever tried."}]}
    ours, theirs = (FalseUpstream(httpx2.Response(200, json=answer)) for _ in range(2))
    await send(ours, parameters=parameters)
    sdk = openai.OpenAI(
        api_key="sk-test-key", max_retries=0, http_client=httpx2.Client(transport=theirs)
    )
    sdk.audio.transcriptions.with_raw_response.create(
        file=("recording.webm", b"sound", "audio/webm"), **parameters
    )
    assert ours.calls == theirs.calls


async def test_the_answer_becomes_a_transcript():
    upstream = FalseUpstream(heard(" Ever tried. ", languages=[{"code": "en"}]))
    transcript = await send(upstream)
    assert (transcript.text, transcript.model, transcript.language) == (
        "Ever tried.",
        "gpt-transcribe",
        "en",
    )
    assert transcript.duration == 3


async def test_times_become_segments():
    segments = [{"id": 0, "start": 0.5, "end": 2, "text": " Ever tried.", "speaker": "A"}]
    transcript = await send(
        FalseUpstream(heard("Ever tried.", segments=segments, duration=2.5)), parameters=TIMED
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
        (refused(400, "invalid_value", "file"), UnreadableRecording),
        (refused(400), UnreadableRecording),
        (refused(415), UnreadableRecording),
        (refused(422), UnreadableRecording),
        (refused(400, "audio_too_short", "file"), EmptyRecording),
        (refused(400, "invalid_value", "languages"), InvalidOption),
        (refused(400, None, "model"), UpstreamModel),
        (refused(413), RecordingTooLarge),
        (refused(401, "invalid_api_key"), UpstreamCredentials),
        (refused(403), UpstreamCredentials),
        (refused(403, "model_not_found"), UpstreamModel),
        (refused(404, "model_not_found"), UpstreamModel),
        (refused(429, "insufficient_quota"), UpstreamQuota),
        (refused(429, "project_spend_limit_exceeded"), UpstreamQuota),
        (refused(429, "organization_spend_limit_exceeded"), UpstreamQuota),
        (refused(502), UpstreamFailed),
        (refused(504), UpstreamTimeout),
        (refused(520), UpstreamFailed),
        (refused(418), UpstreamFailed),
        (refused(429, x_should_retry="false"), UpstreamBusy),
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
async def test_a_failure_that_a_new_try_would_not_mend_or_could_bill_twice_is_sent_once(
    reply, error
):
    upstream = FalseUpstream(reply)
    with pytest.raises(error) as failure:
        await send(upstream)
    assert type(failure.value) is error
    assert len(upstream.calls) == 1


NOT_BILLED = [
    (lambda: refused(429, retry_after="0"), UpstreamBusy),
    (lambda: refused(503, retry_after="0"), UpstreamBusy),
    (lambda: refused(500, retry_after="0"), UpstreamFailed),
    (lambda: refused(408, retry_after="0"), UpstreamTimeout),
    (lambda: refused(502, retry_after="0", x_should_retry="true"), UpstreamFailed),
    (lambda: httpx2.ConnectError("refused"), UpstreamFailed),
]


@pytest.mark.parametrize(
    "reply",
    [
        *(reply for reply, _ in NOT_BILLED),
        lambda: httpx2.ConnectTimeout("no route"),
        lambda: httpx2.PoolTimeout("none free"),
        lambda: refused(500),
    ],
)
async def test_what_cannot_have_been_billed_is_sent_again_and_the_whole_recording_with_it(reply):
    upstream = FalseUpstream(reply())
    assert (await send(upstream, b"the bytes")).text == "Ever tried."
    assert [call.recording for call in upstream.calls] == [b"the bytes"] * 2


@pytest.mark.parametrize(("reply", "error"), NOT_BILLED)
async def test_after_three_attempts_the_caller_may_try_again_later(reply, error):
    upstream = FalseUpstream(*(reply() for _ in range(9)))
    with pytest.raises(error) as failure:
        await send(upstream)
    assert failure.value.safe_to_retry
    assert len(upstream.calls) == 3


async def test_nothing_is_sent_again_after_the_deadline_and_the_caller_learns_the_wait():
    upstream = FalseUpstream(refused(429, retry_after="30"))
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
async def test_a_wait_may_be_a_fraction_milliseconds_or_a_date_and_is_a_day_at_most(
    headers, seconds
):
    with pytest.raises(UpstreamBusy) as failure:
        await send(FalseUpstream(refused(503, **headers)))
    assert failure.value.retry_after == seconds


async def test_a_wait_that_is_not_said_is_five_seconds():
    with pytest.raises(UpstreamBusy) as unsaid:
        await send(FalseUpstream(refused(503)), seconds=2)
    assert unsaid.value.retry_after == 5


async def test_the_reason_and_the_request_id_are_passed_on_without_keys():
    body = {
        "error": {"message": "Incorrect API key provided: sk-proj-abc**xyz. Bearer sk-live_123"}
    }
    reply = httpx2.Response(401, json=body, headers={"x-request-id": "req_7"})
    with pytest.raises(UpstreamCredentials) as failure:
        await send(FalseUpstream(reply))
    assert "Incorrect API key provided: [key]" in failure.value.detail
    assert "req_7" in failure.value.detail
    assert "sk-" not in failure.value.detail


async def test_a_key_of_another_make_is_kept_back_too():
    body = {"error": {"message": "gsk_abcdefgh1234 is not a key"}}
    with pytest.raises(UpstreamCredentials) as failure:
        await send(
            FalseUpstream(httpx2.Response(401, json=body)), openai_api_key="gsk_abcdefgh1234"
        )
    assert "gsk" not in failure.value.detail


async def test_a_page_of_html_is_not_passed_on():
    with pytest.raises(UpstreamFailed) as failure:
        await send(FalseUpstream(httpx2.Response(502, html="<html>nginx</html>")))
    assert "HTTP 502" in failure.value.detail
    assert "nginx" not in failure.value.detail


async def test_times_that_were_asked_for_and_did_not_come_are_a_failure():
    with pytest.raises(UpstreamFailed):
        await send(FalseUpstream(heard("Ever tried.")), parameters=TIMED)


@pytest.mark.parametrize(
    "segment",
    [
        '{"start": 0, "end": NaN, "text": "Ever"}',
        '{"start": 0, "end": Infinity, "text": "Ever"}',
        '{"start": 1e400, "end": 2, "text": "Ever"}',
        '{"start": 1e9, "end": 2e9, "text": "Ever"}',
        '{"start": 0, "end": 1, "text": null}',
        '{"start": 0, "end": 1, "text": 5}',
    ],
)
async def test_times_and_texts_that_are_none_are_a_failure(segment):
    body = f'{{"text": "Ever", "segments": [{segment}]}}'
    with pytest.raises(UpstreamFailed, match="no verbose_json"):
        await send(FalseUpstream(httpx2.Response(200, text=body)), parameters=TIMED)


async def test_segments_are_in_the_order_of_their_times_and_end_after_they_begin():
    segments = [{"start": 3, "end": 2, "text": "tried."}, {"start": -1, "end": 2, "text": "Ever"}]
    transcript = await send(
        FalseUpstream(heard("Ever tried.", segments=segments)), parameters=TIMED
    )
    assert transcript.segments == (Segment(0.0, 2.0, "Ever"), Segment(3.0, 3.0, "tried."))


async def test_times_of_words_alone_are_times():
    words = [{"word": "Ever", "start": 0.1, "end": 0.4}]
    transcript = await send(FalseUpstream(heard("Ever", words=words)), parameters=TIMED)
    assert transcript.answer["words"] == words


async def test_silence_has_no_segments_and_is_no_failure():
    assert (await send(FalseUpstream(heard("", segments=[])), parameters=TIMED)).text == ""


async def test_the_limiter_admits_as_many_calls_as_the_setting_says_and_not_the_default_40():
    together = threading.Barrier(60)

    def wait_for_all(_request):
        together.wait(timeout=10)  # broken, and so 60 failures, if fewer than 60 ever run at once
        return heard("Ever tried.")

    speech = await build_services(
        settings(max_concurrent_calls=60), transport=httpx2.MockTransport(wait_for_all)
    ).client.ready()
    async with anyio.create_task_group() as tasks:
        for _ in range(60):
            tasks.start_soon(speech.transcribe, on_disk(b"sound"), WEBM, JSON, 20.0)


async def test_the_limiter_admits_no_more_calls_than_the_setting_says():
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
        return heard("Ever tried.")

    speech = await build_services(
        settings(max_concurrent_calls=2), transport=httpx2.MockTransport(count)
    ).client.ready()
    async with anyio.create_task_group() as tasks:
        for _ in range(30):
            tasks.start_soon(speech.transcribe, on_disk(b"sound"), WEBM, JSON, 20.0)
        await wait_all_tasks_blocked()
        assert await anyio.to_thread.run_sync(full.wait, 10)
        gate.set()
    assert most == 2


async def test_a_recording_that_only_waited_its_turn_was_not_sent_and_may_come_again():
    release = threading.Event()

    def hold(_request):
        release.wait(10)
        return heard("Ever tried.")

    speech = await built(httpx2.MockTransport(hold), max_concurrent_calls=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(speech.transcribe, on_disk(b"sound"), WEBM, JSON, 20.0)
        await wait_all_tasks_blocked()
        with pytest.raises(UpstreamBusy) as failure:
            await speech.transcribe(on_disk(b"sound"), WEBM, JSON, 0.1)
        assert failure.value.safe_to_retry
        release.set()


async def test_a_call_that_hangs_is_given_up_at_the_deadline():
    given_up, ended = threading.Event(), threading.Event()

    def hang(_request):
        given_up.wait(10)
        ended.set()
        return heard("too late")

    with pytest.raises(UpstreamTimeout):
        await send(httpx2.MockTransport(hang), seconds=0.1)
    assert not ended.is_set()
    given_up.set()


class SlowKey:
    """A key whose reading, or whose reading again, ends when the test says so."""

    def __init__(self, slow):
        self._slow = slow
        self.read = threading.Event()
        self.asked = threading.Event()

    def get(self):
        if self._slow == "get":
            self._wait()
        return "sk-test-key"

    def renew(self, _refused):
        self._wait()
        return True

    def _wait(self):
        self.asked.set()
        self.read.wait(10)


@pytest.mark.parametrize(("slow", "calls"), [("get", 0), ("renew", 1)])
@pytest.mark.parametrize("ended", ["at its deadline", "by its caller"])
async def test_a_call_that_was_given_up_while_its_key_was_read_sends_nothing_afterwards(
    slow, calls, ended
):
    upstream, key = FalseUpstream(refused(401, "invalid_api_key")), SlowKey(slow)
    if slow == "get":
        upstream.replies.clear()
    speech = UpstreamClient(key, "http://upstream/v1", 1, transport=upstream)
    waits = 0.05 if ended == "at its deadline" else 20
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(expect_busy, speech, waits)
            assert await anyio.to_thread.run_sync(key.asked.wait, 10)
            if ended == "by its caller":
                scope.cancel()
    key.read.set()
    assert (
        await speech.transcribe(on_disk(b"sound"), WEBM, JSON, 20.0)
    ).text == "Ever tried."  # by the same thread
    assert len(upstream.calls) == calls + 1


async def expect_busy(speech, seconds):
    with pytest.raises(UpstreamBusy, match="no time left") as failure:
        await speech.transcribe(on_disk(b"sound"), WEBM, JSON, seconds)
    assert failure.value.safe_to_retry


async def test_the_upstream_is_given_no_longer_than_the_deadline():
    timeouts = []

    def note(request):
        timeouts.append(request.extensions["timeout"])
        return heard("Ever tried.")

    await send(httpx2.MockTransport(note), seconds=3)
    assert 0 < timeouts[0]["read"] <= 3
    assert 0 < timeouts[0]["connect"] <= 3


class Bytes(httpx2.SyncByteStream):
    def __init__(self, content):
        self._content = content

    def __iter__(self):
        yield self._content


class Drip(httpx2.SyncByteStream):
    """An answer that comes byte by byte for ten seconds; no read of it ever times out."""

    def __init__(self):
        self.closed = threading.Event()

    def __iter__(self):
        for _ in range(1000):
            self.closed.wait(0.01)
            yield b" "

    def close(self):
        self.closed.set()


@pytest.mark.parametrize("status", [200, 400])
async def test_an_answer_that_drips_ends_at_the_deadline_and_so_does_its_thread(status):
    drip = Drip()
    with pytest.raises(UpstreamTimeout):
        await send(FalseUpstream(httpx2.Response(status, stream=drip)), seconds=0.1)
    assert await anyio.to_thread.run_sync(drip.closed.wait, 5)


async def test_an_answer_without_end_is_cut_off():
    endless = httpx2.Response(200, stream=Bytes(bytes(33_000_000)))
    with pytest.raises(UpstreamFailed, match="too long"):
        await send(FalseUpstream(endless))


async def test_every_call_has_a_connection_of_its_own_that_cannot_have_died_unseen():
    connections = []

    def serve(listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection):
        """Answers as long as it is asked, and would keep the connection."""
        body = b'{"text": "Ever tried."}'
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with connection, contextlib.suppress(OSError):
            while connection.recv(1_000_000):
                connection.sendall(head.encode() + body)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        speech = await build_services(
            settings(openai_base_url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        ).client.ready()
        for _ in range(3):
            await speech.transcribe(on_disk(b"sound"), WEBM, JSON, 20.0)
        listener.shutdown(socket.SHUT_RDWR)
    assert len(connections) == 3


async def test_an_upstream_that_nobody_answers_at_is_said_to_be_out_of_reach():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UpstreamFailed, match="cannot be reached"):
        await send(None, openai_base_url=f"http://127.0.0.1:{port}/v1")


async def test_a_certificate_nobody_trusts_is_not_tried_again():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    knocks = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                knocks.append(1)
                try:
                    with context.wrap_socket(connection, server_side=True) as tls:
                        tls.recv(1)
                except OSError:
                    pass

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(UpstreamFailed, match="certificate"):
            await send(None, openai_base_url=f"https://127.0.0.1:{listener.getsockname()[1]}/v1")
        listener.shutdown(socket.SHUT_RDWR)
    assert len(knocks) == 1


async def test_a_connection_that_breaks_in_the_middle_of_the_answer_is_a_failure_sent_once(engine):
    engine.script({"body": {"text": "x" * 100}, "broken": True, "times": 3})
    with pytest.raises(UpstreamFailed) as failure:
        await send(None, openai_base_url=engine.url)
    assert not failure.value.safe_to_retry
    assert len(engine.calls()) == 1
