"""Test that axe-core finds no serious problem in any state of the recorder page."""

import pytest
from playwright.sync_api import expect

from tests.browsers.test_page import open_page, select_file
from tests.conftest import serving
from tests.samples import recording

NO_MICROPHONE = """() => {
    const reject = () => Promise.reject(new DOMException("", "NotFoundError"));
    navigator.mediaDevices.getUserMedia = reject;
}"""
CHECK = "() => axe.run({ resultTypes: ['violations'] })"


@pytest.fixture
def page(browser):
    with browser.new_context() as context:
        yield context.new_page()


def initial(page):
    pass


def recording_now(page):
    page.click("#record")
    expect(page.locator("#clock")).to_have_text("0:02", timeout=10_000)


def paused(page):
    recording_now(page)
    page.click("#pause")


def sending(page):
    page.route("**/api/transcribe", lambda _route: None)  # the request never ends
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("Starting")


def transcribed(page):
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("Transcribed", timeout=30_000)


def not_a_recording(page):
    select_file(page, b"<html>")
    expect(page.locator("#status")).to_contain_text("not a recording", timeout=30_000)


def without_a_microphone(page):
    page.evaluate(NO_MICROPHONE)
    page.click("#record")
    expect(page.locator("#alert")).not_to_be_empty()


def token_dialog(page):
    page.route(
        "**/api/transcribe", lambda route: route.fulfill(status=401, json={"code": "unauthorized"})
    )
    select_file(page, recording("webm"))
    expect(page.locator("#token")).to_be_focused()


def billing_dialog(page):
    transcribed(page)
    page.click("#srt")
    expect(page.locator("#refuse")).to_be_focused()


def without_a_connection(page):
    page.route("**/api/config", lambda route: route.abort())
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("No connection")


@pytest.mark.parametrize(
    "state",
    [
        initial,
        recording_now,
        paused,
        sending,
        transcribed,
        not_a_recording,
        without_a_microphone,
        token_dialog,
        billing_dialog,
        without_a_connection,
    ],
    ids=lambda state_function: state_function.__name__,
)
def test_axe_finds_no_serious_problem(page, state, server, engine, npm):
    with serving(server(openai_base_url=engine.url).app) as url:
        open_page(page, url)
        page.evaluate((npm / "node_modules" / "axe-core" / "axe.min.js").read_text())
        state(page)
        violations = {scheme: check(page, scheme) for scheme in ("light", "dark")}
    assert violations == {"light": [], "dark": []}


def check(page, scheme):
    page.emulate_media(color_scheme=scheme)
    return [
        (violation["id"], violation["nodes"][0]["html"])
        for violation in page.evaluate(CHECK)["violations"]
    ]
