"""Write screenshots of every state of the recorder page to tests/clients/screenshots."""

import pytest
from playwright.sync_api import expect

from tests.browsers.test_page import (
    allow_uploads_from,
    begin_recording,
    expect_transcript,
    open_page,
    select_file,
)
from tests.conftest import ROOT, serving
from tests.samples import asset, long_recording

FOLDER = ROOT / "tests" / "clients" / "screenshots"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
# The oldest first: the name of the file, and its content.
FILES = (
    ("Nagg and Nell.wav", lambda: asset("endgame_nagg_nell.wav")),
    ("Voice message from Sam.wav", lambda: asset("beckett.wav")),
    ("Reading group, chapter 1.mp3", lambda: long_recording("mp3", 125)),
)
POLL_ONCE = {"Retry-After": "1000"}
JOB = {
    "status": "processing",
    "progress": {"done": 5, "total": 12},
    "duration": 722.4,
    "transcript": "Good morning. Let us begin with the results of the survey.",
    "error": None,
}


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def shoot(request, browser, server, engine):
    """Return a page with a shoot function that writes a light and a dark screenshot."""
    harness = server(openai_base_url=engine.url)
    FOLDER.mkdir(exist_ok=True)
    kind = request.node.callspec.id
    with (
        browser.new_context(
            viewport=request.param,
            device_scale_factor=2 if kind == "phone" else 1,
            locale="en-GB",
            permissions=["microphone", "clipboard-write"],
        ) as context,
        serving(harness.app) as url,
    ):
        allow_uploads_from(harness, url)
        page = context.new_page()

        def write(name):
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.screenshot(path=FOLDER / f"{kind}-{name}-{scheme}.png")
            page.emulate_media(color_scheme="light")

        page.shoot = write
        open_page(page, url)
        yield page


def leave_item(page):
    if page.locator("#back").is_visible():
        page.click("#back")


def test_every_state_is_photographed(shoot):  # noqa: PLR0915 - a tour through the page
    page = shoot
    page.shoot("1-empty")
    for name, content in FILES:
        select_file(page, content(), name)
        expect_transcript(page, "")
        leave_item(page)
    page.shoot("2-list")
    page.click("#recent li button")
    expect(page.locator("#total")).to_have_text("2:05")
    page.locator("#position").fill("14")
    expect(page.locator(".spoken")).to_be_visible()
    page.shoot("3-transcript")
    page.click("#download summary")
    page.shoot("4-download")
    page.click("#download summary")
    page.click("#edit")
    page.shoot("5-editing")
    page.click("#edit")
    leave_item(page)
    page.fill("#search", "wisdom")
    page.shoot("6-search")
    page.click("#recent li button >> visible=true")
    page.shoot("7-found")
    leave_item(page)
    page.fill("#search", "")
    page.click("#options")
    page.shoot("8-options")
    page.click("#done")
    begin_recording(page, "0:04")
    page.shoot("9-recording")
    page.click("#pause")
    page.shoot("10-paused")
    page.click("#pause")
    page.click("#record")
    expect_transcript(page, "")
    page.click("#delete")
    page.shoot("11-deleted")
    page.click("#undo")
    page.click("#delete")
    page.click("#close")
    page.route("**/api/uploads", lambda route: route.fulfill(status=201, json=upload()))
    page.route("**/bucket", lambda route: route.fulfill(status=204))
    page.route("**/transcriptions/j", lambda route: route.fulfill(json=JOB, headers=POLL_ONCE))
    select_file(page, asset("beckett.wav"), "Interview with Ms Okafor.m4a")
    expect(page.locator("#amount")).to_contain_text("5:01 of 12:02")
    page.shoot("12-progress")
    page.click("#cancel")
    page.unroute_all()
    page.route("**/api/config", lambda route: route.abort())
    page.click("#again")
    expect(page.locator("#status")).to_contain_text("No connection")
    page.shoot("13-offline")
    page.click("#cancel")
    page.unroute_all()
    leave_item(page)
    select_file(page, b"<!doctype html><p>no sound", "Agenda.pdf")
    expect(page.locator("#status")).to_contain_text("not a recording", timeout=20_000)
    page.shoot("14-error")
    leave_item(page)
    page.shoot("15-list-with-error")
    page.click("#recent li:last-child button")
    page.click("#more summary")
    page.click("#repeat")
    page.shoot("16-transcribe-again")
    page.click("#refuse")
    page.evaluate("document.getElementById('access').showModal()")
    page.shoot("17-token")


def upload():
    return {"id": "j", "upload": {"url": "/bucket", "fields": {}}}
