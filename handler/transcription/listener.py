"""The interface through which a transcription reports its text while it is still running."""

from typing import Protocol


class Listener(Protocol):
    """Receives the text of a transcription as it grows.

    `update` receives the whole text so far. It can be called from any thread. If `is_connected` is
    False, the client has disconnected. Steno then stops waiting for a job. A request that was
    already sent to the upstream continues, because it is billed.
    """

    def update(self, text: str, /) -> None: ...
    @property
    def is_connected(self) -> bool: ...
