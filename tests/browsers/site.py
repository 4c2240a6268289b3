"""Somebody's own site, from whose pages Steno is called, and what its pages do."""

import contextlib

from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tests.browsers.drivers import until
from tests.conftest import ROOT, serving

MODULE = ROOT / "handler" / "web" / "page" / "recorder.js"

# Takes {module, server, recording in base64, options}; gives the transcription and the phases of its progress, or what
# it was refused with.
TRANSCRIBE = """async ({ module, server, recording, options }) => {
    const { transcribe } = await import(module);
    const phases = new Set();
    const blob = new Blob([Uint8Array.from(atob(recording), (byte) => byte.charCodeAt(0))]);
    const onProgress = ({ phase }) => phases.add(phase);
    try {
        const told = await transcribe(blob, { baseUrl: server, onProgress, ...options });
        return { ...told, phases: [...phases] };
    } catch ({ code, detail, status }) {
        return { code, detail, status };
    }
}"""

# Takes a presigned form; gives the status that the page is told, 0 where it is told nothing.
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
    """A site of the folder's files, and a copy of Steno's module; its address."""

    async def home(_request):
        return HTMLResponse("<!doctype html><title>Somebody's app</title>")

    (folder / "recorder.js").write_bytes(MODULE.read_bytes())
    with serving(
        Starlette(routes=[Route("/", home), Mount("/", StaticFiles(directory=folder))])
    ) as url:
        yield url.replace("127.0.0.1", "localhost")


def refused(page, given):
    """What TRANSCRIBE is told in the end, without waiting until its patience does."""
    page.clock.install()
    page.evaluate(
        f"(given) => {{ ({TRANSCRIBE})(given).then((told) => (window.told = told)); }}", given
    )

    def told():
        page.clock.run_for(30_000)
        return page.evaluate("window.told")

    found = until(told)
    page.clock.resume()
    return found
