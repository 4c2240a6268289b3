"""OpenAI's transcription endpoint: a file in, a Transcript out.

OpenAI's SDK makes the request and reads the answer. Attempts, deadlines, and what may have been billed are here.
"""

import asyncio
import json
import math
import random
import sys
import time
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
    UpstreamFailed,
)
from handler.recordings.container import Container
from handler.transcripts.transcript import Segment, Transcript
from handler.upstream.daemon_threads import DaemonThreads
from handler.upstream.errors import BUSY_SECONDS, timed_out
from handler.upstream.file_view import FileView
from handler.upstream.models import MODELS
from handler.upstream.openai_sdk import Client, HTTPClient

if TYPE_CHECKING:
    import httpx2

_ATTEMPTS = 3
_TURNS = 2  # of the loop for everybody else, where hundreds of recordings are to be sent at the same moment
_FIRST_BACKOFF_SECONDS = 0.5
_NEARLY_ALL = 0.95  # of a model's longest answer
_TOKENS_PER_SECOND = 10  # of sound
_TOKENS_PER_LETTER = (
    (0x80, 0.25),
    (0x2E80, 0.4),
    (sys.maxunicode + 1, 1.0),
)  # Latin, most scripts, Chinese characters
_LATEST_SECONDS = 1e6


class Key(Protocol):
    """The key to the upstream; `renew` tells whether there is another one than the one that was refused."""

    def get(self) -> str: ...
    def renew(self, refused: str) -> bool: ...


class UpstreamClient:
    """Sends recordings to the upstream, `most_at_once` of them at a time."""

    def __init__(
        self,
        key: Key,
        base_url: str,
        most_at_once: int,
        *,
        transport: "httpx2.BaseTransport | None" = None,
    ) -> None:
        self._key = key
        # Threads of its own stay when an event of Lambda's has been answered; the framework's end with each.
        self._threads = DaemonThreads(most_at_once, "speech")
        self._base_url = base_url
        self._http = HTTPClient(transport)
        self._client: Client | None = None

    async def transcribe(
        self,
        recording: BinaryIO,
        container: Container,
        parameters: dict[str, Any],
        seconds: float,
        *,
        attempts: int = _ATTEMPTS,
    ) -> Transcript:
        """The transcript within `seconds`, or one of errors.py; sent again only where nothing can have been billed."""
        call = _Call(recording, container, parameters, time.monotonic() + seconds)
        try:
            with anyio.fail_after(seconds):
                return await self._attempts(call, attempts)
        except TimeoutError:
            if call.give_up():
                raise timed_out() from None
            raise UpstreamBusy(
                "The server had no time left to send the recording. Send it again.",
                safe_to_retry=True,
                retry_after=BUSY_SECONDS,
            ) from None
        finally:
            call.give_up()

    async def _attempts(self, call: "_Call", attempts: int) -> Transcript:
        for attempt in range(1, attempts + 1):
            try:
                for _ in range(_TURNS):
                    await anyio.lowlevel.checkpoint()
                # Given up at the deadline, the call ends by itself: its file is closed and its timeouts are the same.
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._send, call
                )
            except UpstreamError as error:
                if error.safe_to_retry:
                    call.not_billed()
                wait = error.retry_after
                if wait is None:
                    jitter = random.uniform(0.75, 1.25)  # noqa: S311 - it is not a secret
                    wait = _FIRST_BACKOFF_SECONDS * (1 << attempt - 1) * jitter
                if (
                    not error.safe_to_retry
                    or attempt == attempts
                    or time.monotonic() + wait >= call.deadline
                ):
                    raise
                await anyio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

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
        if not (key.isascii() and key.isprintable()):  # no header can carry it
            raise UpstreamCredentials(
                "The server's key has characters that no key has. Was it pasted from a text?"
            )
        client = self._client
        if client is None or client.api_key != key:
            client = self._client = Client(key, self._base_url, self._http)
        left = call.begin()
        with BufferedReader(FileView(call.recording)) as recording:
            file = call.container.filename, recording, call.container.media_type
            body = client.transcription(file, call.parameters, left)
        return _transcript(body, call.parameters["model"], call.parameters["response_format"])


class _Call:
    """One recording on its way. Its thread asks before it sends, so that nothing is sent once the call is given up."""

    def __init__(
        self, recording: BinaryIO, container: Container, parameters: dict[str, Any], deadline: float
    ) -> None:
        self.recording = recording
        self.container = container
        self.parameters = parameters
        self.deadline = deadline
        self.ids = logs.ids()  # a thread of its own has no context
        self._given_up = False
        self._may_be_billed = False
        self._lock = Lock()

    def begin(self) -> float:
        """Return the seconds that are left for a request; TimeoutError if none may be sent any more."""
        with self._lock:
            left = self.deadline - time.monotonic()
            if self._given_up or left <= 0:
                raise TimeoutError
            self._may_be_billed = True
            return left

    def not_billed(self) -> None:
        """Note that the request that was sent has ended, and cannot have been billed."""
        self._may_be_billed = False

    def give_up(self) -> bool:
        """End the call. Return whether a request that may be billed has been sent."""
        with self._lock:
            self._given_up = True
            return self._may_be_billed


def _transcript(body: bytes, model: str, answer_format: str) -> Transcript:
    try:
        return _read_answer(
            json.loads(body, parse_constant=_no_number, parse_float=_finite), model, answer_format
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UpstreamFailed(
            f"The speech service answered 200 with something that is no {answer_format}."
        ) from None


def _read_answer(answer: dict[str, Any], model: str, answer_format: str) -> Transcript:
    text = answer["text"].strip()
    segments = tuple(
        sorted(map(_segment, answer.get("segments") or ()), key=lambda segment: segment.start)
    )
    if answer_format != "json" and text and not segments and not answer.get("words"):
        raise ValueError("times were asked for and none came")
    usage = answer.get("usage") or {}
    languages = [heard["code"] for heard in answer.get("languages") or ()]
    most_tokens = MODELS[model].most_tokens if model in MODELS else None
    return Transcript(
        text=text,
        model=model,
        segments=segments,
        language=answer.get("language") or next(iter(languages), None),
        duration=answer.get("duration") or _billed(usage),
        seconds_billed=_billed(usage),
        cut_off=(usage.get("output_tokens") or _tokens(text))
        > _NEARLY_ALL * (most_tokens or math.inf),
        answer=answer,
        answer_format=answer_format,
    )


def _segment(told: dict[str, Any]) -> Segment:
    start = max(float(told["start"]), 0.0)
    if start > _LATEST_SECONDS:
        raise ValueError("no recording lasts so long")
    return Segment(start, max(float(told["end"]), start), "" + told["text"], told.get("speaker"))


def _finite(digits: str) -> float:
    """JSON knows no infinity, but 1e400."""
    return float(digits) if math.isfinite(float(digits)) else _no_number(digits)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _billed(usage: dict[str, Any]) -> float | None:
    """The seconds that were billed, where the answer tells: as such, or as tokens of sound."""
    seconds = usage.get("seconds")
    if tokens := (usage.get("input_token_details") or {}).get("audio_tokens"):
        seconds = tokens / _TOKENS_PER_SECOND
    known = isinstance(seconds, int | float) and math.isfinite(seconds) and seconds >= 0
    return seconds if known else None


def _tokens(text: str) -> float:
    """About how many tokens a text was, where the answer does not say."""
    return sum(
        next(tokens for end, tokens in _TOKENS_PER_LETTER if ord(letter) < end) for letter in text
    )
