"""A file and an address that nobody may open, and who knows whether somebody did."""

import ctypes
import os
import socket
from contextlib import contextmanager, suppress

from tests.attacks.bombs import chunk, wave
from tests.samples import asset

SECRET = "the canary sings"
_OPENED = 0x20 | 0x01  # of inotify: opened, or read


class Canaries:
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

    def knocks(self):
        """What was opened since the last time: `file`, `address`."""
        found = []
        with suppress(BlockingIOError):
            os.read(self._watch, 65_536)
            found.append("file")
        with suppress(BlockingIOError):
            while True:
                self._listener.accept()[0].close()
                found.append("address")
        return found


@contextmanager
def canaries(folder):
    """In this folder, which is watched by the system itself: who opens a file there, however shortly, is seen."""
    whole = asset("beckett.wav")
    named = wave(*[chunk(b"LIST", b"INFO" + chunk(b"INAM", SECRET.encode())), whole[12:]])
    (folder / "secret.wav").write_bytes(named)
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, os.fsencode(folder / "secret.wav"), _OPENED) > 0
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        listener.setblocking(False)
        yield Canaries(folder, listener, watch)
    os.close(watch)
