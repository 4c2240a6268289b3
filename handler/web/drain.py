"""Middleware that reads the rest of a rejected request, so that the client receives the error."""

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MAX_BYTES = 32 * 1024 * 1024
_MAX_SECONDS = 5.0


class DrainRejectedBody:
    """Reads and discards the rest of the request body before an error response is sent.

    HTTP/1.1 clients send their whole body before they read the response. If the server stops
    reading, the connection is reset, and the client never receives the error. Reading
    stops after 32 MiB or `max_seconds` seconds. Nothing is read if the client waits for
    `100 Continue`, because it has not sent its body yet.
    """

    def __init__(self, app: ASGIApp, max_seconds: float = _MAX_SECONDS) -> None:
        self._app = app
        self._max_seconds = max_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        waits_for_continue = (b"expect", b"100-continue") in scope["headers"]
        body = _Body(receive, self._max_seconds, waits_for_continue=waits_for_continue)

        async def drain_and_send(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                await body.drain()
            await send(message)

        await self._app(scope, body.receive, drain_and_send)


class _Body:
    def __init__(self, receive: Receive, max_seconds: float, *, waits_for_continue: bool) -> None:
        self._receive = receive
        self._max_seconds = max_seconds
        self._waits_for_continue = waits_for_continue
        self._ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._waits_for_continue = False
        self._ended = not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        remaining_bytes = _MAX_BYTES
        with anyio.move_on_after(self._max_seconds):
            while not self._ended and not self._waits_for_continue and remaining_bytes > 0:
                message = await self.receive()
                remaining_bytes -= len(message.get("body", b""))
