"""The interface through which a transcription reports its text while it is still running."""

from typing import Protocol


class Listener(Protocol):
    """Receives the text of a transcription as it grows.

    `update` receives the whole text so far. It can be called from any thread. If `is_connected` is
    False, nobody reads the text any more, so Steno stops waiting for a job. A request that was
    already sent to the upstream is not stopped, because its result is paid for.
    """

    def update(self, text: str, /) -> None: ...
    @property
    def is_connected(self) -> bool: ...
