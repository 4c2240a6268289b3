"""OpenAI's transcription endpoint: a file in, a Transcript out. The only module that knows OpenAI."""

import json
import random
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, BinaryIO

import anyio
import anyio.to_thread
import httpx2
from openai import APIConnectionError, APIStatusError, OpenAI

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
from handler.transcript import Segment, Transcript

_ATTEMPTS = 3
_FIRST_BACKOFF_SECONDS = 0.5
_CONNECT_SECONDS = 5.0
_BUSY_SECONDS = 5.0  # what a caller is asked to wait when the upstream names no time
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


class Speech:
    """Sends recordings to the upstream, at most as many at once as `limiter` has tokens.

    `renew_key` reads the key again and says whether it has changed.
    """

    def __init__(self, client: OpenAI, renew_key: Callable[[], bool], limiter: anyio.CapacityLimiter) -> None:
        self._client = client
        self._renew_key = renew_key
        self._limiter = limiter

    async def transcribe(
        self, recording: BinaryIO, container: Container, parameters: dict[str, Any], seconds: float
    ) -> Transcript:
        """The transcript within `seconds`, or one of errors.py; sent again only where nothing can have been billed."""
        deadline = time.monotonic() + seconds
        try:
            with anyio.fail_after(seconds):
                return await self._attempts(recording, container, parameters, deadline)
        except TimeoutError:
            raise _too_late() from None

    async def _attempts(
        self, recording: BinaryIO, container: Container, parameters: dict[str, Any], deadline: float
    ) -> Transcript:
        call = partial(self._send, recording, container, parameters, deadline)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                # Given up at the deadline, the call ends by itself: its file is closed and its timeouts are the same.
                return await anyio.to_thread.run_sync(call, limiter=self._limiter, abandon_on_cancel=True)
            except UpstreamError as error:
                wait = _wait(error, attempt)
                if not error.again or attempt == _ATTEMPTS or time.monotonic() + wait >= deadline:
                    raise
                await anyio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _send(
        self, recording: BinaryIO, container: Container, parameters: dict[str, Any], deadline: float
    ) -> Transcript:
        try:
            return self._call(recording, container, parameters, deadline)
        except UpstreamCredentials:
            if not self._renew_key():
                raise
        return self._call(recording, container, parameters, deadline)

    def _call(
        self, recording: BinaryIO, container: Container, parameters: dict[str, Any], deadline: float
    ) -> Transcript:
        recording.seek(0)
        left = max(deadline - time.monotonic(), 0.001)
        try:
            with self._client.audio.transcriptions.with_streaming_response.create(
                file=(container.filename, recording, container.media_type),
                timeout=httpx2.Timeout(left, connect=min(left, _CONNECT_SECONDS)),
                **parameters,
            ) as response:
                body = b"".join(_until(deadline, response.iter_bytes()))
        except APIStatusError as error:
            raise _answered(error) from None
        except APIConnectionError as error:
            raise _unanswered(error.__cause__ or error) from None
        except httpx2.TransportError as error:  # while the body was read
            raise _unanswered(error) from None
        return _transcript(body, parameters["model"], parameters["response_format"])


def _wait(error: UpstreamError, attempt: int) -> float:
    if error.retry_after is not None:
        return error.retry_after
    return _FIRST_BACKOFF_SECONDS * (1 << attempt - 1) * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, no secret


def _until(deadline: float, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks, as long as there is time: a read timeout alone never ends an answer that drips."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if time.monotonic() > deadline:
            raise _too_late()
        if size > _MAX_ANSWER_BYTES:
            raise UpstreamFailed("The speech service's answer is too long to be a transcript.")
        yield chunk


def _transcript(body: bytes, model: str, answer_format: str) -> Transcript:
    try:
        return _read_answer(json.loads(body), model, answer_format)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UpstreamFailed(f"The speech service answered 200 with something that is no {answer_format}.") from None


def _read_answer(answer: dict[str, Any], model: str, answer_format: str) -> Transcript:
    text = answer["text"].strip()
    segments = tuple(
        Segment(float(segment["start"]), float(segment["end"]), segment["text"], segment.get("speaker"))
        for segment in answer.get("segments") or ()
    )
    if answer_format != "json" and text and not segments:
        raise ValueError("times were asked for and none came")
    languages = [heard["code"] for heard in answer.get("languages") or ()]
    return Transcript(
        text=text,
        model=model,
        segments=segments,
        language=answer.get("language") or next(iter(languages), None),
        duration=answer.get("duration") or (answer.get("usage") or {}).get("seconds"),
        answer=answer,
        answer_format=answer_format,
    )


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
    if error.param and error.param != "file":
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
    text = f'It says: "{_clean(said)}"' if isinstance(said, str) and said else f"It answered HTTP {error.status_code}."
    return f"{text} (request {error.request_id})" if error.request_id else text


def _clean(text: str) -> str:
    text = re.sub(r"\b(sk|sess|Bearer)[-_ ][\w*.\-]{4,}", "[key]", text)
    return " ".join(text.split())[:500]


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds, which the header gives as a number or as a date."""
    value = headers.get("retry-after", "")
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0)
    except ValueError:
        return None


def _unanswered(cause: BaseException) -> UpstreamError:
    if _is_tls(cause):
        return UpstreamFailed("The speech service's TLS certificate could not be verified.")
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return UpstreamFailed("The speech service cannot be reached.", again=True)
    if isinstance(cause, httpx2.TimeoutException):
        return _too_late()
    return UpstreamFailed("The connection to the speech service broke before its answer was complete.")


def _is_tls(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None


def _too_late() -> UpstreamTimeout:
    return UpstreamTimeout("The speech service did not answer in time. Send the recording again, or a shorter one.")
