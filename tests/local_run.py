"""`make run` as a process of its own."""

import contextlib
import os
import subprocess
import sys
import tempfile

from tests.conftest import ROOT


@contextlib.contextmanager
def started(folder=None, **environment):
    """`python -m infra.local` on a free port, as `make run` starts it; its process."""
    with contextlib.ExitStack() as stack:  # a folder without a developer's `.env`
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
        finally:  # asked first, so that the local AWS has ended, and writes no more, before its folder goes
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.terminate()
                process.communicate(timeout=20)
            process.kill()
            process.communicate()


def first_lines(process):
    """What it prints up to the line that says what to try."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Try it"):
            break
    return "".join(lines)


def address(lines):
    return lines.split()[1]
