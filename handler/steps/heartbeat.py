"""Repeats calls in the background while a step is running."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger("steno")


@contextmanager
def heartbeat(seconds: float, *calls: Callable[[], None]) -> Iterator[None]:
    """Until the block ends, make the calls every `seconds` seconds, in the given order.

    If a call fails, the error is logged and all calls are made again after the next pause. An AWS
    outage therefore does not stop the step.
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
