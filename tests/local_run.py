"""Start `make run` in a separate process."""

import contextlib
import os
import subprocess
import sys
import tempfile

from tests.conftest import ROOT


@contextlib.contextmanager
def local_process(folder=None, **environment):
    """Run `python -m infra.local` on a free port, as `make run` does. Yield the process."""
    with contextlib.ExitStack() as stack:  # this folder contains no `.env` file
        folder = folder or stack.enter_context(tempfile.TemporaryDirectory())
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.local"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PORT": "0", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            # Send SIGTERM first. The AWS emulator must stop writing before its folder is deleted.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.terminate()
                process.communicate(timeout=20)
            process.kill()
            process.communicate()


def first_lines(process):
    """Return the output up to and including the line that begins with "Try it"."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Try it"):
            break
    return "".join(lines)


def address(lines):
    return lines.split()[1]
