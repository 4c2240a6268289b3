"""What each line of the log says besides its words: its request, its job, its part.

Lambda writes each line as JSON, with the names that are added here. Elsewhere, they follow the words.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

log = logging.getLogger("steno")

_about: ContextVar[dict[str, str | int]] = ContextVar("_about", default={})  # noqa: B039 - it is never changed


@contextmanager
def context(**ids: str | int) -> Iterator[None]:
    """Add these to each line that this task or thread logs meanwhile."""
    token = _about.set({**_about.get(), **ids})
    try:
        yield
    finally:
        _about.reset(token)


def ids() -> dict[str, str | int]:
    """Return what is added to lines now."""
    return _about.get()


def request_id() -> str:
    """Return the id of the request that is being answered; empty outside of one."""
    return str(ids().get("request", ""))


def configure(*, on_lambda: bool) -> None:
    """Make the log say what `about` adds. An entry point calls it once."""
    log.setLevel(logging.INFO)
    log.addFilter(_add_ids)
    if not on_lambda and not log.handlers:  # Lambda has a handler of its own
        handler = logging.StreamHandler(sys.stderr)
        handler.setLevel(logging.WARNING)
        handler.setFormatter(_PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)


def _add_ids(record: logging.LogRecord) -> bool:
    record.__dict__.update(_about.get())
    return True


class _PlainFormatter(logging.Formatter):
    """Puts the ids in brackets behind the words."""

    def format(self, record: logging.LogRecord) -> str:
        ids = [
            f"{name}={record.__dict__[name]}"
            for name in ("request", "job", "part")
            if name in record.__dict__
        ]
        line = super().format(record)
        return f"{line} [{' '.join(ids)}]" if ids else line
