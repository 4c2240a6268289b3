"""The recorder page for everybody: axe-core finds nothing serious in any of its states, light or dark."""

import pytest
from playwright.sync_api import expect

from tests.browsers.test_page import choose, visit
from tests.conftest import serving
from tests.samples import recording

NO_MICROPHONE = """() => {
    navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("", "NotFoundError"));
}"""
CHECK = "() => axe.run({ resultTypes: ['violations'] })"


@pytest.fixture
def page(browser):
    with browser.new_context() as context:
        yield context.new_page()


def begun(page):
    pass


def recording_now(page):
    page.click("#record")
    expect(page.locator("#clock")).to_have_text("0:02", timeout=10_000)


def paused(page):
    recording_now(page)
    page.click("#pause")


def sending(page):
    page.route("**/api/transcribe", lambda _route: None)  # which never ends
    choose(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("Starting")


def transcribed(page):
    choose(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("Transcribed", timeout=30_000)


def refused(page):
    choose(page, b"<html>")
    expect(page.locator("#status")).to_contain_text("not a recording", timeout=30_000)


def without_a_microphone(page):
    page.evaluate(NO_MICROPHONE)
    page.click("#record")
    expect(page.locator("#alert")).not_to_be_empty()


def asked_for_a_token(page):
    page.route(
        "**/api/transcribe", lambda route: route.fulfill(status=401, json={"code": "unauthorized"})
    )
    choose(page, recording("webm"))
    expect(page.locator("#token")).to_be_focused()


def asked_about_the_bill(page):
    transcribed(page)
    page.click("#srt")
    expect(page.locator("#refuse")).to_be_focused()


def without_a_connection(page):
    page.route("**/api/config", lambda route: route.abort())
    choose(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("No connection")


@pytest.mark.parametrize(
    "state",
    [
        begun,
        recording_now,
        paused,
        sending,
        transcribed,
        refused,
        without_a_microphone,
        asked_for_a_token,
        asked_about_the_bill,
        without_a_connection,
    ],
    ids=lambda one: one.__name__,
)
def test_axe_finds_nothing_serious(page, state, server, engine, npm):
    with serving(server(openai_base_url=engine.url).app) as url:
        visit(page, url)
        page.evaluate((npm / "node_modules" / "axe-core" / "axe.min.js").read_text())
        state(page)
        found = {scheme: check(page, scheme) for scheme in ("light", "dark")}
    assert found == {"light": [], "dark": []}


def check(page, scheme):
    page.emulate_media(color_scheme=scheme)
    return [(each["id"], each["nodes"][0]["html"]) for each in page.evaluate(CHECK)["violations"]]
