"""The recorder page in real browsers: what is spoken into it is what is read in it."""

import jiwer
import pytest

from tests.browsers.drivers import (
    NO_CHROMIUM,
    NO_FIREFOX,
    NO_WEBKIT,
    Chromium,
    Firefox,
    WebKit,
    until,
)
from tests.conftest import serving
from tests.samples import ASSETS, asset

SPEECH = ASSETS / "beckett.wav"  # ten seconds
ENGINES = [
    pytest.param(Chromium, marks=pytest.mark.skipif(bool(NO_CHROMIUM), reason=NO_CHROMIUM)),
    pytest.param(Firefox, marks=pytest.mark.skipif(bool(NO_FIREFOX), reason=NO_FIREFOX)),
    pytest.param(WebKit, marks=pytest.mark.skipif(bool(NO_WEBKIT), reason=NO_WEBKIT)),
]


def words(text):
    return jiwer.RemovePunctuation()(text.lower())


@pytest.mark.parametrize("browser", ENGINES)
def test_what_is_spoken_for_ten_seconds_is_read_on_the_page(browser, server, engine, tmp_path):
    spoken = engine.ask(asset("beckett.wav"), "a.wav", model="gpt-transcribe").json()["text"]
    with (
        serving(server(openai_base_url=engine.url).app) as url,
        browser.started(tmp_path, str(SPEECH)) as page,
    ):
        page.open(url)
        until(lambda: page.run("document.body.dataset.ready") == "")
        page.click("record")
        page.speak()
        page.click("record")
        until(lambda: "Transcribed" in page.run("document.getElementById('status').textContent"))
        read = page.run("document.getElementById('transcript').textContent")
    assert jiwer.wer(words(spoken), words(read)) <= 0.2, read
