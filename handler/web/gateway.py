"""The gateway's events: a recording comes in base64, whose decoding would take most of a warm request's own time."""

import pybase64
from mangum.handlers import HTTPGateway


class Gateway(HTTPGateway):
    @property
    def body(self) -> bytes:
        if self.event.get("isBase64Encoded"):
            return pybase64.b64decode(self.event["body"], validate=True)
        return super().body
