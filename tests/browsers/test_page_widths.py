"""Test the recorder page at many widths: nothing overflows, and all controls are large enough."""

import pytest
from playwright.sync_api import expect

from tests.browsers.test_page import (
    begin_recording,
    open_page,
    reply_with_job,
    select_file,
    set_option,
)
from tests.conftest import app, serving
from tests.fake_upstream import FakeUpstream
from tests.samples import recording

WIDTHS = (320, 390, 768, 899, 900, 1024, 1280, 1920)
HEIGHT = 700
LONG_WORD = "Donaudampfschifffahrtsgesellschaft" * 6
LONG_NAME = f"{LONG_WORD}.webm"
PROGRESS = {"done": 3, "total": 12}
JOB = {
    "status": "processing",
    "progress": PROGRESS,
    "transcript": LONG_WORD,
    "duration": 720,
    "error": None,
}
UNAUTHORIZED = {"code": "unauthorized"}
NO_MICROPHONE = f"""() => {{
    const refuse = () => Promise.reject(new DOMException("{LONG_WORD}", "NotReadableError"));
    navigator.mediaDevices.getUserMedia = refuse;
}}"""
HALF_SENT = """() => {
    const send = XMLHttpRequest.prototype.send;
    XMLHttpRequest.prototype.send = function (body) {
        if (body) this.upload.onprogress({ loaded: 1, total: 2 });
        else send.call(this);
    };
}"""
# Returns the visible elements that leave the screen, are cut off or covered, or are too small.
PROBLEMS = """() => {
    const found = [];
    const name = ({ id, localName, textContent }) =>
        id || `${localName} ${textContent.slice(0, 20)}`;
    const note = (element, problem) => found.push(`${name(element)} ${problem}`);
    // Whether a word continues on the next line.
    const breaksWord = (node) => {
        if (node.nodeType !== Node.TEXT_NODE) return [...node.childNodes].some(breaksWord);
        return [...node.data.matchAll(/\\S+/g)].some(({ 0: word, index }) => {
            const range = new Range();
            range.setStart(node, index);
            range.setEnd(node, index + word.length);
            return range.getClientRects().length > 1;
        });
    };
    if (document.documentElement.scrollWidth > innerWidth) found.push("the page scrolls sideways");
    const dialog = document.querySelector("dialog[open]");
    for (const element of (dialog?.parentElement ?? document.body).querySelectorAll("*")) {
        if (!element.checkVisibility()) continue;
        if (element.matches("#file, .unseen, svg *")) continue;
        const { left, right } = element.getBoundingClientRect();
        if (left < 0 || right > innerWidth) note(element, "leaves the screen");
        if (element.clientWidth && element.scrollWidth > element.clientWidth + 1)
            // A menu covers other elements. The text of an input can be longer than the input.
            if (!element.matches("input, details")) note(element, "is cut off");
    }
    if (dialog) {
        const { top, bottom } = dialog.getBoundingClientRect();
        if (top < 0 || bottom > innerHeight) note(dialog, "leaves the screen");
    }
    const controls = "button, .button, summary, select, textarea, label, input";
    const menu = document.querySelector("details[open]"); // it covers other controls
    for (const control of (dialog ?? menu ?? document).querySelectorAll(controls)) {
        if (!control.checkVisibility() || control.id === "file") continue;
        if (control.closest("details:not([open])") && control.localName !== "summary") continue;
        control.scrollIntoView({ block: "center" });
        const { left, top, width, height } = control.getBoundingClientRect();
        const hit = document.elementFromPoint(left + width / 2, top + height / 2);
        if (!control.contains(hit) && !hit?.contains(control)) note(control, "is covered");
        const isBroken = control.matches(".tool") && height > 56;
        if (isBroken || (control.matches("#dock > *") && breaksWord(control)))
            note(control, "has a broken label");
        if (control.id === "speed" && Math.abs(top - play.getBoundingClientRect().top) > 20)
            note(control, "is below the other buttons");
        const isSmall = control.matches("label:not(.button), input[type=checkbox]");
        if (Math.min(width, height) < (isSmall ? 19 : 44)) note(control, "is too small");
    }
    return found;
}"""


@pytest.fixture
def page(browser):
    """Open the page of a server whose transcripts consist of very long words."""
    words = f"{LONG_WORD} https://example.com/{LONG_WORD}"
    with browser.new_context() as context, serving(app(FakeUpstream(words=words))) as url:
        page = context.new_page()
        open_page(page, url)
        yield page


def empty(page):
    expect(page.locator("#record")).to_be_visible()


def recording_now(page):
    begin_recording(page, "0:01")


def paused(page):
    begin_recording(page, "0:01")
    page.click("#pause")


def without_a_microphone(page):
    page.evaluate(NO_MICROPHONE)
    page.click("#record")
    expect(page.locator("#alert")).not_to_be_empty()


def without_a_connection(page):
    page.route("**/api/config", lambda route: route.abort())
    select_file(page, recording("webm"), LONG_NAME)
    expect(page.locator("#status")).to_contain_text("No connection")


def sending(page):
    page.evaluate(HALF_SENT)
    select_file(page, recording("webm"), LONG_NAME)
    expect(page.locator("#amount")).to_contain_text("50 %")


def transcribing(page):
    reply_with_job(page, JOB)
    select_file(page, recording("webm"), LONG_NAME)
    expect(page.locator("#amount")).to_have_text("3:00 of 12:00 minutes transcribed")


def transcribed(page):
    select_file(page, recording("webm"), LONG_NAME)
    expect(page.locator("#status")).to_contain_text("Transcribed")


def failed(page):
    problem = {"code": "upstream_failed", "detail": f"The speech service answers: {LONG_WORD}"}
    page.route("**/api/transcribe", lambda route: route.fulfill(status=502, json=problem))
    select_file(page, recording("webm"), LONG_NAME)
    expect(page.locator("#again")).to_be_visible()


def token_dialog(page):
    page.route("**/api/transcribe", lambda route: route.fulfill(status=401, json=UNAUTHORIZED))
    select_file(page, recording("webm"), LONG_NAME)
    expect(page.locator("#token")).to_be_visible()


def billing_dialog(page):
    transcribed(page)
    page.click("#more summary")
    page.click("#repeat")
    expect(page.locator("#billing")).to_be_visible()


def playing(page):
    transcribed(page)
    expect(page.locator("#player")).to_be_visible()
    page.click("#play")


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


def phone_list(page):
    transcribed(page)
    page.set_viewport_size({"width": 390, "height": HEIGHT})
    page.click("#back")


def deleted(page):
    transcribed(page)
    page.click("#delete")
    expect(page.locator("#undo")).to_be_visible()


def rejected_keywords(page):
    problem = {"code": "invalid_option", "detail": "`keywords` is not supported by whisper-1."}
    page.route("**/api/transcribe", lambda route: route.fulfill(status=422, json=problem))
    set_option(page, "keywords", "Nagg")
    select_file(page, recording("webm"), LONG_NAME)
    expect(page.locator("#without-keywords")).to_be_visible()


def not_sent(page):
    without_a_connection(page)
    page.click("#cancel")
    expect(page.locator("#status")).to_contain_text("Not sent yet")


def not_a_recording(page):
    problem = {"code": "unsupported_media", "detail": ""}
    page.route("**/api/transcribe", lambda route: route.fulfill(status=415, json=problem))
    select_file(page, recording("webm"), LONG_NAME)
    expect(page.locator("#again")).to_have_text("Choose files")


def options(page):
    page.click("#options")


def data(page):
    options(page)
    page.click("#data summary")
    expect(page.locator("#data .facts")).to_be_visible()


STATES = (
    empty,
    recording_now,
    paused,
    without_a_microphone,
    without_a_connection,
    sending,
    transcribing,
    transcribed,
    failed,
    token_dialog,
    billing_dialog,
    playing,
    download_menu,
    more_menu,
    editing,
    renaming,
    phone_list,
    deleted,
    rejected_keywords,
    not_sent,
    not_a_recording,
    options,
    data,
)


@pytest.mark.parametrize("state", STATES, ids=lambda state_function: state_function.__name__)
def test_the_layout_has_no_problem_at_any_width(page, state):
    state(page)
    problems = {}
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        if problems_at_width := page.evaluate(PROBLEMS):
            problems[width] = problems_at_width
    assert problems == {}
