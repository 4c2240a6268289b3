"""Test that at most a second of a recording is lost if the process of the browser is killed."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.browsers.drivers import NO_CHROMIUM, NO_FIREFOX, Firefox, until
from tests.conftest import app, serving
from tests.samples import ASSETS

RECORDED_SECONDS = 6
UNSENT = "Not sent yet. Press Send to transcribe this recording."
TEXT = "document.getElementById('{}').textContent"
# Firefox starts to record up to two seconds after the call of `start()`, and the first chunk with
# sound contains half a second.
FIRST_CHUNK_SECONDS = 0.5
NOTE_FIRST_CHUNK = """(() => {
    const { start } = MediaRecorder.prototype;
    MediaRecorder.prototype.start = function (...options) {
        this.addEventListener("dataavailable", ({ data }) => {
            if (data.size > 1000) globalThis.firstChunk ??= performance.now();
        });
        return start.apply(this, options);
    };
})(), 1"""
SECONDS_SINCE_FIRST_CHUNK = "(performance.now() - globalThis.firstChunk) / 1000"


@contextlib.contextmanager
def chromium_process(profile):
    """Start Chromium with a profile. Yield its process and the address for DevTools clients."""
    command = [
        shutil.which("chromium"),
        "--headless=new",
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={ASSETS / 'beckett.wav'}%noloop",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
    ]
    log = Path(f"{profile}.log")
    with (
        log.open("wb") as file,
        subprocess.Popen(command, stderr=file, start_new_session=True) as process,
    ):
        try:
            yield process, until(lambda: re.search(r"listening on (\S+)", log.read_text()))[1]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def open_page(driver, address, url):
    context = driver.chromium.connect_over_cdp(address).contexts[0]
    page = context.new_page()
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto(url)
    page.wait_for_selector("body[data-ready]")
    return page


@pytest.mark.skipif(bool(NO_CHROMIUM), reason=NO_CHROMIUM)
def test_at_most_a_second_is_lost_if_chromium_is_killed_while_it_records(tmp_path):
    profile = tmp_path / "profile"
    with serving(app()) as url, sync_playwright() as driver:
        with chromium_process(profile) as (process, address):
            page = open_page(driver, address, url)
            page.click("#record")
            expect(page.locator("#clock")).to_have_text(f"0:0{RECORDED_SECONDS}", timeout=20_000)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        with chromium_process(profile) as (_, address):
            page = open_page(driver, address, url)
            page.wait_for_selector("#again:visible")
            until(
                lambda: page.evaluate("Number.isFinite(document.getElementById('sound').duration)")
            )
            seconds = page.evaluate("document.getElementById('sound').duration")
            status = page.inner_text("#status")
    assert status == UNSENT
    assert RECORDED_SECONDS - 1 <= seconds <= RECORDED_SECONDS + 2


@pytest.mark.skipif(bool(NO_FIREFOX), reason=NO_FIREFOX)
def test_at_most_a_second_is_lost_if_firefox_is_killed_while_it_records(tmp_path):
    speech = str(ASSETS / "beckett.wav")
    with serving(app()) as url:
        with Firefox.launch(tmp_path, speech) as page:
            page.open(url)
            until(lambda: page.run("document.body.dataset.ready") == "")
            page.run(NOTE_FIRST_CHUNK)
            page.click("record")
            until(lambda: page.run(TEXT.format("clock")) >= "0:01")
            with page.speaking():  # for ten seconds
                until(lambda: page.run(TEXT.format("clock")) >= f"0:0{RECORDED_SECONDS}")
                recorded = page.run(SECONDS_SINCE_FIRST_CHUNK) + FIRST_CHUNK_SECONDS
                os.killpg(page.process.pid, signal.SIGKILL)
                page.process.wait()
        with Firefox.launch(tmp_path, speech) as page:
            page.open(url)
            until(lambda: page.run(TEXT.format("status")) == UNSENT)
            until(lambda: page.run("Number.isFinite(document.getElementById('sound').duration)"))
            seconds = page.run("document.getElementById('sound').duration")
    assert recorded - 1 <= seconds <= recorded + 1
