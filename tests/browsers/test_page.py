"""Test the recorder page in Chromium."""

import base64
import contextlib
import re
import wave

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browsers.drivers import until
from tests.browsers.proxy import Proxy
from tests.conftest import ROOT, app, serving
from tests.fake_upstream import FakeUpstream, transcript_response
from tests.samples import asset, long_recording, long_speech, recording

FOLDER = ROOT / "handler" / "web" / "page"
WORDS = "Ever tried. Ever failed."
OFFLINE = "No connection. Retrying …"
OFFLINE_AND_KEPT = "No connection. Retrying; the recording is kept in this browser."
MUTED = """async () => {
    const context = new AudioContext();
    const still = new GainNode(context, { gain: 0 });
    const target = context.createMediaStreamDestination();
    const source = new OscillatorNode(context);
    source.connect(still).connect(target);
    source.start();
    return target.stream;
}"""
DROP = """(recording) => {
    const dropped = new DataTransfer();
    const bytes = Uint8Array.from(atob(recording), (byte) => byte.charCodeAt(0));
    dropped.items.add(new File([bytes], "voice.webm"));
    const options = { dataTransfer: dropped, bubbles: true, cancelable: true };
    document.body.dispatchEvent(new DragEvent("drop", options));
}"""


@pytest.fixture
def start_server(server, engine):
    """Return a function that starts a server with the page and returns its URL and harness."""
    with contextlib.ExitStack() as stack:

        def start(**server_settings):
            harness = server(openai_base_url=engine.url, **server_settings)
            url = stack.enter_context(serving(harness.app))
            allow_uploads_from(harness, url)
            return url, harness

        yield start


def allow_uploads_from(harness, *origins):
    """Allow pages of these origins to upload to the bucket."""
    rule = {"AllowedOrigins": list(origins), "AllowedMethods": ["POST"], "AllowedHeaders": ["*"]}
    harness.s3.put_bucket_cors(Bucket="steno", CORSConfiguration={"CORSRules": [rule]})


@pytest.fixture
def page(browser):
    with browser.new_context(
        permissions=["clipboard-read", "clipboard-write", "microphone"]
    ) as context:
        page = context.new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on(
            "console",
            lambda message: "Security Policy" in message.text and page.errors.append(message.text),
        )
        yield page
        assert page.errors == []


def open_page(page, url):
    page.goto(url)
    page.wait_for_selector("body[data-ready]")


def begin_recording(page, clock):
    """Start recording, and wait until the clock on the page shows `clock`."""
    page.click("#record")
    expect(page.locator("#clock")).to_have_text(clock, timeout=10_000)


def select_file(page, content, name="voice.webm"):
    page.set_input_files("#file", {"name": name, "mimeType": "", "buffer": content})


def expect_transcript(page, text=WORDS):
    expect(page.locator("#transcript")).to_contain_text(text, timeout=90_000)
    expect(page.locator("#status")).to_contain_text("Transcribed by gpt-transcribe", timeout=90_000)


def collect_texts(page, *element_ids):
    """From now on, add each new text of these elements to `window.seen`."""
    page.evaluate(
        """(ids) => {
            window.seen = [];
            for (const id of ids) {
                const element = document.getElementById(id);
                const collect = () => window.seen.push(element.textContent);
                const options = { childList: true, characterData: true, subtree: true };
                new MutationObserver(collect).observe(element, options);
            }
        }""",
        element_ids,
    )


def test_a_recording_of_30_mb_is_uploaded_to_the_bucket_with_its_progress(
    page, start_server, tmp_path
):
    path = tmp_path / "meeting.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(np.repeat(long_speech(157), 2).tobytes())
    assert path.stat().st_size > 30_000_000
    url, harness = start_server()
    before = harness.objects()
    open_page(page, url)
    collect_texts(page, "sent", "status", "transcript")
    network = {
        "offline": False,
        "latency": 5,
        "downloadThroughput": -1,
        "uploadThroughput": 20_000_000,
    }
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", network)
    page.set_input_files("#file", path)
    expect_transcript(page, "the age of wisdom")
    texts = page.evaluate("window.seen")
    sent = [int(found[1]) for text in texts if (found := re.fullmatch(r"Sent (\d+) %", text))]
    assert sent == sorted(sent)
    assert len(set(sent)) >= 5
    assert any(re.fullmatch(r"\d+ of \d+ parts transcribed", text) for text in texts)
    assert any("the age of wisdom" in text for text in texts)
    assert [key.split("/")[0] for key in harness.objects() if key not in before] == ["transcripts"]


def test_a_file_can_be_dropped_anywhere_and_the_language_selected(page, start_server, engine):
    url, _ = start_server()
    open_page(page, url)
    page.select_option("#language", "en")
    page.evaluate(DROP, base64.b64encode(recording("webm")).decode())
    expect_transcript(page, "Ever tried")
    (call,) = engine.calls()
    assert call["fields"]["languages[]"] == ["en"]


def test_recording_works_with_the_keyboard_only(page, start_server):
    url, _ = start_server()
    open_page(page, url)
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("#clock")).to_have_text("0:03", timeout=10_000)
    expect(page.locator("#record")).to_be_focused()
    page.keyboard.press("Space")
    expect_transcript(page, "Ever tried")


def test_a_reset_connection_is_retried_and_billed_once(page, start_server, engine):
    url, _ = start_server()
    with Proxy.in_front_of(url, 2_000_000) as proxy:
        open_page(page, proxy.url)
        select_file(page, long_recording("wav", 25))
        expect_transcript(page, "best of times")
        assert proxy.resets_left == 0
    assert len(engine.calls()) == 1


def test_a_reset_upload_is_retried(page, start_server):
    url, _ = start_server(max_audio_bytes=1000)
    resets = []

    def reset_once(route):
        if route.request.method == "POST" and not resets:
            resets.append(route.request.url)
            route.abort("connectionreset")
        else:
            route.fallback()

    page.route("**/steno*", reset_once)
    page.route("**/steno.*/**", reset_once)
    open_page(page, url)
    select_file(page, recording("webm", seconds=5))
    expect_transcript(page, "Ever tried")
    assert len(resets) == 1


def test_an_unsent_recording_is_available_after_a_reload(page, start_server):
    url, _ = start_server()
    page.route("**/api/config", lambda route: route.abort())
    open_page(page, url)
    begin_recording(page, "0:04")
    page.click("#record")
    expect(page.locator("#status")).to_have_text(OFFLINE_AND_KEPT)
    expect(page.locator("#sound")).to_be_visible()
    page.unroute("**/api/config")
    open_page(page, url)
    expect(page.locator("#status")).to_have_text("Not sent yet")
    page.click("#again")
    expect_transcript(page, "Ever tried")
    open_page(page, url)
    page.click("#recent li button")
    expect_transcript(page, "Ever tried")


def test_a_recording_survives_when_its_page_is_closed(page, start_server):
    url, _ = start_server()
    open_page(page, url)
    begin_recording(page, "0:05")
    page.goto("about:blank")
    open_page(page, url)
    expect(page.locator("#status")).to_have_text("Not sent yet")
    page.click("#again")
    expect_transcript(page, "Ever tried")


def test_a_transcript_that_cannot_be_stored_does_not_delete_the_recording(page, start_server):
    url, _ = start_server()
    page.add_init_script(
        """const put = IDBObjectStore.prototype.put;
        IDBObjectStore.prototype.put = function (entry) {
            if (entry.transcript && !window.name)
                throw new DOMException("full", "QuotaExceededError");
            return put.call(this, entry);
        };"""
    )
    open_page(page, url)
    begin_recording(page, "0:04")
    page.click("#record")
    expect_transcript(page, "Ever tried")
    expect(page.locator("#alert")).to_contain_text("This browser cannot store the recording")
    page.evaluate("window.name = 'with space again'")
    page.on("dialog", lambda dialog: dialog.accept())  # accept the warning about leaving
    open_page(page, url)
    expect(page.locator("#status")).to_have_text("Not sent yet")
    page.click("#again")
    expect_transcript(page, "Ever tried")


def test_another_tab_does_not_send_a_recording_in_progress(page, start_server):
    url, _ = start_server()
    open_page(page, url)
    begin_recording(page, "0:03")
    other = page.context.new_page()
    open_page(other, url)
    expect(other.locator("#recent li")).to_have_count(0)
    page.click("#record")
    expect_transcript(page, "Ever tried")


def test_a_recording_without_speech_is_kept(page, start_server, engine):
    url, _ = start_server()
    engine.script({"body": {"text": "", "usage": {"type": "duration", "seconds": 3}}})
    open_page(page, url)
    begin_recording(page, "0:03")
    page.click("#record")
    expect(page.locator("#status")).to_have_text("No speech found.", timeout=20_000)
    open_page(page, url)
    page.click("#recent li button")
    expect(page.locator("#sound")).to_be_visible()
    expect(page.locator("#again")).to_be_visible()


def test_polling_resumes_after_errors_without_a_new_upload(page, start_server, engine):
    url, _ = start_server(max_audio_bytes=1000)
    engine.script({"delay": 4})
    sent, polls = [], []

    def fail_after_first(route):
        polls.append(1)
        if len(polls) == 1:
            route.fallback()
        else:
            route.fulfill(status=500, json={"code": "http_500"})

    page.on(
        "request",
        lambda request: request.method == "POST" and sent.append(request.url.rpartition("/")[2]),
    )
    page.route("**/api/transcriptions/*", fail_after_first)
    open_page(page, url)
    select_file(page, recording("ogg", seconds=8))
    expect(page.locator("#status")).to_have_text("HTTP status 500", timeout=20_000)
    page.unroute("**/api/transcriptions/*")
    page.click("#again")
    expect_transcript(page, "Ever tried")
    assert sent.count("uploads") == 1


def test_a_job_continues_without_its_page_and_is_polled_after_a_reload(page, start_server, engine):
    url, _ = start_server(max_audio_bytes=1000)
    engine.script({"delay": 4})
    open_page(page, url)
    select_file(page, recording("mp3", seconds=7))
    expect(page.locator("#status")).to_have_text("0 of 1 parts transcribed", timeout=10_000)
    open_page(page, url)
    expect_transcript(page, "Ever tried")


@pytest.mark.parametrize(
    ("server_settings", "content", "message"),
    [
        (
            {"max_upload_bytes": 2000, "max_audio_bytes": 1000},
            b"RIFF" + bytes(5000),
            "larger than 2000 bytes",
        ),
        ({}, b"<!doctype html><p>no sound", "a web page"),
        ({}, b"", "The recording is empty"),
        (
            {"max_audio_bytes": 1000},
            b"GIF89a" + bytes(5000),
            "not a recording in a supported format",
        ),
    ],
)
def test_an_invalid_file_is_rejected_with_a_message(
    page, start_server, server_settings, content, message
):
    url, _ = start_server(**server_settings)
    open_page(page, url)
    select_file(page, content)
    expect(page.locator("#status")).to_contain_text(message, timeout=20_000)
    page.click("#delete")
    expect(page.locator("#recent li")).to_have_count(0)


def test_the_page_requests_the_token_until_it_is_correct_and_stores_it(page, start_server):
    url, _ = start_server(auth="token", access_token="open sesame")
    open_page(page, url)
    select_file(page, asset("beckett.wav"))
    for token, status in (("wrong", 401), ("\u200bopen sesame ", 200)):
        expect(page.locator("[open] #token")).to_be_focused()
        page.keyboard.type(token)
        with page.expect_response(
            lambda response, status=status: (
                response.status == status and "transcribe" in response.url
            )
        ):
            page.keyboard.press("Enter")
    expect_transcript(page)
    open_page(page, url)
    select_file(page, recording("ogg"))
    expect_transcript(page, "Ever tried")
    assert not page.locator("#access").is_visible()


def test_the_token_dialog_can_be_closed(page, start_server):
    url, _ = start_server(auth="token", access_token="open sesame")
    open_page(page, url)
    select_file(page, asset("beckett.wav"))
    expect(page.locator("#token")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_contain_text("access token")


@pytest.mark.parametrize("limit", [26_000_000, 1000])
def test_a_transcript_is_copied_and_saved_in_every_format(page, start_server, limit, tmp_path):
    url, _ = start_server(max_audio_bytes=limit)
    open_page(page, url)
    select_file(page, asset("beckett.wav"), "Krapp's tape.wav")
    expect_transcript(page)
    page.click("#copy")
    assert WORDS in page.evaluate("navigator.clipboard.readText()")
    for kind, begins in (("txt", WORDS), ("srt", "1\n00:00:00,"), ("vtt", "WEBVTT")):
        with page.expect_download() as saved:
            page.click(f"#{kind}")
            if kind == "srt" and limit > 1000:  # direct requests give no timestamps
                page.click("#pay")
        assert saved.value.suggested_filename == f"Krapp's tape.{kind}"
        saved.value.save_as(tmp_path / kind)
        assert begins in (tmp_path / kind).read_text()


def test_cancelling_or_deleting_removes_the_data_from_browser_and_server(
    page, start_server, engine
):
    url, harness = start_server(max_audio_bytes=1000)
    engine.script({"delay": 5}, {"delay": 5})
    before = harness.objects()
    open_page(page, url)
    select_file(page, recording("flac", seconds=6))
    expect(page.locator("#status")).to_have_text("0 of 1 parts transcribed", timeout=10_000)
    page.click("#cancel")
    expect(page.locator("#status")).to_have_text("Not sent yet")
    until(lambda: harness.objects() == before)
    page.click("#delete")
    expect(page.locator("#recent li")).to_have_count(0)
    engine.script()
    select_file(page, recording("ogg", seconds=4))
    expect_transcript(page, "Ever tried")
    assert len(harness.objects()) == len(before) + 1
    page.click("#delete")
    expect(page.locator("#recent li")).to_have_count(0)
    assert harness.objects() == before
    open_page(page, url)
    expect(page.locator("#recent li")).to_have_count(0)


def test_the_input_level_is_shown_during_speech(page, start_server):
    url, _ = start_server()
    open_page(page, url)
    page.evaluate(
        """() => {
            window.levels = [];
            setInterval(() => window.levels.push(document.getElementById("level").value), 50);
        }"""
    )
    begin_recording(page, "0:04")
    assert max(page.evaluate("window.levels")) > 0.3


def test_speech_during_a_pause_is_not_recorded(page, start_server):
    url, _ = start_server()
    open_page(page, url)
    begin_recording(page, "0:04")
    page.click("#pause")
    expect(page.locator("#pause")).to_have_text("Resume")
    page.click("#record")
    expect_transcript(page, "Ever tried")
    assert "Fail better" not in page.inner_text("#transcript")


@pytest.mark.parametrize(
    ("microphone", "message"),
    [
        (
            "() => Promise.reject(new DOMException('', 'NotAllowedError'))",
            "Allow microphone access",
        ),
        ("() => Promise.reject(new DOMException('', 'NotFoundError'))", "No microphone found"),
        ("() => Promise.reject(new DOMException('it is busy', 'NotReadableError'))", "it is busy"),
        # the stream of a muted microphone
        (MUTED, "The microphone was muted"),
    ],
)
def test_a_microphone_error_is_explained(page, start_server, microphone, message):
    url, _ = start_server()
    page.add_init_script(f"navigator.mediaDevices.getUserMedia = {microphone}")
    open_page(page, url)
    page.click("#record")
    if "muted" in message:
        expect(page.locator("#clock")).to_have_text("0:02", timeout=10_000)
        page.click("#record")
        expect(page.locator("#status")).to_contain_text(message)
        expect(page.locator("#again")).to_be_visible()
    else:
        expect(page.locator("#alert")).to_contain_text(message)


# Subtitles, and the confirmation before they are billed

BILLED = "may be billed again"
LINES = [
    {"start": 0, "end": 1.5, "text": " Ever <tried>. "},
    {"start": 3661.25, "end": 3662, "text": "Ever failed."},
]
SUBTITLES = {
    "srt": """\
1
00:00:00,000 --> 00:00:01,500
Ever <tried>.

2
01:01:01,250 --> 01:01:02,000
Ever failed.
""",
    "vtt": """\
WEBVTT

00:00:00.000 --> 00:00:01.500
Ever &lt;tried&gt;.

01:01:01.250 --> 01:01:02.000
Ever failed.
""",
}
CONFIG = {"direct_max_bytes": 1_000_000, "upload_max_bytes": 1_000_000_000}
JOB = {"status": "processing", "progress": {"done": 1, "total": 3}, "transcript": "", "error": None}
SILENT = "There is no sound in the video."
FAILED = {**JOB, "status": "failed", "error": {"code": "no_audio", "detail": SILENT}}
POLL_ONCE = {"Retry-After": "1000"}


@pytest.fixture
def start_without_bucket():
    """Return a function that starts a server without a bucket and returns its URL."""
    with contextlib.ExitStack() as stack:
        yield lambda upstream=None, **server_settings: stack.enter_context(
            serving(app(upstream, **server_settings))
        )


def save(page, kind, *, pay=None):
    """Save subtitles and return their text. `pay` is called to confirm the billing dialog."""
    with page.expect_download() as saved:
        page.click(f"#{kind}")
        if pay:
            pay()
    return saved.value.path().read_text()


def reply_with_job(page, job):
    """Intercept uploads. Each upload creates a job with the id `j`, and polling returns `job`.

    Return a list that collects the HTTP methods of the requests to that job.
    """
    methods = []

    def reply(route):
        methods.append(route.request.method)
        if route.request.method == "GET":
            route.fulfill(json=job, headers=POLL_ONCE)
        else:
            route.fulfill(status=204)

    upload = {"id": "j", "upload": {"url": "/bucket", "fields": {}}}
    page.route("**/api/config", lambda route: route.fulfill(json=CONFIG))
    page.route("**/api/uploads", lambda route: route.fulfill(status=201, json=upload))
    page.route("**/bucket", lambda route: route.fulfill(status=204))
    page.route("**/api/transcriptions/j", reply)
    return methods


def test_subtitles_are_billed_again_only_after_confirmation_and_only_once(
    page, start_server, engine
):
    url, _ = start_server()
    usage = {"type": "duration", "seconds": 130}
    engine.script({"body": {"text": WORDS, "usage": usage}, "times": 50})
    open_page(page, url)
    select_file(page, long_recording("mp3", 130))
    expect_transcript(page)
    assert len(engine.calls()) == 1
    for refuse in (lambda: page.click("#refuse"), lambda: page.keyboard.press("Escape")):
        page.click("#srt")
        expect(page.locator("#billing")).to_contain_text(BILLED)
        refuse()
        expect(page.locator("#billing")).not_to_be_visible()
        expect(page.locator("#status")).to_contain_text("Transcribed by")
    assert engine.calls() == []

    def confirm_twice():
        page.evaluate("for (const _ of [1, 2]) document.getElementById('pay').click()")

    sent = []
    page.on("request", lambda request: sent.append(request.url.rpartition("/")[2]))
    assert "-->" in save(page, "srt", pay=confirm_twice)
    assert len(engine.calls()) > 1  # one call for each part
    assert sent.count("uploads") == 1
    for kind in ("vtt", "srt"):
        assert "-->" in save(page, kind)
    assert engine.calls() == []


def test_subtitles_are_free_if_the_transcript_has_timestamps(page, start_server, engine):
    url, _ = start_server()
    open_page(page, url)
    page.check("#subtitles")
    select_file(page, recording("webm"))
    expect_transcript(page, "Ever tried")
    assert len(engine.calls()) == 1
    assert "-->" in save(page, "srt")
    open_page(page, url)
    page.click("#recent li button")
    assert "-->" in save(page, "vtt")
    assert engine.calls() == []


@pytest.mark.parametrize("requested_first", [True, False])
def test_subtitles_of_a_server_without_jobs_are_billed_once(
    page, start_without_bucket, requested_first
):
    response = transcript_response("Ever tried.", segments=LINES, language="en", duration=3662)
    upstream = FakeUpstream(response, response, response)
    open_page(page, start_without_bucket(upstream, whisper_model="whisper-1"))
    page.set_checked("#subtitles", requested_first)
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_have_text("Transcribed by whisper-1")
    pay = None if requested_first else lambda: page.click("#pay")
    assert save(page, "srt", pay=pay) == SUBTITLES["srt"]
    assert save(page, "vtt") == SUBTITLES["vtt"]
    assert len(upstream.calls) == (1 if requested_first else 2)


def test_subtitles_show_progress_and_can_be_cancelled(page, start_without_bucket):
    open_page(page, start_without_bucket())
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("Transcribed by")
    methods = reply_with_job(page, JOB)
    page.click("#srt")
    page.click("#pay")
    expect(page.locator("#status")).to_have_text("1 of 3 parts transcribed")
    expect(page.locator("#transcribed")).to_contain_text("33 %")
    expect(page.locator("#srt")).not_to_be_visible()
    with page.expect_request(lambda request: request.method == "DELETE"):
        page.click("#cancel")
    expect(page.locator("#status")).to_contain_text("Transcribed by")
    expect(page.locator("#transcript")).to_have_text("Ever tried.")
    page.click("#srt")
    expect(page.locator("#billing")).to_be_visible()
    assert methods == ["GET", "DELETE"]


def test_failed_subtitles_show_the_reason_and_keep_the_transcript(page, start_without_bucket):
    open_page(page, start_without_bucket())
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("Transcribed by")
    reply_with_job(page, FAILED)
    page.click("#srt")
    page.click("#pay")
    expect(page.locator("#status")).to_have_text(SILENT)
    expect(page.locator("#transcript")).to_have_text("Ever tried.")
    page.click("#srt")
    expect(page.locator("#billing")).to_be_visible()


def test_subtitles_of_an_expired_job_need_confirmation_before_billing(page, start_without_bucket):
    open_page(page, start_without_bucket())
    not_found = {"code": "not_found", "detail": "There is no such job, or it has expired."}
    text = {"transcript": "Ever tried."}
    methods = reply_with_job(page, {**JOB, "status": "completed"})
    page.route("**/transcript?*", lambda route: route.fulfill(json=text))
    select_file(page, recording("webm") * 100)
    expect(page.locator("#transcript")).to_have_text("Ever tried.")
    page.unroute_all()
    page.route("**/api/transcriptions/j", lambda route: route.fulfill(status=404, json=not_found))
    page.click("#srt")
    expect(page.locator("#billing")).to_be_visible()
    assert methods == ["GET"]


# Error messages


def test_an_error_is_red_in_the_card_and_in_the_list(page, start_without_bucket):
    open_page(page, start_without_bucket())
    select_file(page, b"")
    expect(page.locator("#status")).to_contain_text("The recording is empty")
    red = "rgb(179, 18, 29)"
    expect(page.locator("#status")).to_have_css("color", red)
    expect(page.locator("#recent small")).to_have_css("color", red)


def test_a_lost_connection_is_reported_and_hides_the_progress(page, start_without_bucket):
    open_page(page, start_without_bucket())
    page.route("**/api/config", lambda route: route.abort())
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_have_text(OFFLINE)
    expect(page.locator("#sent")).not_to_be_visible()
    expect(page.locator("#transcribed")).not_to_be_visible()
    page.unroute("**/api/config")
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.locator("#status")).to_contain_text("Transcribed by")


def test_several_files_can_be_selected_at_once(page, start_without_bucket):
    open_page(page, start_without_bucket())
    file = {"mimeType": "", "buffer": recording("webm")}
    page.set_input_files("#file", [{"name": "one.webm", **file}, {"name": "two.webm", **file}])
    expect(page.locator("#recent li", has_text="Transcribed by")).to_have_count(2)


@pytest.mark.parametrize("content", [b"%PDF-1.7\n% only text\n", b"%PDF-1.7\n\x00\x01\x02\n"])
def test_a_document_is_rejected_without_technical_terms(page, start_without_bucket, content):
    open_page(page, start_without_bucket())
    select_file(page, content, "report.pdf")
    expect(page.locator("#status")).to_contain_text("This file is not a recording")
    for technical in ("curl", "Steno", "Blob", "bytes"):
        assert technical not in page.inner_text("#status")


def test_a_failed_upload_stays_in_the_list_until_it_is_opened(page, start_without_bucket):
    url = start_without_bucket()
    open_page(page, url)
    methods = reply_with_job(page, FAILED)
    select_file(page, recording("webm") * 100)
    expect(page.locator("#status")).to_have_text(SILENT)
    for _ in range(2):
        open_page(page, url)
        expect(page.locator("#current")).not_to_be_visible()
        expect(page.locator("#recent small")).to_have_text(SILENT)
    assert methods == ["GET"]
    page.click("#recent li button")
    expect(page.locator("#status")).to_have_text(SILENT)
    page.route("**/j/retry", lambda route: route.fulfill(status=202, json=JOB))
    page.route("**/transcriptions/j", lambda route: route.fulfill(json=JOB, headers=POLL_ONCE))
    page.click("#again")
    expect(page.locator("#status")).to_have_text("1 of 3 parts transcribed")
    open_page(page, url)
    expect(page.locator("#status")).to_have_text("1 of 3 parts transcribed")


def test_a_paused_recording_has_the_status_paused(page, start_without_bucket):
    open_page(page, start_without_bucket())
    begin_recording(page, "0:01")
    states = (page.locator("#status"), page.locator("#recent small"))
    for state in ("Paused", "Recording …", "Paused"):
        page.click("#pause")
        for element in states:
            expect(element).to_have_text(state)
