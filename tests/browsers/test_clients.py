"""Test Steno's JavaScript module and its types, and OpenAI's SDK in a browser."""

import base64
import contextlib
import shutil
import subprocess

import httpx2
import pytest

from tests.browsers.drivers import until
from tests.browsers.proxy import Proxy
from tests.browsers.site import MODULE, TRANSCRIBE, site, transcribe_until_error
from tests.conftest import serving
from tests.node import NODE
from tests.samples import long_recording, recording

WORDS = "Ever tried"
OPENAI = """async ({ server, recording }) => {
    const { default: OpenAI } = await import("/node_modules/openai/index.mjs");
    const own = { apiKey: "anything", dangerouslyAllowBrowser: true, maxRetries: 0 };
    const client = new OpenAI({ ...own, baseURL: `${server}/v1` });
    const bytes = Uint8Array.from(atob(recording), (byte) => byte.charCodeAt(0));
    const file = new File([bytes], "voice.webm", { type: "audio/webm" });
    return (await client.audio.transcriptions.create({ model: "gpt-transcribe", file })).text;
}"""
POLL = """async (server) => {
    const { transcribe } = await import("/recorder.js");
    window.queued = 0;
    const onProgress = ({ phase }) => phase === "queued" && window.queued++;
    await transcribe(new Blob(["voice"]), { baseUrl: server, onProgress });
}"""
ABORT = """async ({ server, recording, phase }) => {
    const { transcribe } = await import("/recorder.js");
    const ends = new AbortController();
    const onProgress = (progress) => progress.phase === phase && ends.abort();
    // The blob has megabytes, so that there are progress events during the upload.
    const blob = new Blob([atob(recording).repeat(300)]);
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
QUEUED_JOB = {
    "status": "queued",
    "progress": {"done": 0, "total": None},
    "transcript": "",
    "error": None,
}
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


RECORDING_BASE64 = base64.b64encode(recording("webm")).decode()


def arguments_for(server):
    """Return the arguments of TRANSCRIBE for a page with a copy of the module."""
    return {
        "module": "/recorder.js",
        "server": server,
        "recording": RECORDING_BASE64,
        "options": {},
    }


@pytest.fixture
def open_foreign_page(browser, npm, server, engine):
    """Return a function that opens a page whose origin differs from the server's.

    It returns the page and the server URL. The server allows the origin only if `allowed` is true.
    """
    with contextlib.ExitStack() as stack:

        def open_page(allowed, **options):
            site_url = stack.enter_context(site(npm))
            origins = [site_url] if allowed else ["http://localhost:3000"]
            harness = server(
                openai_base_url=engine.url, allowed_origins=",".join(origins), **options
            )
            page = stack.enter_context(browser.new_context()).new_page()
            page.goto(site_url)
            return page, stack.enter_context(serving(harness.app))

        yield open_page


@pytest.mark.parametrize(
    ("limit", "response_format", "phases"),
    [
        (26_000_000, "json", ["sending"]),
        (1000, "json", None),
        (1000, "srt", None),
        (26_000_000, "verbose_json", None),
    ],
)
def test_an_allowed_page_of_another_origin_can_transcribe(
    open_foreign_page, limit, response_format, phases
):
    page, server = open_foreign_page(True, max_audio_bytes=limit)
    arguments = {"module": f"{server}/recorder.js", "server": server, "recording": RECORDING_BASE64}
    result = page.evaluate(
        TRANSCRIBE, {**arguments, "options": {"responseFormat": response_format, "language": "en"}}
    )
    assert WORDS in result["transcript"], result
    assert result["model"] == "gpt-transcribe"
    assert ("-->" in result["transcript"]) == (response_format == "srt")
    assert ("segments" in result) == (response_format == "verbose_json")
    assert result["phases"][0] == "sending"
    assert phases in (None, result["phases"])


def test_a_reset_connection_is_retried_and_billed_once(open_foreign_page, engine):
    page, server = open_foreign_page(True)
    content = base64.b64encode(long_recording("wav", 25)).decode()
    with Proxy.in_front_of(server, 2_000_000) as proxy:
        arguments = {"module": f"{proxy.url}/recorder.js", "server": proxy.url}
        result = page.evaluate(TRANSCRIBE, {**arguments, "recording": content, "options": {}})
        assert proxy.resets_left == 0
    assert "best of times" in result["transcript"]
    assert len(engine.calls()) == 1


def test_a_small_recording_sent_as_a_job_is_available_in_every_format(open_foreign_page, engine):
    page, server = open_foreign_page(True)
    arguments = {"module": "/recorder.js", "server": server, "recording": RECORDING_BASE64}
    result = page.evaluate(TRANSCRIBE, {**arguments, "options": {"asJob": True}})
    assert WORDS in result["transcript"]
    transcript = f"{server}/api/transcriptions/{result['job']}/transcript?response_format=srt"
    assert "-->" in httpx2.get(transcript).text
    assert len(engine.calls()) == 1


def test_a_page_of_a_forbidden_origin_can_read_nothing_and_spend_nothing(open_foreign_page, engine):
    page, server = open_foreign_page(False)
    arguments = arguments_for(server)
    for module in ("/recorder.js", f"{server}/recorder.js"):
        # There is no simulated clock, so a retry would take seconds.
        error = page.evaluate(TRANSCRIBE, {**arguments, "module": module})
        assert error["code"] == "origin_not_allowed"
        assert page.url.rstrip("/") in error["detail"]
    assert engine.calls() == []


def stop_clock(page):
    """Stop the clock of the page. Tests advance it with `page.clock.run_for`."""
    page.clock.install(time=0)
    page.clock.pause_at(1000)


def test_polling_respects_retry_after(open_foreign_page):
    page, server = open_foreign_page(True)
    requests = []
    stop_clock(page)
    page.route(
        "**/api/transcribe",
        lambda route: route.fulfill(status=202, json={"id": "j"}, headers=ALLOWED),
    )
    page.route(
        "**/api/transcriptions/j",
        lambda route: requests.append(1) or route.fulfill(json=QUEUED_JOB, headers=ALLOWED),
    )
    page.evaluate(f"(server) => {{ ({POLL})(server); }}", server)
    for polls in (1, 2, 3):
        until(lambda: page.evaluate("window.queued") == polls)  # noqa: B023 - called immediately
        page.clock.run_for(6900)
        assert len(requests) == polls
        page.clock.run_for(200)


def test_a_server_that_cannot_be_reached_is_not_taken_for_a_forbidden_origin(open_foreign_page):
    page, server = open_foreign_page(True)
    page.route(f"{server}/api/**", lambda route: route.abort())
    arguments = arguments_for(server)
    assert transcribe_until_error(page, arguments)["code"] == "connection_lost"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, {"code": "upstream_busy", "detail": "Later."}),
        (429, {"message": "Too Many Requests"}),  # from API Gateway
    ],
)
def test_a_request_is_retried_if_the_server_is_busy(open_foreign_page, status, body):
    page, server = open_foreign_page(True)
    busy = [{"status": status, "json": body, "headers": ALLOWED | {"Retry-After": "1"}}]
    page.route(
        "**/api/transcribe", lambda route: route.fulfill(**busy.pop()) if busy else route.fallback()
    )
    arguments = arguments_for(server)
    assert WORDS in page.evaluate(TRANSCRIBE, arguments)["transcript"]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "The provided token has expired."),
        (403, "Invalid according to Policy: Policy expired."),
    ],
)
def test_an_expired_upload_form_is_renewed_once(open_foreign_page, status, message):
    page, server = open_foreign_page(True, max_audio_bytes=1000)
    expired = [{"status": status, "body": f"<Error><Message>{message}</Message></Error>"}]
    page.route(
        "**/steno",  # the bucket
        lambda route: (
            route.fulfill(**expired.pop(), headers=ALLOWED) if expired else route.fallback()
        ),
    )
    arguments = arguments_for(server)
    assert WORDS in page.evaluate(TRANSCRIBE, arguments)["transcript"]
    assert expired == []


@pytest.mark.parametrize("phase", ["sending", "queued"])
def test_an_aborted_transcription_rejects_immediately_and_sends_no_more_requests(
    open_foreign_page, phase
):
    page, server = open_foreign_page(True)
    arguments = {"server": server, "recording": RECORDING_BASE64}
    if phase == "queued":
        page.route(
            "**/api/transcribe",
            lambda route: route.fulfill(status=202, json={"id": "j"}, headers=ALLOWED),
        )
        page.route(
            "**/api/transcriptions/j", lambda route: route.fulfill(json=QUEUED_JOB, headers=ALLOWED)
        )
        stop_clock(page)
    page.evaluate(
        f"(input) => {{ ({ABORT})(input).then((name) => (window.ended = name)); }}",
        arguments | {"phase": phase},
    )
    assert until(lambda: page.evaluate("window.ended")) == "AbortError"
    requests = []
    page.on("request", lambda request: requests.append(request.url.rpartition("/")[2]))
    if phase == "queued":
        page.clock.run_for(60_000)
    page.evaluate("fetch('/recorder.js')")  # an earlier request would be listed before this one
    assert requests == ["recorder.js"]


def test_openais_sdk_transcribes_from_a_browser(open_foreign_page):
    page, server = open_foreign_page(True)
    assert WORDS in page.evaluate(OPENAI, {"server": server, "recording": RECORDING_BASE64})


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("", ""), ""),
        (("await recorder.stop()", "5"), "not assignable to parameter of type 'Blob'"),
        (('"srt"', '"docx"'), "not assignable to type 'Format"),
        (("made.transcript", "made.words"), "'words' does not exist"),
    ],
)
def test_typescript_checks_the_types_of_the_module(npm, tmp_path, change, error):
    shutil.copy(MODULE, tmp_path)
    (tmp_path / "app.ts").write_text(TYPED.replace(*change) if error else TYPED)
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
    assert error in run.stdout
    assert (run.returncode == 0) == (not error), run.stdout
