"""OpenAI's SDK without retries and without connection reuse. The response size is limited.

This is the only module that imports the SDK. It is imported at the first transcription.

The SDK reads environment variables. OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS are
ignored, because the SDK would send them to any upstream, not only to OpenAI. With OPENAI_LOG, the
SDK logs methods and statuses, but not headers, bodies or files.
"""

import inspect
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import httpx2

from handler.errors import UpstreamFailed
from handler.upstream import lazy_types
from handler.upstream.errors import connection_error, error_from_response, timed_out

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
        known = {name: value for name, value in parameters.items() if name in _SDK_PARAMETERS}
        extra = {name: value for name, value in parameters.items() if name not in _SDK_PARAMETERS}
        timeout = httpx2.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
        try:
            response = create(file=file, timeout=timeout, extra_body=extra, **known)
        except openai.APIStatusError as error:
            raise error_from_response(error, self.api_key) from None
        except openai.APIConnectionError as error:
            raise connection_error(error.__cause__ or error) from None
        log.info(
            "Received the transcription from the upstream (request id %s).",
            response.headers.get("x-request-id", "none"),
        )
        body: bytes = response.content
        return body

    @property
    def default_headers(self) -> dict[str, str | openai.Omit]:
        """Return the default headers, except those that the SDK reads from the environment."""
        return {
            "Accept": "application/json",
            "User-Agent": self.user_agent,
            **self.platform_headers(),
        }


class HTTPClient(httpx2.Client):
    """Sends each request over a new connection, and limits the size and duration of responses.

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
        stream: bool = False,  # noqa: ARG002 - responses are always read completely
        **options: Any,
    ) -> httpx2.Response:
        deadline = time.monotonic() + float(request.extensions["timeout"]["read"])
        request.stream = _BufferedStream(request.stream)
        response = super().send(request, stream=True, **options)
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


def _read_body(response: httpx2.Response, deadline: float) -> bytes:
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if time.monotonic() > deadline:
            raise timed_out()
        if len(body) > _MAX_RESPONSE_BYTES:
            raise UpstreamFailed(
                "The speech service's response is too long (more than 32 MB)."
                " If this error persists, the server's owner should check OPENAI_BASE_URL."
            )
    return bytes(body)
