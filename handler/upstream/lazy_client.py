"""The upstream's client, built on its first use: its import and its certificates take a tenth of a second."""

from threading import Lock
from typing import TYPE_CHECKING

import anyio.to_thread

if TYPE_CHECKING:
    import httpx2

    from handler.upstream.client import Key, UpstreamClient


class LazyClient:
    """Builds the one client of a process. `transport` replaces the network."""

    def __init__(
        self,
        key: "Key",
        base_url: str,
        most_at_once: int,
        transport: "httpx2.BaseTransport | None" = None,
    ) -> None:
        self._key = key
        self._base_url = base_url
        self._most_at_once = most_at_once
        self._transport = transport
        self._client: UpstreamClient | None = None
        self._lock = Lock()

    def get(self) -> "UpstreamClient":
        """Return the client. Blocks while it is built."""
        with self._lock:
            if self._client is None:
                from handler.upstream.client import UpstreamClient

                self._client = UpstreamClient(
                    self._key, self._base_url, self._most_at_once, transport=self._transport
                )
            return self._client

    async def ready(self) -> "UpstreamClient":
        """Return the client, which is built in a thread."""
        if self._client is None:
            return await anyio.to_thread.run_sync(self.get)
        return self._client
