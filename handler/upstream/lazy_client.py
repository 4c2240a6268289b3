"""The upstream client, created on first use.

Importing the client and loading the CA certificates take 0.1 seconds in total. This would slow down
each cold start.
"""

from threading import Lock
from typing import TYPE_CHECKING

import anyio.to_thread

if TYPE_CHECKING:
    import httpx2

    from handler.upstream.client import Key, UpstreamClient


class LazyClient:
    """Creates the upstream client of a process on first use.

    `transport` replaces the network in tests.
    """

    def __init__(
        self,
        key: "Key",
        base_url: str,
        max_concurrent_calls: int,
        transport: "httpx2.BaseTransport | None" = None,
    ) -> None:
        self.key = key
        self._base_url = base_url
        self._max_concurrent_calls = max_concurrent_calls
        self._transport = transport
        self._client: UpstreamClient | None = None
        self._lock = Lock()

    def get(self) -> "UpstreamClient":
        """Return the client. Blocks while the client is created."""
        with self._lock:
            if self._client is None:
                from handler.upstream.client import UpstreamClient

                self._client = UpstreamClient(
                    self.key, self._base_url, self._max_concurrent_calls, transport=self._transport
                )
            return self._client

    async def ready(self) -> "UpstreamClient":
        """Return the client. Creates it in a thread, so that the event loop is not blocked."""
        if self._client is None:
            return await anyio.to_thread.run_sync(self.get)
        return self._client
