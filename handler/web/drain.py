"""Lets a client read why it was refused: HTTP/1.1 clients send their whole body before they look at the answer."""

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MAX_BYTES = 32 * 1024 * 1024
_MAX_SECONDS = 5.0


class DrainRejectedBody:
    """Reads and throws away, for a bounded while, what a refused request still sends; without, the connection resets.

    A client that waits for `100 Continue` has sent nothing yet and needs no draining.
    """

    def __init__(self, app: ASGIApp, max_seconds: float = _MAX_SECONDS) -> None:
        self._app = app
        self._max_seconds = max_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(
            receive, self._max_seconds, waits=(b"expect", b"100-continue") in scope["headers"]
        )

        async def send_drained(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                await body.drain()
            await send(message)

        await self._app(scope, body.receive, send_drained)


class _Body:
    def __init__(self, receive: Receive, max_seconds: float, *, waits: bool) -> None:
        self._receive = receive
        self._max_seconds = max_seconds
        self._waits = waits
        self._ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._waits = False
        self._ended = not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        left = _MAX_BYTES
        with anyio.move_on_after(self._max_seconds):
            while not self._ended and not self._waits and left > 0:
                left -= len((await self.receive()).get("body", b""))
