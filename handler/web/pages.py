"""The recorder page and its modules, and the page at /docs: the files of the folder `page`, as they are."""

import hashlib
from functools import cache, partial
from pathlib import Path

import anyio.to_thread
from fastapi import APIRouter, Request, Response

from handler.services import Services
from handler.web.auth import ServicesDep

_FOLDER = Path(__file__).parent / "page"
_PAGES = {"": "index.html", "docs": "docs.html"}
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_SWAGGER = " https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.35.0/"
_HEADERS = {
    "Cache-Control": "no-cache",  # that is: ask whether it has changed
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(include_in_schema=False)


async def _answer(request: Request, services: ServicesDep) -> Response:
    """A file; 304 where the browser has it already."""
    name = request.scope["path"].removeprefix("/")
    path = _FOLDER / _PAGES.get(name, name)
    content, tag = _read(path)
    headers = {**_HEADERS, "ETag": tag}
    if path.suffix == ".html":
        policy = partial(_policy, services, elsewhere=_SWAGGER if name == "docs" else "")
        headers["Content-Security-Policy"] = await anyio.to_thread.run_sync(policy)
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_TYPES[path.suffix])


for _name in (*_PAGES, "page.js", "recorder.js", "kept.js", "style.css", "docs.js"):
    router.add_api_route(f"/{_name}", _answer, methods=["GET"])


@cache
def _read(path: Path) -> tuple[bytes, str]:
    content = path.read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def _policy(services: Services, elsewhere: str) -> str:
    """A page runs nothing but its own files, and what it has from `elsewhere`; it talks to this server and its bucket
    alone."""
    bucket = f" {services.jobs.objects.origin}" if services.settings.bucket_name else ""
    rules = {
        "default-src": "'none'",
        "script-src": f"'self'{elsewhere}",
        "style-src": f"'self'{elsewhere}",
        "connect-src": f"'self'{bucket}",
        "media-src": "blob:",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {allowed}" for name, allowed in rules.items())
