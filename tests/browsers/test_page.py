"""Test the recorder page in Chromium."""

import base64
import contextlib
import re
import time
import wave

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browsers.drivers import until
from tests.conftest import ROOT, app, serving
from tests.fake_upstream import FakeUpstream, transcript_response
from tests.samples import asset, long_recording, long_speech, recording

FOLDER = ROOT / "handler" / "web" / "page"
WORDS = "Ever tried. Ever failed."
UNSENT = "Not sent yet. Press Send to transcribe this recording."
OFFLINE = "No connection, retrying. Your recording is safe."
MUTED = """async () => {
    const context = new AudioContext();
    const still = new GainNode(context, { gain: 0 });
    const target = context.createMediaStreamDestination();
    const source = new OscillatorNode(context);
    source.connect(still).connect(target);
    source.start();
    return target.stream;
}"""
DRAG = """({ recording, type }) => {
    const dragged = new DataTransfer();
    const bytes = Uint8Array.from(atob(recording), (byte) => byte.charCodeAt(0));
    for (const name of ["one.webm", "two.webm"]) dragged.items.add(new File([bytes], name));
    const options = { dataTransfer: dragged, bubbles: true, cancelable: true };
    document.body.dispatchEvent(new DragEvent(type, options));
}"""
COUNT_CHUNKS = """() => new Promise((resolve) => {
    indexedDB.open("steno").onsuccess = ({ target: { result } }) => {
        const counted = result.transaction("chunks").objectStore("chunks").count();
        counted.onsuccess = () => resolve(counted.result);
    };
})"""
# Stores a recording and its entry in the browser.
STORE = """async ({ entry, recording }) => {
    const { addChunk, save } = await import("./page/kept.js");
    const bytes = Uint8Array.from(atob(recording), (byte) => byte.charCodeAt(0));
    await addChunk(entry, bytes.buffer);
    await save(entry);
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


def set_option(page, element_id, value):
    page.click("#options")
    field = page.locator(f"#{element_id}")
    if element_id == "language":
        field.select_option(value)
    elif element_id == "keywords":
        field.fill(value)
    else:
        field.set_checked(value)
    page.click("#done")


def expect_recordings(page, count):
    """Expect the number of visible recordings in the list."""
    expect(page.locator("#recent li").filter(visible=True)).to_have_count(count)


def save(page, kind):
    """Download the selected recording in a format. Return the download."""
    page.click("#download summary")
    with page.expect_download() as saved:
        page.click(f"#{kind}")
    return saved.value


def saved_text(page, kind):
    return save(page, kind).path().read_text()


def collect_requests(page):
    """Return a list to which the paths of all further requests to the API are added."""
    sent = []
    page.on(
        "request",
        lambda request: "/api/" in request.url and sent.append(request.url.partition("/api/")[2]),
    )
    return sent


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
    collect_texts(page, "amount", "transcript")
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
    sent = [int(found[1]) for text in texts if (found := re.match(r"(\d+) % sent", text))]
    assert sent == sorted(sent)
    assert len(set(sent)) >= 5
    assert any(re.match(r"\d:\d\d of 2:37 minutes transcribed", text) for text in texts)
    assert any("the age of wisdom" in text for text in texts)
    assert [key.split("/")[0] for key in harness.objects() if key not in before] == ["transcripts"]


def test_files_can_be_dropped_anywhere_and_the_language_selected(page, start_server, engine):
    url, _ = start_server()
    open_page(page, url)
    set_option(page, "language", "en")
    dragged = {"recording": base64.b64encode(recording("webm")).decode()}
    page.evaluate(DRAG, dragged | {"type": "dragover"})
    expect(page.locator("#dropzone")).to_be_visible()
    page.evaluate(DRAG, dragged | {"type": "drop"})
    expect(page.locator("#dropzone")).not_to_be_visible()
    expect_transcript(page, "Ever tried")
    expect(page.locator("#recent small")).to_have_text(["Transcribed"] * 2, timeout=90_000)
    assert {tuple(call["fields"]["languages[]"]) for call in engine.calls()} == {("en",)}


def test_recording_works_with_the_keyboard_only(page, start_server):
    url, _ = start_server()
    open_page(page, url)
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("#clock")).to_have_text("0:03", timeout=10_000)
    expect(page.locator("#record")).to_be_focused()
    page.keyboard.press("Space")
    expect_transcript(page, "Ever tried")


def test_a_lost_response_is_requested_again_and_billed_once(page, start_server, engine):
    url, _ = start_server()
    lost = []

    def lose_first(route):
        route.fetch()  # the server receives the request, but the page receives no response
        lost.append(route.request.url)
        route.abort("connectionreset")
        page.unroute("**/api/uploads")

    page.route("**/api/uploads", lose_first)
    open_page(page, url)
    select_file(page, long_recording("wav", 15))
    expect_transcript(page, "")
    assert len(lost) == 1
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
    expect(page.locator("#status")).to_have_text(OFFLINE)
    expect(page.locator("#player")).to_be_visible()
    page.unroute("**/api/config")
    open_page(page, url)
    expect(page.locator("#status")).to_have_text(UNSENT)
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
    expect(page.locator("#status")).to_have_text(UNSENT)
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
    sent = collect_requests(page)
    open_page(page, url)
    expect_transcript(page, "Ever tried")
    expect(page.locator("#player")).to_be_visible()
    assert "uploads" not in sent  # the transcript of the job is fetched again


def test_another_tab_does_not_send_a_recording_in_progress(page, start_server):
    url, _ = start_server()
    open_page(page, url)
    begin_recording(page, "0:03")
    other = page.context.new_page()
    open_page(other, url)
    expect_recordings(other, 0)
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
    expect(page.locator("#player")).to_be_visible()
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
    expect(page.locator("#amount")).to_have_text("0:00 of 0:07 minutes transcribed", timeout=10_000)
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
    expect_recordings(page, 0)


def test_the_page_requests_the_token_until_it_is_correct_and_stores_it(page, start_server):
    url, _ = start_server(auth="token", access_token="open sesame")
    open_page(page, url)
    select_file(page, asset("beckett.wav"))
    for token, status in (("wrong", 401), ("\u200bopen sesame ", 201)):
        expect(page.locator("[open] #token")).to_be_focused()
        page.keyboard.type(token)
        with page.expect_response(
            lambda response, status=status: response.status == status and "uploads" in response.url
        ):
            page.keyboard.press("Enter")
    expect_transcript(page)
    open_page(page, url)
    select_file(page, recording("ogg"))
    expect_transcript(page, "Ever tried")
    assert not page.locator("#access").is_visible()


@pytest.mark.parametrize("leave", ["Escape", "Cancel"])
def test_the_token_dialog_can_be_closed(page, start_server, leave):
    url, _ = start_server(auth="token", access_token="open sesame")
    open_page(page, url)
    select_file(page, asset("beckett.wav"))
    expect(page.locator("#token")).to_be_focused()
    if leave == "Escape":
        page.keyboard.press("Escape")
    else:
        page.keyboard.type("not sent")
        page.click("#no-token")
    expect(page.locator("#status")).to_contain_text("access token")
    assert page.evaluate("localStorage.getItem('token')") is None


@pytest.mark.parametrize("limit", [26_000_000, 1000])
def test_a_transcript_is_copied_and_saved_in_every_format(page, start_server, limit):
    url, _ = start_server(max_audio_bytes=limit)
    open_page(page, url)
    select_file(page, asset("beckett.wav"), "Krapp's tape.wav")
    expect_transcript(page)
    page.click("#copy")
    assert WORDS in page.evaluate("navigator.clipboard.readText()")
    begins = {"txt": WORDS, "srt": "1\n00:00:00,", "vtt": "WEBVTT", "json": '"segments": ['}
    for kind, beginning in begins.items():
        saved = save(page, kind)
        assert saved.suggested_filename == f"Krapp's tape.{kind}"
        assert beginning in saved.path().read_text()
    saved = save(page, "audio")
    assert saved.suggested_filename == "Krapp's tape.wav"
    assert saved.path().read_bytes() == asset("beckett.wav")


def test_cancelling_or_deleting_removes_the_data_from_browser_and_server(
    page, start_server, engine
):
    url, harness = start_server(max_audio_bytes=1000)
    engine.script({"delay": 5}, {"delay": 5})
    before = harness.objects()
    open_page(page, url)
    select_file(page, recording("flac", seconds=6))
    expect(page.locator("#amount")).to_have_text("0:00 of 0:06 minutes transcribed", timeout=10_000)
    page.click("#cancel")
    expect(page.locator("#status")).to_have_text(UNSENT)
    until(lambda: harness.objects() == before)
    page.click("#delete")
    expect_recordings(page, 0)
    engine.script()
    select_file(page, recording("ogg", seconds=4))
    expect_transcript(page, "Ever tried")
    assert len(harness.objects()) == len(before) + 1
    page.click("#delete")
    page.click("#close")  # ends the time in which the user can undo
    expect(page.locator("#recent li")).to_have_count(0)
    assert harness.objects() == before
    assert page.evaluate(COUNT_CHUNKS) == 0
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

BILLED = "This may cost money again"
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


def store_old_transcript(page, url, content):
    """Store the transcript of an earlier version, which has no times, and its recording."""
    open_page(page, url)
    about = {"id": "old", "name": "old.mp3", "created": 1, "type": "audio/mpeg", "job": ""}
    entry = {**about, "transcript": WORDS, "model": "gpt-transcribe", "format": "json"}
    page.evaluate(STORE, {"entry": entry, "recording": base64.b64encode(content).decode()})
    open_page(page, url)
    page.click("#recent li button")
    expect_transcript(page)
    expect(page.locator("#player")).to_be_visible()


def click_subtitles(page, kind):
    page.click("#download summary")
    page.click(f"#{kind}")


def test_subtitles_are_billed_again_only_after_confirmation_and_only_once(
    page, start_server, engine
):
    url, _ = start_server()
    usage = {"type": "duration", "seconds": 130}
    engine.script({"body": {"text": WORDS, "usage": usage}, "times": 50})
    store_old_transcript(page, url, long_recording("mp3", 130))
    for refuse in (lambda: page.click("#refuse"), lambda: page.keyboard.press("Escape")):
        click_subtitles(page, "srt")
        expect(page.locator("#billing")).to_contain_text(BILLED)
        refuse()
        expect(page.locator("#billing")).not_to_be_visible()
        expect(page.locator("#status")).to_contain_text("Transcribed by")
    assert engine.calls() == []
    sent = collect_requests(page)
    click_subtitles(page, "srt")
    with page.expect_download(timeout=90_000) as saved:
        page.evaluate("for (const _ of [1, 2]) document.getElementById('pay').click()")
    assert "-->" in saved.value.path().read_text()
    assert len(engine.calls()) > 1  # one call for each part
    assert sent.count("uploads") == 1
    for kind in ("vtt", "srt"):
        assert "-->" in saved_text(page, kind)
    assert engine.calls() == []


def test_subtitles_after_the_text_need_no_request(page, start_server, engine):
    url, _ = start_server()
    open_page(page, url)
    select_file(page, recording("webm"))
    expect_transcript(page, "Ever tried")
    assert len(engine.calls()) == 1
    sent = collect_requests(page)
    assert "-->" in saved_text(page, "srt")
    open_page(page, url)
    page.click("#recent li button")
    assert "-->" in saved_text(page, "vtt")
    assert sent == []
    assert engine.calls() == []


def test_subtitles_of_a_server_without_jobs_are_billed_once(page, start_without_bucket):
    response = transcript_response("Ever tried.", segments=LINES, language="en", duration=3662)
    upstream = FakeUpstream(response)
    open_page(page, start_without_bucket(upstream, whisper_model="whisper-1"))
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_have_text("Transcribed by whisper-1")
    for kind, subtitles in SUBTITLES.items():
        assert saved_text(page, kind) == subtitles
    assert len(upstream.calls) == 1


def test_long_segments_are_split_into_cues_of_two_lines(page, start_without_bucket):
    text = "It was the best of times, it was the worst of times, " * 4
    segments = [{"start": 0, "end": 16, "text": text}, {"start": 16, "end": 17, "text": "短い。"}]
    upstream = FakeUpstream(transcript_response(text, segments=segments, duration=17))
    open_page(page, start_without_bucket(upstream, whisper_model="whisper-1"))
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_have_text("Transcribed by whisper-1")
    cues = [cue.splitlines() for cue in saved_text(page, "srt").split("\n\n")]
    assert [cue[0] for cue in cues] == ["1", "2", "3", "4"]
    assert cues[0][1].startswith("00:00:00,000 --> 00:00:05")
    assert cues[3] == ["4", "00:00:16,000 --> 00:00:17,000", "短い。"]
    for cue in cues:
        assert len(cue) <= 4
        assert max(map(len, cue[2:])) <= 48
    assert " ".join(" ".join(cue[2:]) for cue in cues[:3]) == text.strip()


def test_a_server_that_cannot_measure_times_still_transcribes(page, start_without_bucket):
    upstream = FakeUpstream()
    open_page(page, start_without_bucket(upstream))
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("Transcribed by")
    expect(page.locator("#transcript")).to_have_text("Ever tried.")
    assert len(upstream.calls) == 1


def test_subtitles_show_progress_and_can_be_cancelled(page, start_without_bucket):
    open_page(page, start_without_bucket())
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("Transcribed by")
    methods = reply_with_job(page, JOB)
    click_subtitles(page, "srt")
    page.click("#pay")
    expect(page.locator("#status")).to_have_text("Transcribing …")
    expect(page.locator("#amount")).to_have_text("1 of 3 parts transcribed")
    expect(page.locator("#repeat")).to_be_hidden()
    with page.expect_request(lambda request: request.method == "DELETE"):
        page.click("#cancel")
    expect(page.locator("#status")).to_contain_text("Transcribed by")
    expect(page.locator("#transcript")).to_have_text("Ever tried.")
    click_subtitles(page, "srt")
    expect(page.locator("#billing")).to_be_visible()
    assert methods == ["GET", "DELETE"]


def test_failed_subtitles_show_the_reason_and_keep_the_transcript(page, start_without_bucket):
    open_page(page, start_without_bucket())
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("Transcribed by")
    reply_with_job(page, FAILED)
    click_subtitles(page, "srt")
    page.click("#pay")
    expect(page.locator("#status")).to_have_text(SILENT)
    expect(page.locator("#transcript")).to_have_text("Ever tried.")
    click_subtitles(page, "srt")
    expect(page.locator("#billing")).to_be_visible()


def test_a_repeated_transcription_continues_after_a_reload(page, start_without_bucket):
    url = start_without_bucket()
    open_page(page, url)
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("Transcribed by")
    reply_with_job(page, JOB)
    page.click("#more summary")
    page.click("#repeat")
    page.click("#pay")
    expect(page.locator("#amount")).to_have_text("1 of 3 parts transcribed")
    result = {"transcript": "Fail better.", "segments": [], "duration": 3, "model": "gpt"}
    page.route("**/transcript?*", lambda route: route.fulfill(json=result))
    done = {**JOB, "status": "completed"}
    page.route("**/api/transcriptions/j", lambda route: route.fulfill(json=done))
    open_page(page, url)
    expect(page.locator("#transcript")).to_have_text("Fail better.")


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
    expect(page.locator("#work")).not_to_be_visible()
    page.unroute("**/api/config")
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.locator("#status")).to_contain_text("Transcribed by")


def test_several_files_can_be_selected_at_once(page, start_without_bucket):
    open_page(page, start_without_bucket())
    file = {"mimeType": "", "buffer": recording("webm")}
    page.set_input_files("#file", [{"name": "one.webm", **file}, {"name": "two.webm", **file}])
    expect(page.locator("#recent small")).to_have_text(["Transcribed"] * 2)
    expect(page.locator("#recent .name")).to_have_text(["one.webm", "two.webm"])


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
    expect(page.locator("#amount")).to_have_text("1 of 3 parts transcribed")
    open_page(page, url)
    expect(page.locator("#amount")).to_have_text("1 of 3 parts transcribed")


def test_a_file_that_is_not_a_recording_is_not_sent_again(page, start_without_bucket):
    url = start_without_bucket()
    open_page(page, url)
    methods = reply_with_job(page, {**FAILED, "error": {"code": "unsupported_media", "detail": ""}})
    select_file(page, b"%PDF-1.7\n")
    expect(page.locator("#again")).to_have_text("Choose files")
    open_page(page, url)
    page.click("#recent li button")
    expect(page.locator("#status")).to_contain_text("This file is not a recording")
    page.unroute_all()
    with page.expect_file_chooser() as chooser:
        page.click("#again")
    file = {"name": "voice.webm", "mimeType": "", "buffer": recording("webm")}
    chooser.value.set_files(file)
    expect(page.locator("#status")).to_contain_text("Transcribed by")
    expect_recordings(page, 2)
    assert methods == ["GET"]


def test_a_paused_recording_has_the_status_paused(page, start_without_bucket):
    open_page(page, start_without_bucket())
    begin_recording(page, "0:01")
    states = (page.locator("#status"), page.locator("#recent small"))
    for state in ("Paused", "Recording …", "Paused"):
        page.click("#pause")
        for element in states:
            expect(element).to_have_text(state)


# What is kept in the browser


def test_audio_text_and_subtitles_are_kept_after_a_week(page, start_server, engine):
    url, _ = start_server()
    open_page(page, url)
    select_file(page, asset("beckett.wav"), "beckett.wav")
    expect_transcript(page)
    text = page.inner_text("#transcript")
    page.clock.install(time=time.time() + 7 * 24 * 3600)
    page.route("**/api/**", lambda route: route.abort())
    engine.calls()
    for _ in range(2):
        open_page(page, url)
        page.click("#recent li button")
        expect(page.locator("#player")).to_be_visible()
        assert page.inner_text("#transcript") == text
        assert "-->" in saved_text(page, "srt")
        assert save(page, "audio").path().read_bytes() == asset("beckett.wav")
    assert engine.calls() == []


def test_audio_is_deleted_after_transcription_only_if_the_user_wants_it(page, start_server):
    url, _ = start_server()
    open_page(page, url)
    set_option(page, "delete-audio", True)
    select_file(page, recording("webm"))
    expect_transcript(page, "Ever tried")
    expect(page.locator("#player")).not_to_be_visible()
    assert page.evaluate(COUNT_CHUNKS) == 0
    open_page(page, url)
    set_option(page, "delete-audio", False)
    select_file(page, recording("webm", seconds=2))
    expect_transcript(page, "Ever tried")
    expect(page.locator("#player")).to_be_visible()
    page.click("#more summary")
    page.click("#drop-audio")
    expect(page.locator("#player")).not_to_be_visible()
    expect(page.locator("#transcript")).to_contain_text("Ever tried")
    assert page.evaluate(COUNT_CHUNKS) == 0


def correct_first_sentence(page, start_server):
    """Transcribe beckett.wav, and replace its first sentence. Return the URL of the page."""
    url, _ = start_server()
    open_page(page, url)
    select_file(page, asset("beckett.wav"), "beckett.wav")
    expect_transcript(page)
    page.click("#edit")
    page.get_by_label("Text at").first.fill("Often tried.")
    return url


def test_a_corrected_word_is_kept_and_is_part_of_every_file(page, start_server):
    url = correct_first_sentence(page, start_server)
    page.click("#edit")
    expect(page.locator("#transcript")).to_contain_text("Often tried. Ever failed.")
    expect(page.locator("#recent .words")).to_contain_text("Often tried.")
    open_page(page, url)
    page.click("#recent li button")
    expect(page.locator("#transcript")).to_contain_text("Often tried. Ever failed.")
    for kind in ("txt", "srt", "vtt", "json"):
        assert "Often tried." in saved_text(page, kind)


def test_a_correction_is_kept_if_the_page_is_closed_at_once(page, start_server):
    url = correct_first_sentence(page, start_server)
    open_page(page, url)
    page.click("#recent li button")
    expect(page.locator("#transcript")).to_contain_text("Often tried. Ever failed.")


def test_a_recording_can_be_renamed(page, start_without_bucket):
    url = start_without_bucket()
    open_page(page, url)
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("Transcribed by")
    page.click("#more summary")
    page.click("#rename")
    expect(page.locator("#new-name")).to_be_focused()
    page.keyboard.type("Interview")
    page.keyboard.press("Enter")
    expect(page.locator("#name")).to_have_text("Interview")
    open_page(page, url)
    expect(page.locator("#recent .name")).to_have_text("Interview")


def test_deleting_can_be_undone(page, start_server):
    url, harness = start_server()
    open_page(page, url)
    select_file(page, recording("webm"))
    expect_transcript(page, "Ever tried")
    kept = harness.objects()
    page.click("#delete")
    expect_recordings(page, 0)
    page.click("#undo")
    expect_transcript(page, "Ever tried")
    open_page(page, url)
    page.click("#recent li button")
    expect(page.locator("#player")).to_be_visible()
    assert harness.objects() == kept


def test_a_deleted_recording_is_gone_after_some_seconds_or_at_the_next_visit(page, start_server):
    url, harness = start_server()
    before = harness.objects()
    open_page(page, url)
    for _ in range(2):
        select_file(page, recording("webm"))
        expect_transcript(page, "Ever tried")
    page.clock.install()
    page.click("#delete")
    page.clock.run_for(20_000)
    expect(page.locator("#recent li")).to_have_count(1)
    page.clock.resume()
    page.click("#recent li button")
    page.click("#delete")
    expect_recordings(page, 0)
    open_page(page, url)
    until(lambda: harness.objects() == before)
    until(lambda: page.evaluate(COUNT_CHUNKS) == 0)


def test_a_recording_that_the_server_could_not_delete_is_deleted_at_the_next_visit(
    page, start_server
):
    url, harness = start_server()
    before = harness.objects()
    open_page(page, url)
    select_file(page, recording("webm"))
    expect_transcript(page, "Ever tried")
    page.route(
        "**/api/transcriptions/*",
        lambda route: route.fulfill(status=500, json={"code": "internal"}),
    )
    page.click("#delete")
    page.click("#close")
    expect(page.locator("#alert")).to_contain_text("not deleted yet")
    assert page.evaluate(COUNT_CHUNKS) == 0
    page.unroute_all()
    open_page(page, url)
    expect_recordings(page, 0)
    until(lambda: harness.objects() == before)


# Playback, search and options


def current_time(page):
    return page.evaluate("document.getElementById('sound').currentTime")


def test_a_recording_without_a_duration_can_be_played_and_searched_by_time(page, start_server):
    url, _ = start_server()
    open_page(page, url)
    begin_recording(page, "0:06")
    page.click("#record")
    expect_transcript(page, "Ever tried")
    assert page.evaluate("Number.isFinite(document.getElementById('sound').duration)")
    expect(page.locator("#total")).to_have_text("0:06")
    page.locator("#transcript span").nth(1).click()
    assert current_time(page) > 1
    expect(page.locator(".spoken")).to_have_text("Ever failed.")
    open_page(page, url)
    page.click("#recent li button")
    expect(page.locator("#total")).to_have_text("0:06")


def test_the_keyboard_controls_the_player_and_the_search(page, start_server):
    url, _ = start_server()
    open_page(page, url)
    select_file(page, asset("beckett.wav"), "beckett.wav")
    expect_transcript(page)
    page.locator("#name").focus()
    page.keyboard.press("l")
    assert current_time(page) == 5
    page.keyboard.press("j")
    assert current_time(page) == 0
    page.keyboard.press("Space")
    expect(page.locator("#play")).to_have_accessible_name("Pause")
    expect(page.locator(".spoken")).to_have_text("Ever tried.")
    page.keyboard.press("k")
    expect(page.locator("#play")).to_have_accessible_name("Play")
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("jkl matter")
    expect(page.locator("#none")).to_have_text("No recording contains these words.")
    expect_recordings(page, 0)
    page.fill("#search", "NO MATTER")
    expect_recordings(page, 1)


def test_found_words_are_marked_in_the_list_and_in_the_transcript(page, start_without_bucket):
    marked = "(name) => [...CSS.highlights.get(name)].map(String)"
    open_page(page, start_without_bucket())
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("Transcribed by")
    for words, found in (("TRIED", ["tried"]), ("nothing", []), ("", [])):
        page.fill("#search", words)
        for name in ("listed", "found"):
            assert page.evaluate(marked, name) == found


def test_phones_show_where_the_data_is_and_no_hints_for_mice_and_keyboards(
    browser, start_without_bucket
):
    url = start_without_bucket()
    with browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True) as context:
        page = context.new_page()
        open_page(page, url)
        expect(page.locator(".pointer")).to_have_count(2)
        expect(page.locator("#welcome .pointer")).to_be_hidden()
        select_file(page, recording("webm"))
        expect(page.locator("#status")).to_contain_text("Transcribed by")
        page.click("#back")
        page.click("#options")
        expect(page.locator("#settings .pointer")).to_be_hidden()
        page.click("#data summary")
        expect(page.locator("#data")).to_contain_text("until you delete them")
        expect(page.locator("#data .facts")).to_be_visible()


def test_languages_are_sorted_and_the_choice_is_remembered(page, start_without_bucket):
    url = start_without_bucket()
    open_page(page, url)
    page.click("#options")
    names = page.locator("#language option").all_inner_texts()
    assert names[:3] == ["Detect automatically", "Arabic", "Bulgarian"]
    assert names[1:] == sorted(names[1:])
    page.click("#done")
    set_option(page, "language", "de")
    open_page(page, url)
    expect(page.locator("#language")).to_have_value("de")


def test_names_and_terms_are_sent_and_can_be_removed_if_the_model_rejects_them(
    page, start_without_bucket
):
    upstream = FakeUpstream()
    timed = transcript_response("Ever tried.", segments=LINES[:1], duration=3)
    open_page(page, start_without_bucket(upstream))
    set_option(page, "keywords", "Nagg, Nell")
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("Transcribed by")
    assert "Nagg" in str(upstream.calls[0].fields)
    open_page(page, start_without_bucket(FakeUpstream(timed), whisper_model="whisper-1"))
    set_option(page, "keywords", "Nagg, Nell")
    select_file(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("does not support names and terms")
    page.click("#without-keywords")
    expect(page.locator("#status")).to_contain_text("Transcribed by whisper-1")


def test_a_notification_is_shown_if_the_page_is_hidden(page, start_without_bucket):
    page.add_init_script(
        """window.notified = [];
        window.Notification = class {
            static permission = "granted";
            static requestPermission = async () => "granted";
            constructor(title, { body }) { window.notified.push(`${title} ${body}`); }
        };
        Object.defineProperty(document, "hidden", { get: () => window.name === "hidden" });"""
    )
    open_page(page, start_without_bucket())
    set_option(page, "notify", True)
    for name, notified in (("", []), ("hidden", ["The transcript is ready. voice.webm"])):
        page.evaluate("(name) => (window.name = name)", name)
        select_file(page, recording("webm"))
        expect(page.locator("#status")).to_contain_text("Transcribed by")
        assert page.evaluate("window.notified") == notified


def test_a_file_that_does_not_fit_into_the_browser_is_still_transcribed(page, start_server):
    url, _ = start_server()
    page.add_init_script(
        """const add = IDBObjectStore.prototype.add;
        IDBObjectStore.prototype.add = function () {
            throw new DOMException("full", "QuotaExceededError");
        };"""
    )
    open_page(page, url)
    select_file(page, recording("webm"))
    expect(page.locator("#alert")).to_contain_text("This browser cannot store the recording")
    expect_transcript(page, "Ever tried")
