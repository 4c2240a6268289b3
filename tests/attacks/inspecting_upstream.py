"""A speech service behind real HTTP, that looks at what it is sent and refuses some of it."""

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


class Hearing:
    """`digests` are those of what it was sent, `heads` all else of it; `strange` are names and types that are not the
    canonical ones.

    Where it is `choosy` it refuses one in four, by their bytes, but for the worker's parts.
    """

    def __init__(self, *, choosy=False):
        self.digests = []
        self.strange = []
        self.heads = []
        self._choosy = choosy
        self._app = Starlette(
            routes=[Route("/v1/audio/transcriptions", self._transcribe, methods=["POST"])]
        )

    @contextlib.contextmanager
    def open(self):
        """Its base URL."""
        with serving(self._app) as url:
            yield f"{url}/v1"

    async def _transcribe(self, request):
        body = await request.body()
        async with request.form() as form:
            file = form["file"]
            content = await file.read()
        self.heads.append(f"{request.headers.raw} {body.replace(content, b'')}")
        self.digests.append(hashlib.sha256(content).hexdigest())
        if _CANONICAL.get(file.filename) != file.content_type:
            self.strange.append((file.filename, file.content_type))
        if self._choosy and file.filename != "recording.flac" and zlib.crc32(content) % 4 == 0:
            return JSONResponse(_UNREADABLE, 400)
        return JSONResponse({"text": "Ever tried.", "usage": {"type": "duration", "seconds": 1}})
