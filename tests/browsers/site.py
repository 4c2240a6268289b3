"""A third-party site whose pages call Steno, and the scripts that its pages run."""

import contextlib

from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tests.browsers.drivers import until
from tests.conftest import ROOT, serving

MODULE = ROOT / "handler" / "web" / "page" / "recorder.js"

# Arguments: {module, server, recording (base64), options}. Returns the result of `transcribe` and
# the phases of its progress, or the code, detail and status of its error.
TRANSCRIBE = """async ({ module, server, recording, options }) => {
    const { transcribe } = await import(module);
    const phases = new Set();
    const blob = new Blob([Uint8Array.from(atob(recording), (byte) => byte.charCodeAt(0))]);
    const onProgress = ({ phase }) => phases.add(phase);
    try {
        const result = await transcribe(blob, { baseUrl: server, onProgress, ...options });
        return { ...result, phases: [...phases] };
    } catch ({ code, detail, status }) {
        return { code, detail, status };
    }
}"""

# Argument: a presigned form. Returns the HTTP status, or 0 if the browser hides it from the page.
UPLOAD = """({ url, fields }) => new Promise((resolve) => {
    const form = new FormData();
    for (const name in fields) form.append(name, fields[name]);
    form.append("file", new Blob(["0123456789"]));
    const request = new XMLHttpRequest();
    request.onloadend = () => resolve(request.status);
    request.upload.onprogress = () => {};
    request.open("POST", url);
    request.send(form);
})"""


@contextlib.contextmanager
def site(folder):
    """Serve the files in `folder` and a copy of Steno's JavaScript module. Yield the URL."""

    async def home(_request):
        return HTMLResponse("<!doctype html><title>Somebody's app</title>")

    (folder / "recorder.js").write_bytes(MODULE.read_bytes())
    with serving(
        Starlette(routes=[Route("/", home), Mount("/", StaticFiles(directory=folder))])
    ) as url:
        yield url.replace("127.0.0.1", "localhost")


def transcribe_until_error(page, arguments):
    """Run TRANSCRIBE with a simulated clock until it stops retrying. Return the error."""
    page.clock.install()
    page.evaluate(
        f"(input) => {{ ({TRANSCRIBE})(input).then((result) => (window.result = result)); }}",
        arguments,
    )

    def advance_clock():
        page.clock.run_for(30_000)
        return page.evaluate("window.result")

    result = until(advance_clock)
    page.clock.resume()
    return result
