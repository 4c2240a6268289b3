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
from tests.samples import excerpts

FOLDER = ROOT / "tests" / "clients" / "screenshots"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
# Sections that the offline engine transcribes without errors
CITIES = ("two_cities.wav", 0, 17.1)
EVERYTHING = ("two_cities.wav", 20.9, 24.4)
BECKETT = ("beckett.wav", 0, 6.2)
DITCH = ("endgame_nagg_nell.wav", 23.3, 28.3)
GREETING = ("endgame_nagg_nell.wav", 0, 3.7)
# The oldest first: the name of the file, and its sections.
FILES = (
    ("Voice message from Sam.wav", [GREETING]),
    ("Rehearsal, second act.wav", [DITCH]),
    ("Reading group, 14 November.wav", [CITIES, EVERYTHING, DITCH, BECKETT]),
)
POLL_ONCE = {"Retry-After": "1000"}
JOB = {"status": "processing", "progress": {"done": 1, "total": 3}, "error": None}


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
            has_touch=kind == "phone",
            locale="en-GB",
            permissions=["microphone", "clipboard-write"],
        ) as context,
        serving(harness.app) as url,
    ):
        allow_uploads_from(harness, url)
        page = context.new_page()

        def write(name):
            page.mouse.move(0, 0)  # away from all buttons
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
    for name, sections in FILES:
        select_file(page, excerpts(*sections), name)
        expect_transcript(page, "")
        leave_item(page)
    page.shoot("2-list")
    page.click("#recent li button")
    expect(page.locator("#total")).to_have_text("0:37")
    page.locator("#position").fill("14")
    expect(page.locator(".spoken")).to_be_visible()
    page.shoot("3-transcript")
    first_part = page.inner_text("#transcript p >> nth=0")
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
    page.click("#data summary")
    page.shoot("8-options-data")
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
    job = {**JOB, "duration": 55.3, "transcript": first_part}
    page.route("**/transcriptions/j", lambda route: route.fulfill(json=job, headers=POLL_ONCE))
    select_file(page, excerpts(CITIES, CITIES, CITIES), "Evening lecture.wav")
    expect(page.locator("#amount")).to_contain_text("0:18 of 0:55")
    expect(page.locator("#total")).to_have_text("0:55")
    page.shoot("12-progress")
    page.click("#cancel")
    page.unroute_all()
    page.route("**/api/config", lambda route: route.abort())
    page.click("#again")
    expect(page.locator("#status")).to_contain_text("No connection")
    page.shoot("13-offline")
    page.click("#cancel")
    page.unroute_all()
    page.shoot("14-not-sent")
    leave_item(page)
    page.shoot("15-list-not-sent")
    select_file(page, b"<!doctype html><p>no sound", "Agenda.pdf")
    expect(page.locator("#status")).to_contain_text("not a recording", timeout=20_000)
    page.shoot("16-error")
    leave_item(page)
    page.shoot("17-list-with-error")
    page.click("#recent li:last-child button")
    page.click("#more summary")
    page.click("#repeat")
    page.shoot("18-transcribe-again")
    page.click("#refuse")
    page.evaluate("document.getElementById('access').showModal()")
    page.shoot("19-token")


def upload():
    return {"id": "j", "upload": {"url": "/bucket", "fields": {}}}
