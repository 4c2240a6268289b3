"""Fixtures for the browser tests."""

import pytest

from tests.browsers.drivers import NO_CHROMIUM, chromium
from tests.samples import ASSETS


@pytest.fixture(scope="package")
def browser():
    """Start Chromium. If a page opens a microphone, it receives a recording of speech.

    Each test opens its own browser context. The scope is the package, because Playwright's event
    loop must be stopped before tests in other packages can run their own.
    """
    if NO_CHROMIUM:
        pytest.skip(NO_CHROMIUM)
    with chromium(ASSETS / "beckett.wav") as started:
        yield started
