"""What it means for our caller that the upstream refuses, fails, or does not answer."""

import re
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx2

from handler.durations import DAY_SECONDS
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

if TYPE_CHECKING:
    import openai

BUSY_SECONDS = 5.0  # what a caller is asked to wait when the upstream names no time

_QUOTA_CODES = {
    "insufficient_quota",
    "project_spend_limit_exceeded",
    "organization_spend_limit_exceeded",
    "billing_hard_limit_reached",
    "billing_not_active",
}
# OpenAI's error guide asks for a new try after these. Other 5xx come from gateways, behind which the work may be done.
_RETRYABLE_STATUSES = {408, 429, 500, 503}


@dataclass(frozen=True)
class _ErrorResponse:
    """An answer that is no success to a request with this key."""

    error: "openai.APIStatusError"
    key: str

    @property
    def reason(self) -> str:
        """The upstream's own words, without anything that looks like a key, and the id to ask its support with."""
        body, request = self.error.body, self.error.request_id
        said = body.get("message") if isinstance(body, dict) else None
        text = f"It answered HTTP {self.error.status_code}."
        if isinstance(said, str) and said:
            text = f'The speech service says: "{self._without_key(said)}"'
        return f"{text} (request {self._without_key(request)})" if request else text

    def _without_key(self, text: str) -> str:
        """Without the key before it is shortened, or a part of the key would be left."""
        return _clean(text.replace(self.key, "[key]"))


def error_from_response(error: "openai.APIStatusError", key: str) -> StenoError:
    """The error for an answer that is no success, without the key that was sent."""
    refusal = _ErrorResponse(error, key)
    status, code, reason = error.status_code, error.code, refusal.reason
    if code in _QUOTA_CODES:
        return UpstreamQuota(
            f"The speech service's account is out of credit or at its limit. {reason}"
        )
    if status == 404 or code == "model_not_found" or (status == 400 and error.param == "model"):
        return UpstreamModel(f"The speech service does not serve this model to this key. {reason}")
    if status in (401, 403):
        return UpstreamCredentials(f"The speech service does not accept the server's key. {reason}")
    if status == 413:
        return RecordingTooLarge(f"The recording is larger than the speech service takes. {reason}")
    if status in (400, 415, 422):
        return _client_error(refusal)
    return _server_error(refusal)


def _client_error(refusal: _ErrorResponse) -> StenoError:
    param = refusal.error.param
    if refusal.error.code == "audio_too_short":
        return EmptyRecording(f"The recording is too short to hold speech. {refusal.reason}")
    if isinstance(param, str) and param not in ("", "file"):
        return InvalidOption(
            param.removesuffix("[]"), f"The speech service refused the option. {refusal.reason}"
        )
    return UnreadableRecording(f"The speech service could not read the recording. {refusal.reason}")


def _server_error(refusal: _ErrorResponse) -> UpstreamError:
    status, reason, headers = (
        refusal.error.status_code,
        refusal.reason,
        refusal.error.response.headers,
    )
    said = headers.get("x-should-retry")
    again = said == "true" or (said != "false" and status in _RETRYABLE_STATUSES)
    wait = _retry_after(headers)
    if status in (429, 503):
        wait = BUSY_SECONDS if wait is None else wait
        return UpstreamBusy(
            f"The speech service is busy. {reason}", safe_to_retry=again, retry_after=wait
        )
    if status in (408, 504):
        return UpstreamTimeout(
            f"The speech service took too long. {reason}", safe_to_retry=again, retry_after=wait
        )
    return UpstreamFailed(
        f"The speech service failed. {reason}", safe_to_retry=again, retry_after=wait
    )


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
        return min(max(parsedate_to_datetime(value).timestamp() - time.time(), 0), DAY_SECONDS)
    except ValueError:
        return None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return min(number, DAY_SECONDS) if number >= 0 else None


def connection_error(cause: BaseException) -> UpstreamError:
    """The error for a request that ended without a whole answer."""
    if _is_tls(cause):
        return UpstreamFailed("The speech service's TLS certificate could not be verified.")
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return UpstreamFailed(
            f"The speech service cannot be reached ({_clean(str(cause))}).", safe_to_retry=True
        )
    if isinstance(cause, httpx2.TimeoutException):
        return timed_out()
    return UpstreamFailed(
        "The connection to the speech service broke before its answer was complete."
    )


def _is_tls(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None


def timed_out() -> UpstreamTimeout:
    return UpstreamTimeout(
        "The speech service did not answer in time. Send the recording again, or a shorter one."
    )
