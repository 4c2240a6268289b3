"""Test the recorder page in Chromium, Firefox and WebKit with speech from a microphone."""

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

SPEECH = ASSETS / "beckett.wav"  # ten seconds of speech
ENGINES = [
    pytest.param(Chromium, marks=pytest.mark.skipif(bool(NO_CHROMIUM), reason=NO_CHROMIUM)),
    pytest.param(Firefox, marks=pytest.mark.skipif(bool(NO_FIREFOX), reason=NO_FIREFOX)),
    pytest.param(WebKit, marks=pytest.mark.skipif(bool(NO_WEBKIT), reason=NO_WEBKIT)),
]


PARAGRAPHS = "[...document.querySelectorAll('#transcript p')].map((p) => p.textContent).join(' ')"


def normalize(text):
    return jiwer.RemovePunctuation()(text.lower())


@pytest.mark.parametrize("browser", ENGINES)
def test_ten_seconds_of_speech_are_recorded_and_transcribed(browser, server, engine, tmp_path):
    expected = engine.transcribe(asset("beckett.wav"), "a.wav", model="gpt-transcribe").json()[
        "text"
    ]
    with (
        serving(server(openai_base_url=engine.url).app) as url,
        browser.launch(tmp_path, str(SPEECH)) as page,
    ):
        page.open(url)
        until(lambda: page.run("document.body.dataset.ready") == "")
        page.click("record")
        page.speak()
        page.click("record")
        until(lambda: "Transcribed" in page.run("document.getElementById('status').textContent"))
        transcript = page.run(PARAGRAPHS)
    assert jiwer.wer(normalize(expected), normalize(transcript)) <= 0.2, transcript
