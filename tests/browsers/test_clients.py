"""Steno's clients: its own module from pages of other origins and from TypeScript, and OpenAI's SDK from npm."""

import base64
import contextlib
import shutil
import subprocess

import httpx2
import pytest
from playwright.sync_api import Error

from tests.browsers.conftest import NODE
from tests.browsers.drivers import until
from tests.browsers.site import MODULE, TRANSCRIBE, refused, site
from tests.conftest import serving
from tests.samples import ASSETS, recording

WORDS = "Ever tried"
OPENAI = """async ({ server, recording }) => {
    const { default: OpenAI } = await import("/node_modules/openai/index.mjs");
    const own = { apiKey: "anything", dangerouslyAllowBrowser: true, maxRetries: 0 };
    const client = new OpenAI({ ...own, baseURL: `${server}/v1` });
    const bytes = Uint8Array.from(atob(recording), (byte) => byte.charCodeAt(0));
    const file = new File([bytes], "voice.webm", { type: "audio/webm" });
    return (await client.audio.transcriptions.create({ model: "gpt-transcribe", file })).text;
}"""
FOLLOW = """async (server) => {
    const { transcribe } = await import("/recorder.js");
    window.told = 0;
    const onProgress = ({ phase }) => phase === "queued" && window.told++;
    await transcribe(new Blob(["voice"]), { baseUrl: server, onProgress });
}"""
ABORT = """async ({ server, recording, phase }) => {
    const { transcribe } = await import("/recorder.js");
    const ends = new AbortController();
    const onProgress = (progress) => progress.phase === phase && ends.abort();
    const blob = new Blob([atob(recording).repeat(300)]); // megabytes, so that it has time to tell of its sending
    try {
        await transcribe(blob, { baseUrl: server, signal: ends.signal, onProgress });
    } catch (error) {
        return error.name;
    }
}"""
ALLOWED = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Retry-After",
    "Retry-After": "7",
}
UNFINISHED = {
    "status": "queued",
    "progress": {"done": 0, "total": None},
    "transcript": "",
    "error": None,
}
UNDER_NODE = """
import fs from "node:fs";
import OpenAI from "openai";
const [server, path] = process.argv.slice(2);
const client = new OpenAI({ apiKey: "anything", baseURL: `${server}/v1` });
const file = fs.createReadStream(path);
console.log((await client.audio.transcriptions.create({ model: "gpt-transcribe", file })).text);
"""
TYPED = """
import { record, transcribe, StenoError, type Progress } from "./recorder.js";
export async function dictate(signal: AbortSignal): Promise<string> {
    const recorder = await record({ onLevel: (level: number) => console.log(level) });
    const seen = (progress: Progress): string => progress.phase;
    try {
        const options = { token: "t", onProgress: seen, signal, asJob: true };
        const made = await transcribe(await recorder.stop(), { ...options, responseFormat: "srt" });
        return made.transcript;
    } catch (error) {
        if (error instanceof StenoError) return `${error.code} ${error.detail} ${error.status}`;
        throw error;
    }
}
"""


ENCODED = base64.b64encode(recording("webm")).decode()


@pytest.fixture
def abroad(browser, npm, server, engine):
    """Makes a page of another origin, which is allowed or not; the page, and the server's address."""
    with contextlib.ExitStack() as stack:

        def visit(allowed, **given):
            own = stack.enter_context(site(npm))
            origins = [own] if allowed else ["http://localhost:3000"]
            place = server(openai_base_url=engine.url, allowed_origins=",".join(origins), **given)
            page = stack.enter_context(browser.new_context()).new_page()
            page.goto(own)
            return page, stack.enter_context(serving(place.app))

        yield visit


@pytest.mark.parametrize(
    ("limit", "wanted", "phases"),
    [
        (26_000_000, "json", ["sending"]),
        (1000, "json", None),
        (1000, "srt", None),
        (26_000_000, "verbose_json", None),
    ],
)
def test_an_allowed_page_of_another_origin_has_recordings_transcribed(
    abroad, limit, wanted, phases
):
    page, server = abroad(True, max_audio_bytes=limit)
    given = {"module": f"{server}/recorder.js", "server": server, "recording": ENCODED}
    told = page.evaluate(
        TRANSCRIBE, {**given, "options": {"responseFormat": wanted, "language": "en"}}
    )
    assert WORDS in told["transcript"], told
    assert told["model"] == "gpt-transcribe"
    assert ("-->" in told["transcript"]) == (wanted == "srt")
    assert ("segments" in told) == (wanted == "verbose_json")
    assert told["phases"][0] == "sending"
    assert phases in (None, told["phases"])


def test_a_small_recording_can_be_sent_as_a_job_which_keeps_every_format(abroad, engine):
    page, server = abroad(True)
    given = {"module": "/recorder.js", "server": server, "recording": ENCODED}
    told = page.evaluate(TRANSCRIBE, {**given, "options": {"asJob": True}})
    assert WORDS in told["transcript"]
    transcript = f"{server}/api/transcriptions/{told['job']}/transcript?response_format=srt"
    assert "-->" in httpx2.get(transcript).text
    assert len(engine.calls()) == 1


def test_a_page_that_is_not_allowed_is_told_nothing_and_nothing_is_paid_for_it(abroad, engine):
    page, server = abroad(False)
    given = {"module": "/recorder.js", "server": server, "recording": ENCODED, "options": {}}
    with pytest.raises(Error, match="Failed to fetch dynamically imported module"):
        page.evaluate(TRANSCRIBE, {**given, "module": f"{server}/recorder.js"})
    assert refused(page, given)["code"] == "connection_lost"
    assert engine.calls() == []


def stop_time(page):
    """From now on it passes only when a test says so."""
    page.clock.install(time=0)
    page.clock.pause_at(1000)


def test_a_job_is_asked_for_when_the_server_says_and_no_sooner(abroad):
    page, server = abroad(True)
    asked = []
    stop_time(page)
    page.route(
        "**/api/transcribe",
        lambda route: route.fulfill(status=202, json={"id": "j"}, headers=ALLOWED),
    )
    page.route(
        "**/api/transcriptions/j",
        lambda route: asked.append(1) or route.fulfill(json=UNFINISHED, headers=ALLOWED),
    )
    page.evaluate(f"(given) => {{ ({FOLLOW})(given); }}", server)
    for polls in (1, 2, 3):
        until(lambda: page.evaluate("window.told") == polls)  # noqa: B023 - is called at once
        page.clock.run_for(6900)
        assert len(asked) == polls
        page.clock.run_for(200)


def test_a_server_that_is_busy_is_asked_again(abroad):
    page, server = abroad(True)
    busy = [
        {
            "status": 503,
            "json": {"code": "upstream_busy", "detail": "Later."},
            "headers": ALLOWED | {"Retry-After": "1"},
        }
    ]
    page.route(
        "**/api/transcribe", lambda route: route.fulfill(**busy.pop()) if busy else route.fallback()
    )
    given = {"module": "/recorder.js", "server": server, "recording": ENCODED, "options": {}}
    assert WORDS in page.evaluate(TRANSCRIBE, given)["transcript"]


@pytest.mark.parametrize("phase", ["sending", "queued"])
def test_what_is_aborted_ends_at_once_with_the_reason_and_asks_no_more(abroad, phase):
    page, server = abroad(True)
    given = {"server": server, "recording": ENCODED}
    if phase == "queued":
        page.route(
            "**/api/transcribe",
            lambda route: route.fulfill(status=202, json={"id": "j"}, headers=ALLOWED),
        )
        page.route(
            "**/api/transcriptions/j", lambda route: route.fulfill(json=UNFINISHED, headers=ALLOWED)
        )
        stop_time(page)
    page.evaluate(
        f"(given) => {{ ({ABORT})(given).then((name) => (window.ended = name)); }}",
        given | {"phase": phase},
    )
    assert until(lambda: page.evaluate("window.ended")) == "AbortError"
    asked = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    if phase == "queued":
        page.clock.run_for(60_000)
    page.evaluate("fetch('/recorder.js')")  # which comes after all that was asked for before
    assert asked == ["recorder.js"]


def test_openais_sdk_transcribes_from_a_browser(abroad):
    page, server = abroad(True)
    assert WORDS in page.evaluate(OPENAI, {"server": server, "recording": ENCODED})


def test_openais_sdk_transcribes_under_node(npm, server, engine):
    program = npm / "transcribe.mjs"
    program.write_text(UNDER_NODE)
    with serving(server(openai_base_url=engine.url).app) as url:
        command = [NODE / "bin" / "node", program, url, ASSETS / "beckett.wav"]
        run = subprocess.run(command, cwd=npm, capture_output=True, text=True, check=True)
    assert WORDS in run.stdout


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("", ""), ""),
        (("await recorder.stop()", "5"), "not assignable to parameter of type 'Blob'"),
        (('"srt"', '"docx"'), "not assignable to type 'Format"),
        (("made.transcript", "made.words"), "'words' does not exist"),
    ],
)
def test_typescript_knows_the_modules_types(npm, tmp_path, change, complaint):
    shutil.copy(MODULE, tmp_path)
    (tmp_path / "app.ts").write_text(TYPED.replace(*change) if complaint else TYPED)
    compiler = npm / "node_modules" / "typescript" / "bin" / "tsc"
    options = [
        "--noEmit",
        "--strict",
        "--allowJs",
        "--module",
        "esnext",
        "--target",
        "es2022",
        "--lib",
        "es2022,dom",
    ]
    command = [NODE / "bin" / "node", compiler, *options, "app.ts"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert complaint in run.stdout
    assert (run.returncode == 0) == (not complaint), run.stdout
