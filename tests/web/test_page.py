"""Tests of the recorder page: its files, headers and size."""

import re

import pytest

from handler.web.pages import router
from infra.stack import OPEN_ROUTES
from tests.conftest import ROOT

FOLDER = ROOT / "handler" / "web" / "page"


def test_every_file_of_the_page_is_served_without_authentication(client):
    http = client(auth="token", access_token="t")
    assert {route.path for route in router.routes} <= set(OPEN_ROUTES)
    files = [path.name for path in FOLDER.iterdir()] + ["swagger-ui-bundle.js", "swagger-ui.css"]
    for path in ("/", "/docs", "/errors", "/recorder.js", *(f"/page/{name}" for name in files)):
        response = http.get(path)
        assert response.status_code == 200, path
        assert response.headers["content-type"].partition(";")[0] in (
            "text/html",
            "text/javascript",
            "text/css",
            "image/svg+xml",
            "application/manifest+json",
        )
        assert response.headers["x-content-type-options"] == "nosniff"
        cached = http.get(path, headers={"If-None-Match": response.headers["etag"]})
        assert (cached.status_code, cached.content) == (304, b"")


@pytest.mark.parametrize("name", ["nothing.js", "..%2fpages.py", "%2e%2e%2fapp.py", "a/b.js"])
def test_other_files_are_not_served(client, name):
    response = client().get(f"/page/{name}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_browsers_load_all_modules_at_once(client):
    preloaded = set(re.findall(r"<page/([\w.]+)>", client().get("/").headers["link"]))
    modules = {path.name for path in FOLDER.glob("*.js")}
    assert preloaded == modules - {"recorder.js", "docs.js"}


def test_the_page_may_run_only_its_own_scripts_and_call_only_its_server(client):
    policy = client().get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "connect-src 'self';" in policy


def test_the_page_may_upload_to_the_bucket(server):
    harness = server(idle=True)
    form = harness.request_upload().json()["upload"]["url"]
    (bucket,) = re.findall(
        r"connect-src 'self' (\S+);", harness.http.get("/").headers["content-security-policy"]
    )
    assert form.startswith(f"{bucket}/")


def test_the_module_is_under_12_kb_and_the_page_under_80_kb():
    others = ("docs", "errors")
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir() if path.stem not in others}
    assert sizes["recorder.js"] < 12_000
    assert sum(sizes.values()) < 80_000


def test_the_page_has_no_external_or_inline_resources():
    for path in FOLDER.iterdir():
        assert not re.search(
            r"(src|href|from|url\(|import)[=( ]*[\"']?(https?:)?//", path.read_text()
        ), path
    html = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*src=)", html)
