"""Temporary folders for the files of a job."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "steno-job-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new temporary folder, and delete it when the context exits.

    Before that, delete the folders of processes that were killed.
    """
    _delete_abandoned_folders()
    folder, lock = _create_locked_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _create_locked_folder() -> tuple[Path, int]:
    """Return a new folder, and the file descriptor that holds its lock.

    The lock marks the folder as in use. The kernel releases the lock even if the process is killed.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)  # another process deleted the folder before it was locked


def _delete_abandoned_folders() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # The folder may belong to another user, be in use, or be deleted by another process.
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
