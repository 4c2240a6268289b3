"""Test the layout and accessibility of the recorder page in Firefox and WebKit.

The tests test_page_widths.py and test_accessibility.py test them in Chromium, in more states.
"""

import base64

import pytest

from tests.browsers.drivers import NO_FIREFOX, NO_WEBKIT, Firefox, WebKit, until
from tests.browsers.test_accessibility import CHECK
from tests.browsers.test_page import STORE
from tests.browsers.test_page_widths import HEIGHT, LONG_NAME, LONG_WORD, PROBLEMS
from tests.conftest import app, serving
from tests.samples import ASSETS, recording

WIDTHS = (320, 390, 768, 1280, 1920)
VIOLATIONS = f"""async () => (await ({CHECK})()).violations.map(
    ({{ id, nodes }}) => `${{id}}: ${{nodes[0].html}}`
)"""
SEGMENTS = [
    {"start": 0, "end": 1.5, "text": "Ever tried."},
    {"start": 1.5, "end": 3, "text": LONG_WORD},
]
RESULT = {"model": "gpt-transcribe", "format": "json", "duration": 3}
TRANSCRIBED = {**RESULT, "transcript": f"Ever tried. {LONG_WORD}", "segments": SEGMENTS}
# The oldest first.
ENTRIES = (
    {"name": "Voice message.wav", **TRANSCRIBED},
    {"name": "Interview.wav", "failed": f"The speech service answers: {LONG_WORD}"},
    {"name": LONG_NAME, **TRANSCRIBED},
)
ENGINES = [
    pytest.param(Firefox, marks=pytest.mark.skipif(bool(NO_FIREFOX), reason=NO_FIREFOX)),
    pytest.param(WebKit, marks=pytest.mark.skipif(bool(NO_WEBKIT), reason=NO_WEBKIT)),
]


def is_visible(page, selector):
    return page.run(f"document.querySelector('{selector}').checkVisibility()")


def store_recordings(page):
    """Store recordings in the browser."""
    audio = base64.b64encode(recording("wav")).decode()
    for number, about in enumerate(ENTRIES):
        entry = {"id": str(number), "created": number, "job": "", "type": "audio/wav", **about}
        page.call(STORE, {"entry": entry, "recording": audio})


def open_recording(page, number):
    """Open a recording of the list. On a phone, return to the list before."""
    if is_visible(page, "#back"):
        page.click("back")
    page.run(f"document.querySelectorAll('#recent button')[{number}].click()")


def states(page, open_page):
    """Bring the page into one state after the other. Yield their names."""
    yield "empty"
    store_recordings(page)
    open_page()
    yield "list"
    open_recording(page, 1)
    until(lambda: is_visible(page, "#again"))
    yield "failed"
    open_recording(page, 0)
    until(lambda: page.run("document.getElementById('total').textContent") == "0:03")
    yield "transcript"
    page.click("edit")
    yield "editing"
    page.click("edit")
    page.resize(WIDTHS[-1], HEIGHT)
    page.click("options")
    yield "options"
    page.click("done")
    page.click("record")
    until(lambda: page.run("document.getElementById('clock').textContent") >= "0:01")
    yield "recording"
    page.click("pause")
    yield "paused"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("browser", ENGINES)
def test_no_state_has_a_problem_at_any_width_or_one_that_axe_finds(browser, scheme, npm, tmp_path):
    axe = (npm / "node_modules" / "axe-core" / "axe.min.js").read_text()
    problems = {}
    with (
        serving(app()) as url,
        browser.launch(tmp_path, str(ASSETS / "beckett.wav"), scheme) as page,
    ):

        def open_page():
            page.open(url)
            until(lambda: page.run("document.body.dataset.ready") == "")
            page.run(f"(() => {{ {axe} }})()")

        open_page()
        assert page.call(f"() => matchMedia('(prefers-color-scheme: {scheme})').matches")
        for state in states(page, open_page):
            for width in WIDTHS:
                page.resize(width, HEIGHT)
                until(lambda width=width: page.run("innerWidth") == width)
                if found := page.call(PROBLEMS) + page.call(VIOLATIONS):
                    problems[state, width] = found
    assert problems == {}
