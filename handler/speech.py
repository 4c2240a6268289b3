"""OpenAI's transcription endpoint: a file in, a Transcript out. The only module that knows OpenAI."""

import json
import math
import random
import re
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from io import BufferedReader
from typing import Any, BinaryIO, Protocol

import anyio
import anyio.to_thread
import httpx2
from openai import APIConnectionError, APIStatusError, DefaultHttpxClient, OpenAI

from handler.audio import Container
from handler.errors import (
    EmptyRecording,
    InvalidOption,
    RecordingTooLarge,
    StenoError,
    UnreadableRecording,
    UpstreamBusy,
    UpstreamCredentials,
    UpstreamError,
    UpstreamFailed,
    UpstreamModel,
    UpstreamQuota,
    UpstreamTimeout,
)
from handler.models import MODELS
from handler.reader import Reader
from handler.transcript import Segment, Transcript

_ATTEMPTS = 3
_FIRST_BACKOFF_SECONDS = 0.5
_CONNECT_SECONDS = 5.0
_BUSY_SECONDS = 5.0  # what a caller is asked to wait when the upstream names no time
_NEARLY_ALL = 0.95  # of a model's longest answer
_TOKENS_PER_SECOND = 10  # of sound
_TOKENS_PER_LETTER = ((0x80, 0.25), (0x2E80, 0.4), (sys.maxunicode + 1, 1.0))  # Latin, most scripts, Chinese characters
_LATEST_SECONDS = 1e6
_DAY_SECONDS = 86_400.0
_MAX_ANSWER_BYTES = 32_000_000  # ten hours of speech as verbose_json

_NEVER_BETTER = {
    "insufficient_quota",
    "project_spend_limit_exceeded",
    "organization_spend_limit_exceeded",
    "billing_hard_limit_reached",
    "billing_not_active",
}
# OpenAI's error guide asks for a new try after these. Other 5xx come from gateways, behind which the work may be done.
_UPSTREAM_SAYS_AGAIN = {408, 429, 500, 503}


class Key(Protocol):
    """The key to the upstream; `renew` tells whether there is another one than the one that was refused."""

    def get(self) -> str: ...
    def renew(self, refused: str) -> bool: ...


class Speech:
    """Sends recordings to the upstream, as many at once as `limiter` has tokens."""

    def __init__(
        self, key: Key, base_url: str, limiter: anyio.CapacityLimiter, *, transport: httpx2.BaseTransport | None = None
    ) -> None:
        self._key = key
        self._limiter = limiter
        http_client = DefaultHttpxClient(
            transport=transport,
            # A kept connection may have died unseen, and what is sent into it may or may not have been billed ...
            limits=httpx2.Limits(max_keepalive_connections=0),
            event_hooks={"request": [_stamp], "response": [_bound]},
        )
        # ... and so may what the SDK would send again by itself.
        self._client = OpenAI(api_key=key.get, base_url=base_url, max_retries=0, http_client=http_client)

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
            if call.sent:
                raise _too_late() from None
            raise UpstreamBusy("Too many recordings are waiting here.", again=True, retry_after=_BUSY_SECONDS) from None

    async def _attempts(self, call: "_Call", attempts: int) -> Transcript:
        for attempt in range(1, attempts + 1):
            try:
                # Given up at the deadline, the call ends by itself: its file is closed and its timeouts are the same.
                return await anyio.to_thread.run_sync(self._send, call, limiter=self._limiter, abandon_on_cancel=True)
            except UpstreamError as error:
                wait = _wait(error, attempt)
                if not error.again or attempt == attempts or time.monotonic() + wait >= call.deadline:
                    raise
                await anyio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _send(self, call: "_Call") -> Transcript:
        key = self._key.get()
        try:
            try:
                return self._sent(call)
            except UpstreamCredentials:
                if not self._key.renew(key):
                    raise
            return self._sent(call)
        except StenoError as error:
            error.detail = error.detail.replace(key, "[key]")
            raise

    def _sent(self, call: "_Call") -> Transcript:
        left = max(call.deadline - time.monotonic(), 0.001)
        call.sent = True
        try:
            with BufferedReader(Reader(call.recording)) as recording:
                answer = self._client.audio.transcriptions.with_raw_response.create(
                    file=(call.container.filename, recording, call.container.media_type),
                    timeout=httpx2.Timeout(left, connect=min(left, _CONNECT_SECONDS)),
                    **call.parameters,
                )
        except APIStatusError as error:
            raise _answered(error) from None
        except APIConnectionError as error:
            raise _unanswered(error.__cause__ or error) from None
        except httpx2.RequestError as error:  # what the SDK lets through, as a body that cannot be unpacked
            raise _unanswered(error) from None
        return _transcript(answer.content, call.parameters["model"], call.parameters["response_format"])


@dataclass
class _Call:
    """One recording on its way; `sent` once anything may have reached the upstream."""

    recording: BinaryIO
    container: Container
    parameters: dict[str, Any]
    deadline: float
    sent: bool = False


def _stamp(request: httpx2.Request) -> None:
    request.extensions["deadline"] = time.monotonic() + request.extensions["timeout"]["read"]


def _bound(response: httpx2.Response) -> None:
    """Ends the answer at its call's deadline: a read timeout alone never ends one that drips."""
    response.stream = _BoundedStream(response.stream, response.request.extensions["deadline"])


class _BoundedStream(httpx2.SyncByteStream):
    def __init__(self, stream: Any, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for chunk in self._stream:
            size += len(chunk)
            if time.monotonic() > self._deadline:
                raise _too_late()
            if size > _MAX_ANSWER_BYTES:
                raise UpstreamFailed("The speech service's answer is too long to be a transcript.")
            yield chunk

    def close(self) -> None:
        self._stream.close()


def _wait(error: UpstreamError, attempt: int) -> float:
    if error.retry_after is not None:
        return error.retry_after
    return _FIRST_BACKOFF_SECONDS * (1 << attempt - 1) * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, no secret


def _transcript(body: bytes, model: str, answer_format: str) -> Transcript:
    try:
        return _read_answer(json.loads(body, parse_constant=_no_number, parse_float=_finite), model, answer_format)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UpstreamFailed(f"The speech service answered 200 with something that is no {answer_format}.") from None


def _read_answer(answer: dict[str, Any], model: str, answer_format: str) -> Transcript:
    text = answer["text"].strip()
    segments = tuple(sorted(map(_segment, answer.get("segments") or ()), key=lambda segment: segment.start))
    if answer_format != "json" and text and not segments and not answer.get("words"):
        raise ValueError("times were asked for and none came")
    usage = answer.get("usage") or {}
    languages = [heard["code"] for heard in answer.get("languages") or ()]
    return Transcript(
        text=text,
        model=model,
        segments=segments,
        language=answer.get("language") or next(iter(languages), None),
        duration=answer.get("duration") or _billed(usage),
        seconds_billed=_billed(usage),
        cut_off=(usage.get("output_tokens") or _tokens(text)) > _NEARLY_ALL * (MODELS[model].most_tokens or math.inf),
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
    return sum(next(tokens for end, tokens in _TOKENS_PER_LETTER if ord(letter) < end) for letter in text)


def _answered(error: APIStatusError) -> StenoError:
    """What the upstream's refusal means for our caller."""
    status, code = error.status_code, error.code
    reason = _reason(error)
    if code in _NEVER_BETTER:
        return UpstreamQuota(f"The speech service's account is out of credit or at its limit. {reason}")
    if status == 404 or code == "model_not_found" or (status == 400 and error.param == "model"):
        return UpstreamModel(f"The speech service does not serve this model to this key. {reason}")
    if status in (401, 403):
        return UpstreamCredentials(f"The speech service does not accept the server's key. {reason}")
    if status == 413:
        return RecordingTooLarge(f"The recording is larger than the speech service takes. {reason}")
    if status in (400, 415, 422):
        return _refused(error, reason)
    return _failed(error, reason)


def _refused(error: APIStatusError, reason: str) -> StenoError:
    if error.code == "audio_too_short":
        return EmptyRecording(f"The recording is too short to hold speech. {reason}")
    if isinstance(error.param, str) and error.param not in ("", "file"):
        return InvalidOption(error.param.removesuffix("[]"), f"The speech service refused the option. {reason}")
    return UnreadableRecording(f"The speech service could not read the recording. {reason}")


def _failed(error: APIStatusError, reason: str) -> UpstreamError:
    status = error.status_code
    said = error.response.headers.get("x-should-retry")
    again = said == "true" or (said != "false" and status in _UPSTREAM_SAYS_AGAIN)
    wait = _retry_after(error.response.headers)
    if status in (429, 503):
        wait = _BUSY_SECONDS if wait is None else wait
        return UpstreamBusy(f"The speech service is busy. {reason}", again=again, retry_after=wait)
    if status in (408, 504):
        return UpstreamTimeout(f"The speech service took too long. {reason}", again=again, retry_after=wait)
    return UpstreamFailed(f"The speech service failed. {reason}", again=again, retry_after=wait)


def _reason(error: APIStatusError) -> str:
    """The upstream's own words, without anything that looks like a key, and the id to ask its support with."""
    body = error.body if isinstance(error.body, dict) else {}
    said = body.get("message")
    text = f"It answered HTTP {error.status_code}."
    if isinstance(said, str) and said:
        text = f'The speech service says: "{_clean(said)}"'
    return f"{text} (request {error.request_id})" if error.request_id else text


def _clean(text: str) -> str:
    text = re.sub(r"\b(sk|sess|Bearer)[-_ ][\w*.\-]{4,}", "[key]", text)
    return " ".join(text.split())[:500]


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds, which the headers give as a number or as a date; a day at most."""
    value = headers.get("retry-after", "")
    if milliseconds := _number(headers.get("retry-after-ms", "")):
        return milliseconds / 1000
    if (seconds := _number(value)) is not None:
        return seconds
    try:
        return min(max(parsedate_to_datetime(value).timestamp() - time.time(), 0), _DAY_SECONDS)
    except ValueError:
        return None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return min(number, _DAY_SECONDS) if number >= 0 else None


def _unanswered(cause: BaseException) -> UpstreamError:
    if _is_tls(cause):
        return UpstreamFailed("The speech service's TLS certificate could not be verified.")
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return UpstreamFailed(f"The speech service cannot be reached ({_clean(str(cause))}).", again=True)
    if isinstance(cause, httpx2.TimeoutException):
        return _too_late()
    return UpstreamFailed("The connection to the speech service broke before its answer was complete.")


def _is_tls(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None


def _too_late() -> UpstreamTimeout:
    return UpstreamTimeout("The speech service did not answer in time. Send the recording again, or a shorter one.")
