"""The recorder page as it is served, and as Chromium shows it to a person."""

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
from tests.false_upstream import FalseUpstream, heard
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
    dropped.items.add(new File([Uint8Array.from(atob(recording), (byte) => byte.charCodeAt(0))], "voice.webm"));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }));
}"""


# As it is served


# As a person sees it


@pytest.fixture
def site(server, engine):
    """Makes a server with the page; its address, and the server itself."""
    with contextlib.ExitStack() as stack:

        def start(**given):
            place = server(openai_base_url=engine.url, **given)
            url = stack.enter_context(serving(place.app))
            allow(place, url)
            return url, place

        yield start


def allow(place, *origins):
    """Pages of these origins may upload to the bucket."""
    rule = {"AllowedOrigins": list(origins), "AllowedMethods": ["POST"], "AllowedHeaders": ["*"]}
    place.s3.put_bucket_cors(Bucket="steno", CORSConfiguration={"CORSRules": [rule]})


@pytest.fixture
def page(browser):
    with browser.new_context(
        permissions=["clipboard-read", "clipboard-write", "microphone"]
    ) as context:
        made = context.new_page()
        made.faults = []
        made.on("pageerror", lambda error: made.faults.append(str(error)))
        made.on(
            "console", lambda said: "Security Policy" in said.text and made.faults.append(said.text)
        )
        yield made
        assert made.faults == []


def visit(page, url):
    page.goto(url)
    page.wait_for_selector("body[data-ready]")


def begin_recording(page, clock):
    """Goes on until the page's clock shows so much."""
    page.click("#record")
    expect(page.locator("#clock")).to_have_text(clock, timeout=10_000)


def choose(page, content, name="voice.webm"):
    page.set_input_files("#file", {"name": name, "mimeType": "", "buffer": content})


def read(page, text=WORDS):
    expect(page.locator("#transcript")).to_contain_text(text, timeout=90_000)
    expect(page.locator("#status")).to_contain_text("Transcribed by gpt-transcribe", timeout=90_000)


def seen(page, *identities):
    """Keeps all that is ever said at these places in `window.seen`."""
    page.evaluate(
        """(ids) => {
            window.seen = [];
            for (const id of ids) {
                const place = document.getElementById(id);
                const note = () => window.seen.push(place.textContent);
                new MutationObserver(note).observe(place, { childList: true, characterData: true, subtree: true });
            }
        }""",
        identities,
    )


def test_a_recording_of_30_mb_goes_by_the_bucket_and_says_how_far_it_is(page, site, tmp_path):
    path = tmp_path / "meeting.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(np.repeat(long_speech(157), 2).tobytes())
    assert path.stat().st_size > 30_000_000
    url, place = site()
    before = place.objects()
    visit(page, url)
    seen(page, "sent", "status", "transcript")
    line = {
        "offline": False,
        "latency": 5,
        "downloadThroughput": -1,
        "uploadThroughput": 20_000_000,
    }
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", line)
    page.set_input_files("#file", path)
    read(page, "the age of wisdom")
    told = page.evaluate("window.seen")
    sent = [int(found[1]) for text in told if (found := re.fullmatch(r"Sent (\d+) %", text))]
    assert sent == sorted(sent)
    assert len(set(sent)) >= 5
    assert any(re.fullmatch(r"\d+ of \d+ parts are heard", text) for text in told)
    assert any("the age of wisdom" in text for text in told)
    assert [key.split("/")[0] for key in place.objects() if key not in before] == ["transcripts"]


def test_a_file_can_be_dropped_anywhere_and_the_language_be_chosen(page, site, engine):
    url, _ = site()
    visit(page, url)
    page.select_option("#language", "en")
    page.evaluate(DROP, base64.b64encode(recording("webm")).decode())
    read(page, "Ever tried")
    (call,) = engine.calls()
    assert call["fields"]["languages[]"] == ["en"]


def test_it_records_by_keyboard_alone(page, site):
    url, _ = site()
    visit(page, url)
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("#clock")).to_have_text("0:03", timeout=10_000)
    expect(page.locator("#record")).to_be_focused()
    page.keyboard.press("Space")
    read(page, "Ever tried")


def test_a_connection_that_is_cut_off_is_taken_up_again_and_paid_once(page, site, engine):
    url, _ = site()
    with Proxy.before(url, 2_000_000) as proxy:
        visit(page, proxy.url)
        choose(page, long_recording("wav", 60))
        read(page, "best of times")
        assert proxy.left == 0
    assert len(engine.calls()) == 1


def test_an_upload_that_is_cut_off_is_taken_up_again(page, site):
    url, _ = site(max_audio_bytes=1000)
    cuts = []

    def cut(route):
        if route.request.method == "POST" and not cuts:
            cuts.append(route.request.url)
            route.abort("connectionreset")
        else:
            route.fallback()

    page.route("**/steno*", cut)
    page.route("**/steno.*/**", cut)
    visit(page, url)
    choose(page, recording("webm", seconds=5))
    read(page, "Ever tried")
    assert len(cuts) == 1


def test_a_recording_that_cannot_be_sent_is_there_after_a_reload(page, site):
    url, _ = site()
    page.route("**/api/config", lambda route: route.abort())
    visit(page, url)
    begin_recording(page, "0:04")
    page.click("#record")
    expect(page.locator("#status")).to_have_text(OFFLINE_AND_KEPT)
    expect(page.locator("#sound")).to_be_visible()
    page.unroute("**/api/config")
    visit(page, url)
    expect(page.locator("#status")).to_have_text("Not sent yet")
    page.click("#again")
    read(page, "Ever tried")
    visit(page, url)
    page.click("#recent li button")
    read(page, "Ever tried")


def test_a_recording_survives_the_end_of_its_page(page, site):
    url, _ = site()
    visit(page, url)
    begin_recording(page, "0:05")
    page.goto("about:blank")
    visit(page, url)
    expect(page.locator("#status")).to_have_text("Not sent yet")
    page.click("#again")
    read(page, "Ever tried")


def test_a_transcript_that_cannot_be_kept_costs_no_recording(page, site):
    url, _ = site()
    page.add_init_script(
        """const put = IDBObjectStore.prototype.put;
        IDBObjectStore.prototype.put = function (entry) {
            if (entry.transcript && !window.name) throw new DOMException("full", "QuotaExceededError");
            return put.call(this, entry);
        };"""
    )
    visit(page, url)
    begin_recording(page, "0:04")
    page.click("#record")
    read(page, "Ever tried")
    expect(page.locator("#alert")).to_contain_text("This browser keeps nothing")
    page.evaluate("window.name = 'with space again'")
    page.on("dialog", lambda dialog: dialog.accept())  # it warns of leaving
    visit(page, url)
    expect(page.locator("#status")).to_have_text("Not sent yet")
    page.click("#again")
    read(page, "Ever tried")


def test_another_tab_leaves_a_recording_alone_while_it_is_made(page, site):
    url, _ = site()
    visit(page, url)
    begin_recording(page, "0:03")
    other = page.context.new_page()
    visit(other, url)
    expect(other.locator("#recent li")).to_have_count(0)
    page.click("#record")
    read(page, "Ever tried")


def test_where_no_words_are_heard_the_recording_stays(page, site, engine):
    url, _ = site()
    engine.script({"body": {"text": "", "usage": {"type": "duration", "seconds": 3}}})
    visit(page, url)
    begin_recording(page, "0:03")
    page.click("#record")
    expect(page.locator("#status")).to_have_text("Nobody speaks in it.", timeout=20_000)
    visit(page, url)
    page.click("#recent li button")
    expect(page.locator("#sound")).to_be_visible()
    expect(page.locator("#again")).to_be_visible()


def test_a_job_whose_answers_were_lost_is_followed_and_not_sent_again(page, site, engine):
    url, _ = site(max_audio_bytes=1000)
    engine.script({"delay": 4})
    sent, polls = [], []

    def lose(route):
        polls.append(1)
        if len(polls) == 1:
            route.fallback()
        else:
            route.fulfill(status=500, json={"code": "http_500"})

    page.on(
        "request",
        lambda request: request.method == "POST" and sent.append(request.url.rpartition("/")[2]),
    )
    page.route("**/api/transcriptions/*", lose)
    visit(page, url)
    choose(page, recording("ogg", seconds=8))
    expect(page.locator("#status")).to_have_text("http_500", timeout=20_000)
    page.unroute("**/api/transcriptions/*")
    page.click("#again")
    read(page, "Ever tried")
    assert sent.count("uploads") == 1


def test_a_job_goes_on_without_its_page_and_is_followed_again(page, site, engine):
    url, _ = site(max_audio_bytes=1000)
    engine.script({"delay": 4})
    visit(page, url)
    choose(page, recording("mp3", seconds=7))
    expect(page.locator("#status")).to_have_text("0 of 1 parts are heard", timeout=10_000)
    visit(page, url)
    read(page, "Ever tried")


@pytest.mark.parametrize(
    ("given", "content", "said"),
    [
        (
            {"max_upload_bytes": 2000, "max_audio_bytes": 1000},
            b"RIFF" + bytes(5000),
            "At most 2000 bytes",
        ),
        ({}, b"<!doctype html><p>no sound", "a web page"),
        ({}, b"", "The recording is empty"),
        ({"max_audio_bytes": 1000}, b"GIF89a" + bytes(5000), "no audio or video"),
    ],
)
def test_what_cannot_be_transcribed_is_refused_in_words(page, site, given, content, said):
    url, _ = site(**given)
    visit(page, url)
    choose(page, content)
    expect(page.locator("#status")).to_contain_text(said, timeout=20_000)
    page.click("#delete")
    expect(page.locator("#recent li")).to_have_count(0)


def test_the_token_is_asked_for_until_it_is_right_and_remembered(page, site):
    url, _ = site(auth="token", access_token="open sesame")
    visit(page, url)
    choose(page, asset("beckett.wav"))
    for token, status in (("wrong", 401), ("\u200bopen sesame ", 200)):
        expect(page.locator("[open] #token")).to_be_focused()
        page.keyboard.type(token)
        with page.expect_response(
            lambda answer, status=status: answer.status == status and "transcribe" in answer.url
        ):
            page.keyboard.press("Enter")
    read(page)
    visit(page, url)
    choose(page, recording("ogg"))
    read(page, "Ever tried")
    assert not page.locator("#access").is_visible()


def test_a_person_who_has_no_token_can_leave_the_question(page, site):
    url, _ = site(auth="token", access_token="open sesame")
    visit(page, url)
    choose(page, asset("beckett.wav"))
    expect(page.locator("#token")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_contain_text("access token")


@pytest.mark.parametrize("limit", [26_000_000, 1000])
def test_a_transcript_is_copied_and_saved_in_every_format(page, site, limit, tmp_path):
    url, _ = site(max_audio_bytes=limit)
    visit(page, url)
    choose(page, asset("beckett.wav"), "Krapp's tape.wav")
    read(page)
    page.click("#copy")
    assert WORDS in page.evaluate("navigator.clipboard.readText()")
    for kind, begins in (("txt", WORDS), ("srt", "1\n00:00:00,"), ("vtt", "WEBVTT")):
        with page.expect_download() as saved:
            page.click(f"#{kind}")
            if kind == "srt" and limit > 1000:  # sent in one request, so there are no times yet
                page.click("#pay")
        assert saved.value.suggested_filename == f"Krapp's tape.{kind}"
        saved.value.save_as(tmp_path / kind)
        assert begins in (tmp_path / kind).read_text()


def test_what_is_cancelled_or_deleted_is_gone_from_browser_and_server(page, site, engine):
    url, place = site(max_audio_bytes=1000)
    engine.script({"delay": 5}, {"delay": 5})
    before = place.objects()
    visit(page, url)
    choose(page, recording("flac", seconds=6))
    expect(page.locator("#status")).to_have_text("0 of 1 parts are heard", timeout=10_000)
    page.click("#cancel")
    expect(page.locator("#status")).to_have_text("Not sent yet")
    until(lambda: place.objects() == before)
    page.click("#delete")
    expect(page.locator("#recent li")).to_have_count(0)
    engine.script()
    choose(page, recording("ogg", seconds=4))
    read(page, "Ever tried")
    assert len(place.objects()) == len(before) + 1
    page.click("#delete")
    expect(page.locator("#recent li")).to_have_count(0)
    assert place.objects() == before
    visit(page, url)
    expect(page.locator("#recent li")).to_have_count(0)


def test_the_level_is_shown_while_somebody_speaks(page, site):
    url, _ = site()
    visit(page, url)
    page.evaluate(
        """() => {
            window.levels = [];
            setInterval(() => window.levels.push(document.getElementById("level").value), 50);
        }"""
    )
    begin_recording(page, "0:04")
    assert max(page.evaluate("window.levels")) > 0.3


def test_pausing_leaves_out_what_is_said_meanwhile(page, site):
    url, _ = site()
    visit(page, url)
    begin_recording(page, "0:04")
    page.click("#pause")
    expect(page.locator("#pause")).to_have_text("Go on")
    page.click("#record")
    read(page, "Ever tried")
    assert "Fail better" not in page.inner_text("#transcript")


@pytest.mark.parametrize(
    ("microphone", "said"),
    [
        (
            "() => Promise.reject(new DOMException('', 'NotAllowedError'))",
            "Allow this page the microphone",
        ),
        ("() => Promise.reject(new DOMException('', 'NotFoundError'))", "Connect a microphone"),
        ("() => Promise.reject(new DOMException('it is busy', 'NotReadableError'))", "it is busy"),
        # what a muted one gives
        (MUTED, "The microphone was muted"),
    ],
)
def test_a_microphone_that_fails_is_explained(page, site, microphone, said):
    url, _ = site()
    page.add_init_script(f"navigator.mediaDevices.getUserMedia = {microphone}")
    visit(page, url)
    page.click("#record")
    if "muted" in said:
        expect(page.locator("#clock")).to_have_text("0:02", timeout=10_000)
        page.click("#record")
        expect(page.locator("#status")).to_contain_text(said)
        expect(page.locator("#again")).to_be_visible()
    else:
        expect(page.locator("#alert")).to_contain_text(said)


# Subtitles, and who is asked before they cost something

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
def bare():
    """Makes a server without a bucket over a false upstream; its address."""
    with contextlib.ExitStack() as stack:
        yield lambda upstream=None, **given: stack.enter_context(serving(app(upstream, **given)))


def save(page, kind, *, pay=None):
    """The text of the saved subtitles; `pay` is how the question about the bill is answered."""
    with page.expect_download() as saved:
        page.click(f"#{kind}")
        if pay:
            pay()
    return saved.value.path().read_text()


def answer_as_a_job(page, job):
    """Answers uploads with the job `j`, as it stands; returns the methods of requests about it."""
    asked = []

    def answer(route):
        asked.append(route.request.method)
        if route.request.method == "GET":
            route.fulfill(json=job, headers=POLL_ONCE)
        else:
            route.fulfill(status=204)

    upload = {"id": "j", "upload": {"url": "/bucket", "fields": {}}}
    page.route("**/api/config", lambda route: route.fulfill(json=CONFIG))
    page.route("**/api/uploads", lambda route: route.fulfill(status=201, json=upload))
    page.route("**/bucket", lambda route: route.fulfill(status=204))
    page.route("**/api/transcriptions/j", answer)
    return asked


def test_subtitles_are_billed_again_only_after_a_yes_and_only_once(page, site, engine):
    url, _ = site()
    usage = {"type": "duration", "seconds": 130}
    engine.script({"body": {"text": WORDS, "usage": usage}, "times": 50})
    visit(page, url)
    choose(page, long_recording("mp3", 130))
    read(page)
    assert len(engine.calls()) == 1
    for refuse in (lambda: page.click("#refuse"), lambda: page.keyboard.press("Escape")):
        page.click("#srt")
        expect(page.locator("#billing")).to_contain_text(BILLED)
        refuse()
        expect(page.locator("#billing")).not_to_be_visible()
        expect(page.locator("#status")).to_contain_text("Transcribed by")
    assert engine.calls() == []

    def yes_twice():
        page.evaluate("for (const _ of [1, 2]) document.getElementById('pay').click()")

    sent = []
    page.on("request", lambda request: sent.append(request.url.rpartition("/")[2]))
    assert "-->" in save(page, "srt", pay=yes_twice)
    assert len(engine.calls()) > 1  # for parts of a minute
    assert sent.count("uploads") == 1
    for kind in ("vtt", "srt"):
        assert "-->" in save(page, kind)
    assert engine.calls() == []


def test_subtitles_cost_nothing_if_the_times_are_there_also_after_a_reload(page, site, engine):
    url, _ = site()
    visit(page, url)
    page.check("#subtitles")
    choose(page, recording("webm"))
    read(page, "Ever tried")
    assert len(engine.calls()) == 1
    assert "-->" in save(page, "srt")
    visit(page, url)
    page.click("#recent li button")
    assert "-->" in save(page, "vtt")
    assert engine.calls() == []


@pytest.mark.parametrize("wanted_at_once", [True, False])
def test_subtitles_of_a_server_without_jobs_are_billed_once(page, bare, wanted_at_once):
    answer = heard("Ever tried.", segments=LINES, language="en", duration=3662)
    upstream = FalseUpstream(answer, answer, answer)
    visit(page, bare(upstream, whisper_model="whisper-1"))
    page.set_checked("#subtitles", wanted_at_once)
    choose(page, recording("webm"))
    expect(page.locator("#status")).to_have_text("Transcribed by whisper-1")
    pay = None if wanted_at_once else lambda: page.click("#pay")
    assert save(page, "srt", pay=pay) == SUBTITLES["srt"]
    assert save(page, "vtt") == SUBTITLES["vtt"]
    assert len(upstream.calls) == (1 if wanted_at_once else 2)


def test_subtitles_show_their_progress_and_can_be_cancelled(page, bare):
    visit(page, bare())
    choose(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("Transcribed by")
    asked = answer_as_a_job(page, JOB)
    page.click("#srt")
    page.click("#pay")
    expect(page.locator("#status")).to_have_text("1 of 3 parts are heard")
    expect(page.locator("#heard")).to_contain_text("33 %")
    expect(page.locator("#srt")).not_to_be_visible()
    with page.expect_request(lambda request: request.method == "DELETE"):
        page.click("#cancel")
    expect(page.locator("#status")).to_contain_text("Transcribed by")
    expect(page.locator("#transcript")).to_have_text("Ever tried.")
    page.click("#srt")
    expect(page.locator("#billing")).to_be_visible()
    assert asked == ["GET", "DELETE"]


def test_subtitles_that_fail_say_why_and_leave_the_transcript(page, bare):
    visit(page, bare())
    choose(page, recording("webm"))
    expect(page.locator("#status")).to_contain_text("Transcribed by")
    answer_as_a_job(page, FAILED)
    page.click("#srt")
    page.click("#pay")
    expect(page.locator("#status")).to_have_text(SILENT)
    expect(page.locator("#transcript")).to_have_text("Ever tried.")
    page.click("#srt")
    expect(page.locator("#billing")).to_be_visible()


def test_subtitles_of_a_job_that_has_expired_ask_before_they_are_billed_again(page, bare):
    visit(page, bare())
    gone = {"code": "not_found", "detail": "There is no such job, or it has expired."}
    text = {"transcript": "Ever tried."}
    asked = answer_as_a_job(page, {**JOB, "status": "completed"})
    page.route("**/transcript?*", lambda route: route.fulfill(json=text))
    choose(page, recording("webm") * 100)
    expect(page.locator("#transcript")).to_have_text("Ever tried.")
    page.unroute_all()
    page.route("**/api/transcriptions/j", lambda route: route.fulfill(status=404, json=gone))
    page.click("#srt")
    expect(page.locator("#billing")).to_be_visible()
    assert asked == ["GET"]


# Plain words for what goes wrong


def test_an_error_is_red_in_the_card_as_in_the_list(page, bare):
    visit(page, bare())
    choose(page, b"")
    expect(page.locator("#status")).to_contain_text("The recording is empty")
    red = "rgb(179, 18, 29)"
    expect(page.locator("#status")).to_have_css("color", red)
    expect(page.locator("#recent small")).to_have_css("color", red)


def test_a_lost_connection_is_named_and_does_not_look_like_progress(page, bare):
    visit(page, bare())
    page.route("**/api/config", lambda route: route.abort())
    choose(page, recording("webm"))
    expect(page.locator("#status")).to_have_text(OFFLINE)
    expect(page.locator("#sent")).not_to_be_visible()
    expect(page.locator("#heard")).not_to_be_visible()
    page.unroute("**/api/config")
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.locator("#status")).to_contain_text("Transcribed by")


def test_several_files_can_be_chosen_at_once(page, bare):
    visit(page, bare())
    file = {"mimeType": "", "buffer": recording("webm")}
    page.set_input_files("#file", [{"name": "one.webm", **file}, {"name": "two.webm", **file}])
    expect(page.locator("#recent li", has_text="Transcribed by")).to_have_count(2)


@pytest.mark.parametrize("content", [b"%PDF-1.7\n% only text\n", b"%PDF-1.7\n\x00\x01\x02\n"])
def test_a_document_is_refused_in_a_sentence_for_people(page, bare, content):
    visit(page, bare())
    choose(page, content, "report.pdf")
    expect(page.locator("#status")).to_contain_text("This file is not a recording")
    for technical in ("curl", "Steno", "Blob", "bytes"):
        assert technical not in page.inner_text("#status")


def test_an_upload_that_has_failed_stays_in_the_list_until_it_is_opened(page, bare):
    url = bare()
    visit(page, url)
    asked = answer_as_a_job(page, FAILED)
    choose(page, recording("webm") * 100)
    expect(page.locator("#status")).to_have_text(SILENT)
    for _ in range(2):
        visit(page, url)
        expect(page.locator("#current")).not_to_be_visible()
        expect(page.locator("#recent small")).to_have_text(SILENT)
    assert asked == ["GET"]
    page.click("#recent li button")
    expect(page.locator("#status")).to_have_text(SILENT)
    page.route("**/j/retry", lambda route: route.fulfill(status=202, json=JOB))
    page.route("**/transcriptions/j", lambda route: route.fulfill(json=JOB, headers=POLL_ONCE))
    page.click("#again")
    expect(page.locator("#status")).to_have_text("1 of 3 parts are heard")
    visit(page, url)
    expect(page.locator("#status")).to_have_text("1 of 3 parts are heard")


def test_a_paused_recording_is_called_paused(page, bare):
    visit(page, bare())
    begin_recording(page, "0:01")
    states = (page.locator("#status"), page.locator("#recent small"))
    for state in ("Paused", "Recording …", "Paused"):
        page.click("#pause")
        for place in states:
            expect(place).to_have_text(state)
