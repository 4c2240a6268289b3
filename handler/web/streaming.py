"""Stream a transcript as server-sent events, in the format of OpenAI's API.

https://platform.openai.com/docs/api-reference/audio/transcript-text-delta-event
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from handler.errors import UpstreamFailed
from handler.jobs.job import Job
from handler.transcription.listener import Listener
from handler.transcripts.transcript import Transcript
from handler.web import responses
from handler.web.error_handlers import report_error

MEDIA_TYPE = "text/event-stream"
# Proxies close idle connections, often after 60 seconds.
_KEEP_ALIVE_SECONDS = 15.0
_KEEP_ALIVE = b": keep-alive\n\n"
# Without these headers, proxies could store or delay the events.
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_DONE_FIELDS: tuple[str, ...] = ("logprobs", "languages", "usage")
_SEGMENT_FORMATS = ("diarized_json", "verbose_json")
# The event loop keeps only weak references to its tasks.
_tasks: set[asyncio.Task[None]] = set()

Transcribe = Callable[[Listener | None], Awaitable[Transcript | Job]]


def complete(transcript: Transcript, response_format: str) -> Response:
    """Return a response with all events of a transcript.

    It is used on Lambda, because an HTTP API cannot stream responses.
    """
    text = {"type": "transcript.text.delta", "delta": transcript.text}
    events = [text] if transcript.text else []
    events += _last_events(transcript, response_format)
    body = b"".join(map(_encode, events))
    return Response(
        body, headers={**_HEADERS, "Steno-Model": transcript.model}, media_type=MEDIA_TYPE
    )


async def live(
    request: Request,
    transcribe: Transcribe,
    resources: AsyncExitStack,
    response_format: str,
    *,
    keep_alive_seconds: float = _KEEP_ALIVE_SECONDS,
) -> Response:
    """Return a response that streams the text while `transcribe` runs.

    `resources` are closed when the transcription ends. It does not end if the client disconnects,
    so that its result is stored for the next request. A comment is sent after each
    `keep_alive_seconds` without an event. Raises the error of a transcription that fails before its
    first event.
    """
    stream = _Stream(keep_alive_seconds)

    async def run() -> None:
        try:
            async with resources:
                result = await transcribe(stream)
            if isinstance(result, Transcript):  # otherwise, the client has disconnected
                stream.finish(result, response_format)
        except Exception as error:
            stream.fail(error)
        stream.end()

    task = asyncio.create_task(run())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    first = await stream.next()
    if isinstance(first, Exception):
        raise first
    return StreamingResponse(_read(stream, first, request), headers=_HEADERS, media_type=MEDIA_TYPE)


async def _read(
    stream: "_Stream", item: bytes | Exception | None, request: Request
) -> AsyncIterator[bytes]:
    try:
        while item is not None:
            if isinstance(item, Exception):
                # The status was already sent. OpenAI's SDKs raise an error for this event.
                error = report_error(request, item)
                yield _encode(responses.openai_error_body(error))
            else:
                yield item
            item = await stream.next()
    finally:
        stream.is_connected = False


class _Stream:
    """The events of one transcription, from the task that transcribes to the response.

    The text that was sent cannot be changed. If a later text does not begin with it, it is not
    sent, and the stream ends with an error.
    """

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

    def update(self, text: str, /) -> None:
        """Send the new part of the text. Can be called from any thread."""
        self._loop.call_soon_threadsafe(self._send_text, text)

    def finish(self, transcript: Transcript, response_format: str) -> None:
        if not self._send_text(transcript.text):
            raise UpstreamFailed(
                "The transcript differs from the text that was streamed. Send the same request"
                " again to get the transcript; it is not billed twice.",
                safe_to_retry=True,
            )
        for event in _last_events(transcript, response_format):
            self._items.put_nowait(_encode(event))

    def fail(self, error: Exception) -> None:
        self._items.put_nowait(error)

    def end(self) -> None:
        self._items.put_nowait(None)

    def _send_text(self, text: str) -> bool:
        """Send what follows the text that was sent. Return False if the text was changed."""
        text = text.strip()  # the final text has no whitespace around it
        if not text.startswith(self._sent):
            return False
        if delta := text[len(self._sent) :]:
            self._items.put_nowait(_encode({"type": "transcript.text.delta", "delta": delta}))
            self._sent = text
        return True


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
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode(errors="replace")
