"""A fake upstream for the real upstream client. It returns scripted replies and records calls."""

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2

Reply = httpx2.Response | Exception | Callable[[httpx2.Request], httpx2.Response]

_PART = re.compile(
    rb'name="(?P<name>[^"]*)"(?:; filename="(?P<filename>[^"]*)")?\r\n'
    rb"(?:Content-Type: (?P<type>[^\r]*)\r\n)?\r\n(?P<value>.*?)\r\n--",
    re.DOTALL,
)


@dataclass(frozen=True)
class Call:
    """The content of one request to the upstream."""

    filename: str
    content_type: str
    recording: bytes
    fields: dict[str, list[str]]
    authorization: str
    host: str = ""


class FakeUpstream(httpx2.MockTransport):
    """An upstream that returns the given replies, and then transcripts with the text `words`."""

    def __init__(self, *replies: Reply, words: str = "Ever tried.") -> None:
        super().__init__(self._handle)
        self.replies = deque(replies)
        self.calls: list[Call] = []
        self._words = words

    def _handle(self, request: httpx2.Request) -> httpx2.Response:
        self.calls.append(_call(request))
        reply = self.replies.popleft() if self.replies else transcript_response(self._words)
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, httpx2.Response) else reply(request)


def transcript_response(text: str, **fields: Any) -> httpx2.Response:
    return httpx2.Response(
        200, json={"text": text, "usage": {"type": "duration", "seconds": 3}, **fields}
    )


def error_response(
    status: int, code: str | None = None, param: str | None = None, **headers: str
) -> httpx2.Response:
    error = {
        "message": f"reason {status}",
        "type": "invalid_request_error",
        "param": param,
        "code": code,
    }
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(
        status, json={"error": error}, headers={"x-request-id": "req_1", **names}
    )


def _call(request: httpx2.Request) -> Call:
    filename = content_type = ""
    content, fields = b"", {}
    for part in _PART.finditer(request.read()):
        if part["filename"] is None:
            fields.setdefault(part["name"].decode(), []).append(part["value"].decode())
        else:
            filename, content_type, content = (
                part["filename"].decode(),
                part["type"].decode(),
                part["value"],
            )
    authorization = request.headers["authorization"]
    return Call(filename, content_type, content, fields, authorization, request.url.host)
