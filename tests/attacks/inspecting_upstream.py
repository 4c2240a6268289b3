"""A fake upstream server that records its requests and can reject some of them."""

import contextlib
import hashlib
import zlib

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.conftest import serving

_CANONICAL = {
    "recording.webm": "audio/webm",
    "recording.m4a": "audio/mp4",
    "recording.ogg": "audio/ogg",
    "recording.wav": "audio/wav",
    "recording.mp3": "audio/mpeg",
    "recording.flac": "audio/flac",
}
_UNREADABLE = {
    "error": {"message": "The audio file could not be decoded.", "type": "invalid_request_error"}
}


class InspectingUpstream:
    """A fake upstream that records its requests.

    `digests` contains the SHA-256 hash of each recording. `envelopes` contains the headers and form
    of each request, without the recording. `unexpected_names` contains each file name and media
    type that Steno does not generate.

    With `reject_some`, it rejects about one in four recordings, selected by their CRC-32. It never
    rejects parts of jobs (`recording.flac`).
    """

    def __init__(self, *, reject_some=False):
        self.digests = []
        self.unexpected_names = []
        self.envelopes = []
        self._reject_some = reject_some
        self._app = Starlette(
            routes=[Route("/v1/audio/transcriptions", self._transcribe, methods=["POST"])]
        )

    @contextlib.contextmanager
    def serving_http(self):
        """Serve the API and yield its base URL."""
        with serving(self._app) as url:
            yield f"{url}/v1"

    async def _transcribe(self, request):
        body = await request.body()
        async with request.form() as form:
            file = form["file"]
            content = await file.read()
        self.envelopes.append(f"{request.headers.raw} {body.replace(content, b'')}")
        self.digests.append(hashlib.sha256(content).hexdigest())
        if _CANONICAL.get(file.filename) != file.content_type:
            self.unexpected_names.append((file.filename, file.content_type))
        if self._reject_some and file.filename != "recording.flac" and zlib.crc32(content) % 4 == 0:
            return JSONResponse(_UNREADABLE, 400)
        return JSONResponse({"text": "Ever tried.", "usage": {"type": "duration", "seconds": 1}})
