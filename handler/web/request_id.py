"""Middleware that assigns an id to each request. Its response, log lines and job include the id."""

from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handler.logs import context

HEADER = "x-request-id"


class RequestId:
    """Sets the `x-request-id` header of each response.

    On Lambda, the id is Lambda's request id, which also appears in the logs of Lambda and API
    Gateway. On other servers, the id is random.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = getattr(scope.get("aws.context"), "aws_request_id", "") or uuid4().hex

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {
                    **message,
                    "headers": [*message["headers"], (HEADER.encode(), request_id.encode())],
                }
            await send(message)

        with context(request=request_id):
            await self._app(scope, receive, send_with_id)
