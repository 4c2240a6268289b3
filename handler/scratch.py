"""A folder for the files of one job. It goes with the job; what a killed process left goes when the next job begins."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "steno-job-"
_LOCK = "lock"


@contextmanager
def scratch() -> Iterator[Path]:
    _sweep()
    made = Path(tempfile.mkdtemp(prefix="steno-"))
    with (made / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system lets go of it however the process ends
        # Only what is locked has a name that others sweep.
        folder = made.rename(made.with_name(_PREFIX + made.name))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError), left.open() as lock:  # another's, or gone by now
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.parent, ignore_errors=True)
