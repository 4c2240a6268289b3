"""OpenAI's SDK without retries and without connection reuse. The response size is limited.

This is the only module that imports the SDK. It is imported at the first transcription.

The SDK reads environment variables. OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS are
ignored, because the SDK would send them to any upstream, not only to OpenAI. With OPENAI_LOG, the
SDK logs methods and statuses, but not headers, bodies or files.
"""

import inspect
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import httpx2

from handler.errors import UpstreamFailed
from handler.upstream import lazy_types
from handler.upstream.errors import (
    connection_error,
    error_from_response,
    stream_error,
    timed_out,
)

lazy_types.install()

import openai
from openai.resources.audio.transcriptions import Transcriptions

log = logging.getLogger("steno")

_CONNECT_SECONDS = 5.0
_MAX_RESPONSE_BYTES = 32_000_000  # ten hours of speech as verbose_json
_MIN_CHUNK_BYTES = 65_536
# These headers describe the transferred body, which can be compressed or chunked. HTTPClient
# removes them, because it returns the complete, decoded body.
_TRANSFER_HEADERS = {"content-encoding", "content-length", "transfer-encoding"}
_SDK_PARAMETERS = {*inspect.signature(Transcriptions.create).parameters}


class Client(openai.OpenAI):
    """The SDK's client, without its automatic retries: a retried request can be billed twice."""

    def __init__(self, key: str, base_url: str, http: httpx2.Client) -> None:
        super().__init__(api_key=key, base_url=base_url, http_client=http, max_retries=0)

    def transcription(
        self, file: tuple[str, BinaryIO, str], parameters: Mapping[str, Any], seconds: float
    ) -> bytes:
        """Return the body of the response to one request.

        `seconds` is the timeout for sending and for reading. The connect timeout is at most 5
        seconds.
        Raises a StenoError if the request fails.
        """
        create: Any = self.audio.transcriptions.with_raw_response.create
        with self._convert_errors():
            response = create(file=file, **_arguments(parameters, seconds))
        _log_request_id(response)
        body: bytes = response.content
        return body

    def streamed_transcription(
        self,
        file: tuple[str, BinaryIO, str],
        parameters: Mapping[str, Any],
        seconds: float,
        on_text: Callable[[str], None],
    ) -> bytes:
        """Do the same as `transcription`, and call `on_text` with the text so far.

        The server may ignore the request to stream. In this case, `on_text` is not called.
        """
        create: Any = self.audio.transcriptions.create
        with self._convert_errors():
            events = create(file=file, stream=True, **_arguments(parameters, seconds))
            with events:
                _log_request_id(events.response)
                media_type = events.response.headers.get("content-type", "").lower()
                if not media_type.startswith("text/event-stream"):
                    content: bytes = events.response.read()
                    return content
                return _read_events(events, on_text)

    @contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            yield
        except openai.APIStatusError as error:
            raise error_from_response(error, self.api_key) from None
        except openai.APIConnectionError as error:
            raise connection_error(error.__cause__ or error) from None
        except openai.APIError as error:  # an event in the stream
            raise stream_error(error, self.api_key) from None
        except httpx2.HTTPError as error:  # the body was read without the SDK
            raise connection_error(error) from None

    @property
    def default_headers(self) -> dict[str, str | openai.Omit]:
        """Return the default headers, except those that the SDK reads from the environment."""
        return {
            "Accept": "application/json",
            "User-Agent": self.user_agent,
            **self.platform_headers(),
        }


def _arguments(parameters: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Return the arguments of the SDK's method.

    `extra_body` contains the parameters that the SDK does not support.
    """
    known = {name: value for name, value in parameters.items() if name in _SDK_PARAMETERS}
    extra = {name: value for name, value in parameters.items() if name not in _SDK_PARAMETERS}
    timeout = httpx2.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
    return {**known, "extra_body": extra, "timeout": timeout}


def _log_request_id(response: Any) -> None:
    log.info(
        "Received the transcription from the upstream (request id %s).",
        response.headers.get("x-request-id", "none"),
    )


def _read_events(events: Iterable[Any], on_text: Callable[[str], None]) -> bytes:
    """Read a stream of events. Return the body that the server would send without streaming."""
    text, segments = "", []
    try:
        for event in events:
            if event.type == "transcript.text.delta":
                text += event.delta
                on_text(text)
            elif event.type == "transcript.text.segment":
                segments.append(event.to_dict())
            elif event.type == "transcript.text.done":
                return json.dumps(_body_of_events(event.to_dict(), segments)).encode()
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UpstreamFailed(
            "The speech service sent an event that is not valid. If this error persists, the"
            " server's owner should check OPENAI_BASE_URL."
        ) from None
    raise connection_error(EOFError())


def _body_of_events(done: dict[str, Any], segments: list[dict[str, Any]]) -> dict[str, Any]:
    body = {name: value for name, value in done.items() if name != "type"}
    if segments:
        duration = max(segment["end"] for segment in segments)
        body |= {"task": "transcribe", "duration": duration, "segments": segments}
    return body


class HTTPClient(httpx2.Client):
    """Sends each request over a new connection, and limits the size and duration of responses.

    Responses are read completely, except streams of events.

    If a server closes a reused connection, it is unknown whether the request was billed. The SDK
    itself reads the body of an error response without a size limit. A read timeout alone does not
    stop a response that arrives byte by byte.
    """

    def __init__(self, transport: httpx2.BaseTransport | None) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        super().__init__(transport=transport, limits=limits)

    def send(
        self,
        request: httpx2.Request,
        *,
        stream: bool = False,
        **options: Any,
    ) -> httpx2.Response:
        deadline = time.monotonic() + float(request.extensions["timeout"]["read"])
        request.stream = _BufferedStream(request.stream)
        response = super().send(request, stream=True, **options)
        # A compressed stream is read completely, because only the decoded size is limited.
        if stream and response.is_success and "content-encoding" not in response.headers:
            response.stream = _LimitedStream(response.stream, deadline)
            return response
        try:
            body = _read_body(response, deadline)
        finally:
            response.close()
        headers = [
            (name, value)
            for name, value in response.headers.multi_items()
            if name not in _TRANSFER_HEADERS
        ]
        return httpx2.Response(response.status_code, headers=headers, content=body, request=request)


class _BufferedStream(httpx2.SyncByteStream):
    """A request body that is sent in chunks of at least 64 KiB.

    The multipart encoder yields each boundary, header and field separately. Without the buffer,
    each of them would require a system call and a network packet.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        chunks, size = [], 0
        for chunk in self._stream:
            chunks.append(chunk)
            size += len(chunk)
            if size >= _MIN_CHUNK_BYTES:
                yield b"".join(chunks)
                chunks, size = [], 0
        if chunks:
            yield b"".join(chunks)


class _LimitedStream(httpx2.SyncByteStream):
    """A response body that must end before the deadline and must not be too long."""

    def __init__(self, stream: Any, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        return _limit(self._stream, self._deadline)

    def close(self) -> None:
        self._stream.close()


def _read_body(response: httpx2.Response, deadline: float) -> bytes:
    return b"".join(_limit(response.iter_bytes(), deadline))


def _limit(chunks: Iterable[bytes], deadline: float) -> Iterator[bytes]:
    """Yield the chunks. Raises a StenoError after the deadline, or if the body is too long."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if time.monotonic() > deadline:
            raise timed_out()
        if size > _MAX_RESPONSE_BYTES:
            raise UpstreamFailed(
                "The speech service's response is too long (more than 32 MB)."
                " If this error persists, the server's owner should check OPENAI_BASE_URL."
            )
        yield chunk
