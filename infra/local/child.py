"""Stop a child process when its parent process exits for any reason.

The parent holds a pipe to the child's standard input. The pipe is closed when the parent exits.
"""

import os
import signal
import sys
import threading


def exit_with_parent() -> None:
    """Send SIGTERM to this process as soon as its standard input is closed."""
    threading.Thread(target=_terminate_at_eof, daemon=True).start()


def _terminate_at_eof() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
