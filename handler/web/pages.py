"""Serve the static files in the folder `page`: the recorder page, `/docs` and `/errors`."""

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

import anyio.to_thread
from fastapi import APIRouter, Request, Response

from handler.services import Services
from handler.web.auth import ServicesDep

_FOLDER = Path(__file__).parent / "page"
_PAGES = {"": "index.html", "docs": "docs.html", "errors": "errors.html"}
# Files of Swagger UI. The package fastapi-offline includes them. It is not imported.
_SWAGGER_UI = ("swagger-ui-bundle.js", "swagger-ui.css")
_MODULE = "recorder.js"
_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
_HEADERS = {
    "Cache-Control": "no-cache",  # browsers must revalidate with the ETag
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(include_in_schema=False)


async def _serve(request: Request, services: ServicesDep) -> Response:
    """Return a static file, or status 304 if the browser already has its current version."""
    name = request.scope["path"].removeprefix("/")
    path = _swagger_ui(name) if name in _SWAGGER_UI else _FOLDER / _PAGES.get(name, name)
    content, tag = _read(path)
    headers = {**_HEADERS, "ETag": tag}
    if name == _MODULE:
        # A page of any origin can import the module. If its calls are not allowed, it can say so.
        headers["Access-Control-Allow-Origin"] = "*"
    if path.suffix == ".html":
        headers["Content-Security-Policy"] = await anyio.to_thread.run_sync(_policy, services)
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_TYPES[path.suffix])


_RECORDER_PAGE = (
    "page.js",
    _MODULE,
    "detail.js",
    "dialogs.js",
    "exports.js",
    "icons.js",
    "items.js",
    "kept.js",
    "list.js",
    "microphone.js",
    "player.js",
    "sending.js",
    "status.js",
    "toast.js",
    "transcript.js",
    "waveform.js",
    "style.css",
    "icon.svg",
    "manifest.webmanifest",
)
for _name in (*_PAGES, *_RECORDER_PAGE, "docs.js", *_SWAGGER_UI):
    router.add_api_route(f"/{_name}", _serve, methods=["GET"])


@cache
def _read(path: Path) -> tuple[bytes, str]:
    content = path.read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def _swagger_ui(name: str) -> Path:
    spec = importlib.util.find_spec("fastapi_offline")
    assert spec, "fastapi-offline is one of the requirements"  # noqa: S101 - narrows the type
    assert spec.origin  # noqa: S101 - narrows the type
    return Path(spec.origin).parent / "static" / name


def _policy(services: Services) -> str:
    """Return the Content-Security-Policy of an HTML page.

    The page may load scripts, styles, images and its manifest only from this server. It may connect
    only to this server and its bucket.
    """
    bucket = f" {services.jobs.objects.origin}" if services.settings.bucket_name else ""
    rules = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": f"'self'{bucket}",
        "media-src": "blob:",
        "img-src": "'self' data:",
        "manifest-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{directive} {sources}" for directive, sources in rules.items())
