"""Read events of API Gateway."""

import pybase64
from mangum.handlers import HTTPGateway


class Gateway(HTTPGateway):
    """Decodes base64 bodies with pybase64.

    With the standard library, decoding the recording takes most of the time of a warm request.
    """

    @property
    def body(self) -> bytes:
        if self.event.get("isBase64Encoded"):
            return pybase64.b64decode(self.event["body"], validate=True)
        return super().body
