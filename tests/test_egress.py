"""Tests that upstream headers are not passed on and that upstream redirects are not followed."""

import re

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import RedirectResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from handler.services import build_services
from handler.web.app import create_app
from tests.attacks.access_monitor import monitor_access
from tests.conftest import serving, settings
from tests.fake_upstream import FakeUpstream

HOSTILE_HEADERS = (
    (b"Retry-After", b"5\r\nX-Injected: yes"),
    (b"Retry-After", b"1e9"),
    (b"Retry-After", b"inf"),
    (b"Retry-After", b"-1"),
    (b"Retry-After", b"9" * 5000),
    (b"Retry-After", b"\xff\xfe"),
    (b"Retry-After", b"Thu, 01 Jan 9999 00:00:00 GMT\r\nX-Injected: yes"),
    (b"retry-after-ms", b"nan"),
    (b"x-request-id", b"a\r\nX-Injected: yes\r\n\r\n"),
    (b"x-request-id", b"\xe4\xf6\xfc" + b"a" * 100_000),
    (b"Location", b"http://evil.example/"),
    (b"Set-Cookie", b"a=b"),
    (b"Access-Control-Allow-Origin", b"*"),
    (b"WWW-Authenticate", b"Negotiate"),
    (b"Content-Type", b"text/html"),
    (b"Steno-Model", b"evil"),
    (b"x-request-id", b"evil"),
)


ALLOWED_HEADERS = {"content-type", "content-length", "retry-after", "vary", "x-request-id"}


@pytest.mark.parametrize("status", [200, 400, 401, 429, 503])
def test_upstream_headers_are_not_passed_on(client, webm, status):
    """The mock transport also sends headers that a real connection would reject."""
    for header in HOSTILE_HEADERS:
        no_retry = (b"x-should-retry", b"false")
        body = {"error": {"message": "a\r\nX-Injected: yes"}, "text": "a"}
        http = client(FakeUpstream(httpx2.Response(status, headers=[header, no_retry], json=body)))
        response = http.post("/api/transcribe", files={"file": webm})
        allowed = ALLOWED_HEADERS | {"steno-model"} if status == 200 else ALLOWED_HEADERS
        assert set(response.headers) <= allowed
        assert response.headers["content-type"].startswith("application/")
        assert response.headers["x-request-id"] != "evil"
        assert response.headers.get("steno-model", "gpt-transcribe") == "gpt-transcribe"
        assert 0 <= int(response.headers.get("retry-after", "0")) <= 86_400
        assert len(response.content) < 2000


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_an_upstream_redirect_is_not_followed(webm, tmp_path, status):
    """If a redirect were followed, its target would receive the API key and the recording."""
    paths = []
    with monitor_access(tmp_path) as monitor:

        async def redirect(request):
            paths.append(request.url.path)
            return RedirectResponse(monitor.address, status)

        redirecting = Starlette(
            routes=[Route("/v1/audio/transcriptions", redirect, methods=["POST"])]
        )
        with serving(redirecting) as url:
            config = settings(openai_base_url=f"{url}/v1", request_deadline_seconds=3)
            with TestClient(create_app(config, build_services(config))) as http:
                response = http.post("/api/transcribe", files={"file": webm})
        assert (response.status_code, response.json()["code"]) == (502, "upstream_failed")
        assert len(paths) == 1
        assert monitor.accesses() == []


def test_the_pages_load_scripts_and_styles_from_this_server_only(client):
    """Other scripts could read the token that the recorder page stores in the browser."""
    for path in ("/", "/docs", "/errors"):
        response = client().get(path)
        policy = response.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "style-src 'self';" in policy
        assert "unsafe" not in policy
        loaded = re.findall(r'<(?:script|link)[^>]*(?:src|href)="([^"]*)"', response.text)
        for file in set(loaded) - {"data:,"}:
            assert client().get(f"/{file}").status_code == 200
    assert {client().get(path).status_code for path in ("/redoc", "/docs/oauth2-redirect")} == {404}
