"""Use a page of the examples in Chromium, as a person does."""

import functools
import http.server
import threading
from contextlib import contextmanager

from tests.browsers.drivers import until

RECORDING_MS = 4000  # the speech of the fake microphone


def use_page(folder, browser):
    """Serve the page in `folder`, record speech, and return the page's text with the transcript."""
    with _serving(folder) as url, browser.new_context() as context:
        context.grant_permissions(["microphone"])
        page = context.new_page()
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url)
        page.get_by_role("button", name="Record").click()
        page.wait_for_timeout(RECORDING_MS)
        page.get_by_role("button", name="Stop").click()
        text = until(lambda: problems or _transcript(page))
        assert problems == []
        return text


def _transcript(page):
    text = page.inner_text("body")
    return text if "Ever" in text else ""


@contextmanager
def _serving(folder):
    """Serve a folder at another port of localhost."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()
