"""Configures logging, and adds request, job and part ids to log records.

On Lambda, records are written as JSON, with the ids as fields. Elsewhere, the ids are appended to
the message.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

log = logging.getLogger("steno")

# All contexts share this default dict. That is safe, because no code modifies it.
_log_ids: ContextVar[dict[str, str | int]] = ContextVar("_log_ids", default={})  # noqa: B039


@contextmanager
def context(**ids: str | int) -> Iterator[None]:
    """Add these ids to each record that is logged in this block by the current task or thread."""
    token = _log_ids.set({**_log_ids.get(), **ids})
    try:
        yield
    finally:
        _log_ids.reset(token)


def ids() -> dict[str, str | int]:
    """Return the ids that are added to the log records of the current task or thread."""
    return _log_ids.get()


def request_id() -> str:
    """Return the id of the current HTTP request, or an empty string outside a request."""
    return str(ids().get("request", ""))


def configure(*, on_lambda: bool) -> None:
    """Configure the "steno" logger. Each entry point calls this once.

    Outside Lambda, only warnings and errors are printed, to standard error.
    """
    log.setLevel(logging.INFO)
    log.addFilter(_add_ids)
    if not on_lambda and not log.handlers:  # Lambda adds its own handler to the root logger
        handler = logging.StreamHandler(sys.stderr)
        handler.setLevel(logging.WARNING)
        handler.setFormatter(_PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)


def _add_ids(record: logging.LogRecord) -> bool:
    record.__dict__.update(_log_ids.get())
    return True


class _PlainFormatter(logging.Formatter):
    """Appends the ids to the message, in brackets."""

    def format(self, record: logging.LogRecord) -> str:
        ids = [
            f"{name}={record.__dict__[name]}"
            for name in ("request", "job", "part")
            if name in record.__dict__
        ]
        line = super().format(record)
        return f"{line} [{' '.join(ids)}]" if ids else line
