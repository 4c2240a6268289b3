"""Serve the recorder page, `/docs` and `/errors`, and the files in the folder `page`."""

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

import anyio.to_thread
from fastapi import APIRouter, Request, Response

from handler.errors import NotFound
from handler.services import Services
from handler.web.auth import ServicesDep

_FOLDER = Path(__file__).parent / "page"
_FILES = {path.name: path for path in _FOLDER.iterdir()}
_PAGES = {"/": "index.html", "/docs": "docs.html", "/errors": "errors.html"}
# Files of Swagger UI. The package fastapi-offline includes them. It is not imported.
_SWAGGER_UI = ("swagger-ui-bundle.js", "swagger-ui.css")
_MODULE = "recorder.js"
# Without this header, a browser would find the modules one after another.
_PRELOAD = ", ".join(
    f'<page/{name}>; rel="modulepreload"'
    for name in sorted(_FILES)
    if name.endswith(".js") and name not in (_MODULE, "docs.js")
)
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


async def _page(request: Request, services: ServicesDep) -> Response:
    name = _PAGES[request.scope["path"]]
    policy = await anyio.to_thread.run_sync(_policy, services)
    headers = {"Content-Security-Policy": policy}
    if name == "index.html":
        headers["Link"] = _PRELOAD
    return _respond(request, _FILES[name], headers)


for _path in _PAGES:
    router.add_api_route(_path, _page, methods=["GET"])


@router.get(f"/{_MODULE}")
async def _module(request: Request) -> Response:
    # A page of any origin can import the module. If its calls are not allowed, it can say so.
    return _respond(request, _FILES[_MODULE], {"Access-Control-Allow-Origin": "*"})


@router.get("/page/{name}")
async def _file(request: Request, name: str) -> Response:
    """Return a file of the pages, or of Swagger UI."""
    if name not in _FILES and name not in _SWAGGER_UI:
        raise NotFound("There is no file at this path.")
    return _respond(request, _FILES.get(name) or _swagger_ui(name), {})


def _respond(request: Request, path: Path, headers: dict[str, str]) -> Response:
    """Return a file, or status 304 if the browser already has its current version."""
    content, tag = _read(path)
    headers = {**_HEADERS, **headers, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_TYPES[path.suffix])


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
