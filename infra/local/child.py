"""A child that ends with its parent, however the parent ends: its standard input closes then."""

import os
import signal
import sys
import threading


def end_with_parent() -> None:
    """Has this process asked to terminate as soon as its standard input is closed."""
    threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
