"""The client for the upstream's transcription endpoint.

It retries requests, enforces deadlines, and tracks whether a request may have been billed. OpenAI's
SDK sends the HTTP requests.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BufferedReader
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import anyio
import anyio.lowlevel

from handler import logs
from handler.errors import (
    UpstreamBusy,
    UpstreamCredentials,
    UpstreamError,
)
from handler.recordings.container import Container
from handler.transcripts.transcript import Transcript
from handler.upstream.daemon_threads import DaemonThreads
from handler.upstream.errors import DEFAULT_RETRY_AFTER_SECONDS, timed_out
from handler.upstream.file_view import FileView
from handler.upstream.openai_sdk import Client, HTTPClient
from handler.upstream.profiles import Model
from handler.upstream.response import parse_response

if TYPE_CHECKING:
    import httpx2

_MAX_ATTEMPTS = 3
# Before each attempt, other tasks run for this many cycles of the event loop. Without these pauses,
# hundreds of simultaneous recordings would delay other tasks.
_YIELDS_BEFORE_SENDING = 2
_FIRST_BACKOFF_SECONDS = 0.5


class Key(Protocol):
    """The API key for the upstream.

    `renew` reads the key again, and returns whether it differs from the `rejected` one.
    """

    def get(self) -> str: ...
    def renew(self, rejected: str, /) -> bool: ...


class UpstreamClient:
    """Sends recordings to the upstream, at most `max_concurrent_calls` at a time."""

    def __init__(
        self,
        key: Key,
        base_url: str,
        max_concurrent_calls: int,
        *,
        transport: "httpx2.BaseTransport | None" = None,
    ) -> None:
        self._key = key
        # anyio's threads are stopped at the end of each Lambda invocation. These threads stay.
        self._threads = DaemonThreads(max_concurrent_calls, "speech")
        self._base_url = base_url
        self._http = HTTPClient(transport)
        self._client: Client | None = None

    async def transcribe(  # noqa: PLR0913 - the parts of one request, and its limits
        self,
        recording: BinaryIO,
        container: Container,
        model: Model,
        parameters: dict[str, Any],
        seconds: float,
        *,
        attempts: int = _MAX_ATTEMPTS,
        on_text: Callable[[str], None] | None = None,
    ) -> Transcript:
        """Return the transcript within `seconds`.

        Sends at most `attempts` requests, and retries only if the failed request cannot have been
        billed. Raises the StenoError of the last attempt. If the model streams its transcript,
        `on_text` is called in another thread with the text so far.
        """
        deadline = time.monotonic() + seconds
        call = _Call(recording, container, model, parameters, deadline, on_text)
        try:
            with anyio.fail_after(seconds):
                return await self._send_with_retries(call, attempts)
        except TimeoutError:
            if call.give_up():
                raise timed_out() from None
            raise UpstreamBusy(
                "The server had no time left to send the recording. Try again.",
                safe_to_retry=True,
                retry_after=DEFAULT_RETRY_AFTER_SECONDS,
            ) from None
        finally:
            call.give_up()

    async def _send_with_retries(self, call: "_Call", attempts: int) -> Transcript:
        for attempt in range(1, attempts + 1):
            try:
                for _ in range(_YIELDS_BEFORE_SENDING):
                    await anyio.lowlevel.checkpoint()
                # After the deadline, nothing waits for the thread. The thread stops at the same
                # deadline, and closes its own FileView.
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._send, call
                )
            except UpstreamError as error:
                if error.safe_to_retry:
                    call.not_billed()
                wait_seconds = error.retry_after
                if wait_seconds is None:
                    jitter = random.uniform(0.75, 1.25)  # noqa: S311 - not used for security
                    wait_seconds = _FIRST_BACKOFF_SECONDS * (1 << attempt - 1) * jitter
                if (
                    not error.safe_to_retry
                    or attempt == attempts
                    or time.monotonic() + wait_seconds >= call.deadline
                ):
                    raise
                await anyio.sleep(wait_seconds)
        raise AssertionError("The last attempt neither returned a result nor raised an error.")

    def _send(self, call: "_Call") -> Transcript:
        with logs.context(**call.ids):
            key = self._key.get()
            try:
                return self._request(call, key)
            except UpstreamCredentials:
                call.not_billed()
                if not self._key.renew(key):
                    raise
            return self._request(call, self._key.get())

    def _request(self, call: "_Call", key: str) -> Transcript:
        if not (key.isascii() and key.isprintable()):  # not valid in a header
            raise UpstreamCredentials(
                "The server's API key contains characters that are not printable ASCII."
                " The server's owner must set the key again."
            )
        client = self._client
        if client is None or client.api_key != key:
            client = self._client = Client(key, self._base_url, self._http)
        seconds_left = call.begin()
        with BufferedReader(FileView(call.recording)) as recording:
            file = call.container.filename, recording, call.container.media_type
            if call.on_text and call.model.streaming:
                body = client.streamed_transcription(
                    file, call.parameters, seconds_left, call.on_text
                )
            else:
                body = client.transcription(file, call.parameters, seconds_left)
        return parse_response(body, call.model, call.parameters)


@dataclass
class _Call:
    """The state of one call of `transcribe`, shared by its task and its thread.

    The thread calls `begin` before each request, so that nothing is sent after a call of `give_up`.
    """

    recording: BinaryIO
    container: Container
    model: Model
    parameters: dict[str, Any]
    deadline: float
    on_text: Callable[[str], None] | None = None
    # The thread does not inherit the logging context.
    ids: dict[str, str | int] = field(default_factory=logs.ids, init=False)
    _given_up: bool = field(default=False, init=False)
    _may_be_billed: bool = field(default=False, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def begin(self) -> float:
        """Return the seconds left for the next request, and mark the call as possibly billed.

        Raises TimeoutError after the deadline or after a call to `give_up`.
        """
        with self._lock:
            seconds_left = self.deadline - time.monotonic()
            if self._given_up or seconds_left <= 0:
                raise TimeoutError
            self._may_be_billed = True
            return seconds_left

    def not_billed(self) -> None:
        """Record that the last request has failed and cannot have been billed."""
        self._may_be_billed = False

    def give_up(self) -> bool:
        """Prevent further requests. Return whether a sent request may have been billed."""
        with self._lock:
            self._given_up = True
            return self._may_be_billed
