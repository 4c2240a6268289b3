"""The recorder page and its modules: the files of the folder `page`, as they are."""

import hashlib
from functools import cache
from pathlib import Path

import anyio.to_thread
from fastapi import APIRouter, Request, Response

from handler.access import Wired
from handler.wiring import Wiring

_FOLDER = Path(__file__).parent / "page"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_HEADERS = {
    "Cache-Control": "no-cache",  # that is: ask whether it has changed
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(include_in_schema=False)


async def _answer(request: Request, wiring: Wired) -> Response:
    """A file; 304 where the browser has it already."""
    path = _FOLDER / (request.scope["path"].removeprefix("/") or "index.html")
    content, tag = _read(path)
    headers = {**_HEADERS, "ETag": tag}
    if path.suffix == ".html":
        headers["Content-Security-Policy"] = await anyio.to_thread.run_sync(_policy, wiring)
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_TYPES[path.suffix])


for _name in ("", "page.js", "recorder.js", "kept.js", "style.css"):
    router.add_api_route(f"/{_name}", _answer, methods=["GET"])


@cache
def _read(path: Path) -> tuple[bytes, str]:
    content = path.read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def _policy(wiring: Wiring) -> str:
    """The page runs nothing but its own files, and talks to this server and its bucket alone."""
    bucket = f" {wiring.jobs.objects.origin}" if wiring.settings.bucket_name else ""
    rules = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": f"'self'{bucket}",
        "media-src": "blob:",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {allowed}" for name, allowed in rules.items())
