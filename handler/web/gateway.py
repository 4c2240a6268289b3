"""Read the events that API Gateway sends to Lambda."""

import pybase64
from mangum.handlers import HTTPGateway


class Gateway(HTTPGateway):
    """Decodes base64 bodies with pybase64.

    With the standard library, a warm invocation would spend most of its time on decoding.
    """

    @property
    def body(self) -> bytes:
        if self.event.get("isBase64Encoded"):
            return pybase64.b64decode(self.event["body"], validate=True)
        return super().body
