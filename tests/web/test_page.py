"""The recorder page as it is served."""

import re

from handler.web.pages import router
from infra.stack import OPEN_ROUTES
from tests.conftest import ROOT

FOLDER = ROOT / "handler" / "web" / "page"


def test_every_file_of_the_page_is_served_and_open_at_the_gateway(client):
    http = client(auth="token", access_token="t")
    files = {f"/{path.name}" for path in FOLDER.iterdir()} - {"/index.html", "/docs.html"} | {
        "/",
        "/docs",
    }
    assert {route.path for route in router.routes} == files <= set(OPEN_ROUTES)
    for path in files:
        answer = http.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].partition(";")[0] in (
            "text/html",
            "text/javascript",
            "text/css",
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = http.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_the_page_may_run_its_own_files_and_call_its_own_server(client):
    policy = client().get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "connect-src 'self';" in policy


def test_the_page_may_upload_to_the_bucket(server):
    place = server(idle=True)
    form = place.ask().json()["upload"]["url"]
    (bucket,) = re.findall(
        r"connect-src 'self' (\S+);", place.http.get("/").headers["content-security-policy"]
    )
    assert form.startswith(f"{bucket}/")


def test_the_module_is_under_10_kb_and_the_whole_page_under_34():
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir() if path.stem != "docs"}
    assert sizes["recorder.js"] < 10 * 1024
    assert sum(sizes.values()) < 34 * 1024


def test_nothing_of_the_page_comes_from_elsewhere_or_is_inline():
    for path in set(FOLDER.iterdir()) - {FOLDER / "docs.html"}:
        assert not re.search(
            r"(src|href|from|url\(|import)[=( ]*[\"']?(https?:)?//", path.read_text()
        ), path
    html = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*src=)", html)
