"""Repeats calls while a step works."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger("steno")


@contextmanager
def heartbeat(seconds: float, *calls: Callable[[], None]) -> Iterator[None]:
    """Make the calls, in their order, every `seconds` until the block ends.

    A failure is logged, and the calls are made again: during an outage of AWS the work goes on.
    """
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds):
            try:
                for call in calls:
                    call()
            except Exception as error:
                log.warning("A message could not be held any longer: %s", error)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
