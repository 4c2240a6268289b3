"""Detect whether code under test opens a given file or connects to a given address."""

import ctypes
import os
import socket
from contextlib import contextmanager, suppress

from tests.attacks.extreme_headers import chunk, wave
from tests.samples import asset

SECRET = "canary-4f1c9a"  # in the title tag of the monitored file
_OPENED = 0x20 | 0x01  # inotify: IN_OPEN and IN_ACCESS


class AccessMonitor:
    """A monitored file (`path`) and a monitored HTTP address (`address`)."""

    def __init__(self, folder, listener, watch):
        self.folder = folder
        self._listener = listener
        self._watch = watch

    @property
    def path(self):
        return str(self.folder / "secret.wav")

    @property
    def address(self):
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/secret.wav"

    def accesses(self):
        """Return what was accessed since the last call.

        The result is a list that can contain "file" and "address".
        """
        accessed = []
        with suppress(BlockingIOError):
            os.read(self._watch, 65_536)
            accessed.append("file")
        with suppress(BlockingIOError):
            while True:
                self._listener.accept()[0].close()
                accessed.append("address")
        return accessed


@contextmanager
def monitor_access(folder):
    """Create the monitored file in `folder` and yield its AccessMonitor.

    Linux (inotify) reports every access to the file, even if the file is open only briefly.
    """
    original = asset("beckett.wav")
    marked = wave(*[chunk(b"LIST", b"INFO" + chunk(b"INAM", SECRET.encode())), original[12:]])
    (folder / "secret.wav").write_bytes(marked)
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, os.fsencode(folder / "secret.wav"), _OPENED) > 0
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        listener.setblocking(False)
        yield AccessMonitor(folder, listener, watch)
    os.close(watch)
