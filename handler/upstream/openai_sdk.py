"""OpenAI's SDK as Steno uses it: one attempt, connections of its own, answers of a limited size.

The only module that imports the SDK; it is imported itself on the first transcription.

The SDK takes settings of its own from the environment. OPENAI_ORG_ID, OPENAI_PROJECT_ID and
OPENAI_CUSTOM_HEADERS are ignored: a request carries what Steno's settings name, and these would
also go to upstreams that are not OpenAI. OPENAI_LOG is left to the SDK, which logs methods and
statuses, but no header, body or file.
"""

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
import openai.resources.audio  # which the first request would import

log = logging.getLogger("steno")

_CONNECT_SECONDS = 5.0
_MOST_ANSWER_BYTES = 32_000_000  # ten hours of speech as verbose_json
_PIECE_BYTES = 65_536
_OF_THE_TRANSFER = {"content-encoding", "content-length", "transfer-encoding"}


class Client(openai.OpenAI):
    """The SDK's client. It never retries by itself: some of its retries could be billed twice."""

    def __init__(self, key: str, base_url: str, http: httpx2.Client) -> None:
        super().__init__(api_key=key, base_url=base_url, http_client=http, max_retries=0)

    def transcription(
        self, file: tuple[str, BinaryIO, str], parameters: Mapping[str, Any], seconds: float
    ) -> bytes:
        """Return the body of the response to one request.

        `seconds` limits connecting, sending and reading, each. Raises one of errors.py.
        """
        create: Any = self.audio.transcriptions.with_raw_response.create
        timeout = httpx2.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
        try:
            answer = create(file=file, timeout=timeout, **parameters)
        except openai.APIStatusError as error:
            raise error_from_response(error, self.api_key) from None
        except openai.APIConnectionError as error:
            raise connection_error(error.__cause__ or error) from None
        log.info(
            "The upstream has answered the request %s.",
            answer.headers.get("x-request-id", "without an id"),
        )
        body: bytes = answer.content
        return body

    @property
    def default_headers(self) -> dict[str, str | openai.Omit]:
        """Without those that the SDK takes from the environment."""
        return {
            "Accept": "application/json",
            "User-Agent": self.user_agent,
            **self.platform_headers(),
        }


class HTTPClient(httpx2.Client):
    """Sends each request on a connection of its own, and reads the whole response with limits.

    A kept connection may have died unseen, and what is sent into it may or may not have been billed.
    The SDK reads the body of an error without a limit, and a read timeout alone does not end a
    response that comes byte by byte.
    """

    def __init__(self, transport: httpx2.BaseTransport | None) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        super().__init__(transport=transport, limits=limits)

    def send(self, request: httpx2.Request, *, stream: bool = False, **how: Any) -> httpx2.Response:  # noqa: ARG002 - responses are always read whole
        deadline = time.monotonic() + float(request.extensions["timeout"]["read"])
        request.stream = _Joined(request.stream)
        answer = super().send(request, stream=True, **how)
        try:
            body = _body(answer, deadline)
        finally:
            answer.close()
        headers = [
            (name, value)
            for name, value in answer.headers.multi_items()
            if name not in _OF_THE_TRANSFER
        ]
        return httpx2.Response(answer.status_code, headers=headers, content=body, request=request)


class _Joined(httpx2.SyncByteStream):
    """A request's body in pieces of 64 KB or more.

    The encoder yields each boundary, header and field by itself, and each piece is a system call
    and a packet of its own.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        pieces, size = [], 0
        for piece in self._stream:
            pieces.append(piece)
            size += len(piece)
            if size >= _PIECE_BYTES:
                yield b"".join(pieces)
                pieces, size = [], 0
        if pieces:
            yield b"".join(pieces)


def _body(answer: httpx2.Response, deadline: float) -> bytes:
    body = bytearray()
    for chunk in answer.iter_bytes():
        body += chunk
        if time.monotonic() > deadline:
            raise timed_out()
        if len(body) > _MOST_ANSWER_BYTES:
            raise UpstreamFailed("The speech service's answer is too long to be a transcript.")
    return bytes(body)
