"""Repeats calls in the background while a step works."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger("steno")


@contextmanager
def heartbeat(seconds: float, *calls: Callable[[], None]) -> Iterator[None]:
    """Make the calls in this order, every `seconds` seconds, until the block ends.

    If a call fails, the error is logged and the calls are repeated later. So the step continues
    during an outage of AWS.
    """
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds):
            try:
                for call in calls:
                    call()
            except Exception as error:
                log.warning(
                    "The claim or the visibility timeout of a message was not renewed: %s", error
                )

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
