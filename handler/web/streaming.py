"""Stream a transcript as server-sent events, in the format of OpenAI's API.

https://platform.openai.com/docs/api-reference/audio/transcript-text-delta-event
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from handler.jobs.job import Job
from handler.transcription.listener import Listener
from handler.transcripts.transcript import Transcript
from handler.web import responses
from handler.web.error_handlers import report_error

log = logging.getLogger("steno")

MEDIA_TYPE = "text/event-stream"
_KEEP_ALIVE_SECONDS = 15.0  # proxies close idle connections, often after 60 seconds
_KEEP_ALIVE = b": keep-alive\n\n"
# Without these headers, proxies could store or delay the events.
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_DONE_FIELDS = ("logprobs", "languages", "usage")
_SEGMENT_FORMATS = ("diarized_json", "verbose_json")

Transcribe = Callable[[Listener], Awaitable[Transcript | Job]]


def buffered_response(transcript: Transcript, response_format: str) -> Response:
    """Return a response with all events of a transcript."""
    text = {"type": "transcript.text.delta", "delta": transcript.text}
    events = [text] if transcript.text else []
    events += _last_events(transcript, response_format)
    headers = {**_HEADERS, "Steno-Model": transcript.model}
    return Response(b"".join(map(_encode, events)), headers=headers, media_type=MEDIA_TYPE)


async def live_response(
    request: Request,
    transcribe: Transcribe,
    response_format: str,
    *,
    keep_alive_seconds: float = _KEEP_ALIVE_SECONDS,
) -> Response:
    """Return a response that streams the text while `transcribe` runs.

    A comment is sent after each `keep_alive_seconds` without an event. Raises the error of a
    transcription that fails before the first event or comment.
    """
    stream = _Stream(keep_alive_seconds)

    async def run() -> None:
        try:
            result = await transcribe(stream)
            if isinstance(result, Transcript):  # otherwise, the client has disconnected
                stream.finish(result, response_format)
        except Exception as error:
            if not stream.is_connected:
                report_error(request, error)  # nothing else reads the error
            stream.add(error)
        finally:
            stream.add(None)

    task = asyncio.create_task(run())
    first = await stream.next()
    if isinstance(first, Exception):
        raise first
    return _LiveResponse(_read(stream, first, request), stream, task)


class _LiveResponse(StreamingResponse):
    """A stream of events. It ends when its transcription has ended, even without a client.

    The result of the transcription is paid for, and must be stored for the next request. Uvicorn
    waits for the response when it shuts down.
    """

    def __init__(
        self, content: AsyncIterator[bytes], stream: "_Stream", task: asyncio.Task[None]
    ) -> None:
        super().__init__(content, headers=_HEADERS, media_type=MEDIA_TYPE)
        self._stream = stream
        self._task = task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.is_connected = False
            await asyncio.wait({self._task})


async def _read(
    stream: "_Stream", item: bytes | Exception | None, request: Request
) -> AsyncIterator[bytes]:
    while item is not None:
        if isinstance(item, Exception):
            # The status was already sent. OpenAI's SDKs raise an error for this event.
            yield _encode(responses.openai_error_body(report_error(request, item)))
        else:
            yield item
        item = await stream.next()


class _Stream:
    """The events of one transcription, from the task that transcribes to the response."""

    def __init__(self, keep_alive_seconds: float) -> None:
        self.is_connected = True
        self._keep_alive_seconds = keep_alive_seconds
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self._sent = ""

    async def next(self) -> bytes | Exception | None:
        """Return the next event or comment, the error of the transcription, or None at the end."""
        try:
            return await asyncio.wait_for(self._items.get(), self._keep_alive_seconds)
        except TimeoutError:
            return _KEEP_ALIVE

    def add(self, item: bytes | Exception | None) -> None:
        self._items.put_nowait(item)

    def update(self, text: str, /) -> None:
        """Send the new part of the text. Can be called from any thread."""
        self._loop.call_soon_threadsafe(self._send_text, text)

    def finish(self, transcript: Transcript, response_format: str) -> None:
        """Send the rest of the text, and the last events."""
        self._send_text(transcript.text)
        if self._sent != transcript.text:
            log.warning("The transcript differs from the text that was streamed.")
        for event in _last_events(transcript, response_format):
            self.add(_encode(event))

    def _send_text(self, text: str) -> None:
        """Send what follows the text that was sent, unless the text was changed."""
        text = text.strip()  # the final text has no whitespace around it
        delta = text.removeprefix(self._sent)
        if delta and text.startswith(self._sent):
            self.add(_encode({"type": "transcript.text.delta", "delta": delta}))
            self._sent = text


def _last_events(transcript: Transcript, response_format: str) -> Iterator[dict[str, Any]]:
    """Yield the events that follow the text: its segments if requested, and its end."""
    segments = transcript.segments if response_format in _SEGMENT_FORMATS else ()
    for number, segment in enumerate(segments):
        yield {
            "type": "transcript.text.segment",
            "id": f"seg_{number}",
            "start": segment.start,
            "end": segment.end,
            "text": segment.text,
            "speaker": segment.speaker or "",
        }
    body = responses.openai_body(transcript, "json")
    details = {name: body[name] for name in _DONE_FIELDS if name in body}
    yield {"type": "transcript.text.done", "text": transcript.text, **details}


def _encode(event: Mapping[str, Any]) -> bytes:
    # Characters outside ASCII are escaped, because some clients treat U+2028 as the end of a line.
    return f"data: {json.dumps(event)}\n\n".encode()
