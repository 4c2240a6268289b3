"""Gives each request an id, which its response, its log lines and its job carry."""

from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handler.logs import context

HEADER = "x-request-id"


class RequestId:
    """Lambda's own id, which its log and the gateway's have; elsewhere a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = getattr(scope.get("aws.context"), "aws_request_id", "") or uuid4().hex

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {
                    **message,
                    "headers": [*message["headers"], (HEADER.encode(), identity.encode())],
                }
            await send(message)

        with context(request=identity):
            await self._app(scope, receive, send_with_id)
