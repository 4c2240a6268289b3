"""What leaves Steno: no header of the upstream's becomes one of ours, and no redirect is followed."""

import re

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import RedirectResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from handler.services import build_services
from handler.web.app import create_app
from tests.attacks.canaries import canaries
from tests.conftest import serving, settings
from tests.false_upstream import FalseUpstream

HOSTILE = (
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


OURS = {"content-type", "content-length", "retry-after", "vary", "x-request-id"}


@pytest.mark.parametrize("status", [200, 400, 401, 429, 503])
def test_no_header_of_the_upstreams_becomes_one_of_ours(client, webm, status):
    """Worse than any could come over a wire."""
    for header in HOSTILE:
        never_again = (b"x-should-retry", b"false")
        body = {"error": {"message": "a\r\nX-Injected: yes"}, "text": "a"}
        http = client(
            FalseUpstream(httpx2.Response(status, headers=[header, never_again], json=body))
        )
        answer = http.post("/api/transcribe", files={"file": webm})
        assert set(answer.headers) <= (OURS | {"steno-model"} if status == 200 else OURS)
        assert answer.headers["content-type"].startswith("application/")
        assert answer.headers["x-request-id"] != "evil"
        assert answer.headers.get("steno-model", "gpt-transcribe") == "gpt-transcribe"
        assert 0 <= int(answer.headers.get("retry-after", "0")) <= 86_400
        assert len(answer.content) < 2000


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_an_upstream_that_sends_us_elsewhere_is_not_followed(webm, tmp_path, status):
    """Whoever it leads to would get the key, and the recording."""
    asked = []
    with canaries(tmp_path) as watched:

        async def elsewhere(request):
            asked.append(request.url.path)
            return RedirectResponse(watched.address, status)

        door = Starlette(routes=[Route("/v1/audio/transcriptions", elsewhere, methods=["POST"])])
        with serving(door) as url:
            chosen = settings(openai_base_url=f"{url}/v1", request_deadline_seconds=3)
            with TestClient(create_app(chosen, build_services(chosen))) as http:
                answer = http.post("/api/transcribe", files={"file": webm})
        assert (answer.status_code, answer.json()["code"]) == (502, "upstream_failed")
        assert len(asked) == 1
        assert watched.knocks() == []


def test_what_the_documents_load_from_elsewhere_is_held_to_its_hash(client):
    """A script from there could read the token that the recorder page keeps in this origin."""
    answer = client().get("/docs")
    page, policy = answer.text, answer.headers["content-security-policy"]
    loaded = re.findall(r'<(?:script|link)[^>]*(?:src|href)="https://[^>]*>', page)
    assert len(loaded) == 2
    for tag in loaded:
        assert re.search(
            r'@\d+\.\d+\.\d+/[^"]*"\s+integrity="sha384-[\w+/]{64}" crossorigin="anonymous"', tag
        ), tag
    assert "script-src 'self' https://cdn.jsdelivr.net/npm/swagger-ui-dist@" in policy
    assert "unsafe" not in policy
    assert {client().get(path).status_code for path in ("/redoc", "/docs/oauth2-redirect")} == {404}
