"""Test that axe-core finds no problem in any state of the recorder page."""

import pytest
from playwright.sync_api import expect

from tests.browsers.test_page import (
    expect_transcript,
    open_page,
    reply_with_job,
    select_file,
)
from tests.conftest import serving
from tests.samples import recording

NO_MICROPHONE = """() => {
    const reject = () => Promise.reject(new DOMException("", "NotFoundError"));
    navigator.mediaDevices.getUserMedia = reject;
}"""
PHONE = {"width": 390, "height": 844}
JOB = {
    "status": "processing",
    "progress": {"done": 3, "total": 12},
    "duration": 720,
    "transcript": "Ever tried.",
    "error": None,
}
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
    page.route("**/api/uploads", lambda _route: None)  # the request never ends
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("Starting")


def transcribing(page):
    reply_with_job(page, JOB)
    select_file(page, recording("webm"))
    expect(page.locator("#amount")).to_contain_text("3:00 of 12:00 minutes")


def transcribed(page):
    select_file(page, recording("webm"))
    expect_transcript(page, "Ever tried")
    expect(page.locator("#player")).to_be_visible()


def playing(page):
    transcribed(page)
    page.click("#play")
    expect(page.locator(".spoken")).to_be_visible()


def download_menu(page):
    transcribed(page)
    page.click("#download summary")


def more_menu(page):
    transcribed(page)
    page.click("#more summary")


def editing(page):
    transcribed(page)
    page.click("#edit")


def renaming(page):
    more_menu(page)
    page.click("#rename")


def deleted(page):
    transcribed(page)
    page.click("#delete")
    expect(page.locator("#undo")).to_be_visible()


def found(page):
    transcribed(page)
    page.fill("#search", "tried")


def nothing_found(page):
    transcribed(page)
    page.fill("#search", "nothing")


def options(page):
    page.click("#options")


def data(page):
    options(page)
    page.click("#data summary")


def not_a_recording(page):
    select_file(page, b"<html>")
    expect(page.locator("#status")).to_contain_text("not a recording", timeout=30_000)


def without_a_microphone(page):
    page.evaluate(NO_MICROPHONE)
    page.click("#record")
    expect(page.locator("#alert")).not_to_be_empty()


def token_dialog(page):
    page.route(
        "**/api/uploads", lambda route: route.fulfill(status=401, json={"code": "unauthorized"})
    )
    select_file(page, recording("webm"))
    expect(page.locator("#token")).to_be_focused()


def billing_dialog(page):
    transcribed(page)
    page.click("#more summary")
    page.click("#repeat")
    expect(page.locator("#refuse")).to_be_focused()


def phone_list(page):
    transcribed(page)
    page.set_viewport_size(PHONE)
    page.click("#back")


def phone_transcript(page):
    page.set_viewport_size(PHONE)
    transcribed(page)


def phone_recording(page):
    page.set_viewport_size(PHONE)
    recording_now(page)


def without_a_connection(page):
    page.route("**/api/config", lambda route: route.abort())
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("No connection")


def not_sent(page):
    without_a_connection(page)
    page.click("#cancel")
    expect(page.locator("#status")).to_contain_text("Not sent yet")


@pytest.mark.parametrize(
    "state",
    [
        initial,
        recording_now,
        paused,
        sending,
        transcribing,
        transcribed,
        playing,
        download_menu,
        more_menu,
        editing,
        renaming,
        deleted,
        found,
        nothing_found,
        options,
        data,
        phone_list,
        phone_transcript,
        phone_recording,
        not_a_recording,
        without_a_microphone,
        token_dialog,
        billing_dialog,
        without_a_connection,
        not_sent,
    ],
    ids=lambda state_function: state_function.__name__,
)
def test_axe_finds_no_problem(page, state, server, engine, npm):
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
