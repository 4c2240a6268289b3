"""Converts error responses from the upstream, and connection errors, into Steno's errors."""

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

# Used if a busy upstream does not send `Retry-After`.
DEFAULT_RETRY_AFTER_SECONDS = 5.0

_QUOTA_CODES = {
    "insufficient_quota",
    "project_spend_limit_exceeded",
    "organization_spend_limit_exceeded",
    "billing_hard_limit_reached",
    "billing_not_active",
}
# OpenAI's error guide recommends a retry after these statuses. Other 5xx responses come from
# gateways, which may have forwarded the request, so it may have been billed.
_RETRYABLE_STATUSES = {408, 429, 500, 503}


@dataclass(frozen=True)
class _ErrorResponse:
    """The upstream's error response to a request that was sent with the API key `key`."""

    error: "openai.APIStatusError"
    key: str

    @property
    def reason(self) -> str:
        """Return a sentence with the status, the message and the request id of the response.

        API keys are removed from the sentence.
        """
        body, request_id = self.error.body, self.error.request_id
        message = None
        if isinstance(body, dict):  # servers that are built with FastAPI send `detail`
            message = body.get("message") or body.get("detail")
        text = f"Response of the speech service: HTTP {self.error.status_code}"
        if isinstance(message, str) and message:
            text += f', "{self.without_keys(message)}"'
        if request_id:
            text += f" (request id {self.without_keys(request_id)})"
        return f"{text}."

    @property
    def is_missing_route(self) -> bool:
        """Return whether a 404 response means that the route, not the model, does not exist."""
        body = self.error.body
        return not isinstance(body, dict) or body in ({}, {"detail": "Not Found"})

    def without_keys(self, text: str) -> str:
        """Return the text without API keys, shortened to 500 characters."""
        # Replace the key before shortening the text, because a truncated key would not be found.
        return _remove_keys(text.replace(self.key, "[key]"))


def error_from_response(error: "openai.APIStatusError", key: str) -> StenoError:
    """Return the StenoError for an error response. Its message does not contain the API key."""
    response = _ErrorResponse(error, key)
    status, code, reason = error.status_code, error.code, response.reason
    if code in _QUOTA_CODES:
        return UpstreamQuota(
            "The server's account at the speech service has no credit or has reached its limit."
            f" The server's owner must add credit or raise the limit. {reason}"
        )
    if status == 404 and response.is_missing_route:
        return UpstreamModel(
            "The speech service has no transcription route at this URL. The server's owner must"
            f" check OPENAI_BASE_URL: it usually ends in /v1. {reason}"
        )
    if status == 404 or code == "model_not_found" or (status == 400 and error.param == "model"):
        return UpstreamModel(
            "The speech service does not offer this model to the server's API key."
            f" Use another model. {reason}"
        )
    if status in (401, 403):
        return UpstreamCredentials(
            "The speech service does not accept the server's API key."
            f" The server's owner must set a valid key. {reason}"
        )
    if status == 413:
        return RecordingTooLarge(
            "The recording is too large for the speech service. Send a shorter recording, or one in"
            f" a compressed format. {reason}"
        )
    if status in (400, 415, 422):
        return _client_error(response)
    return _server_error(response)


def stream_error(error: "openai.APIError", key: str) -> UpstreamFailed:
    """Return the error for an error event in a stream. The request may have been billed."""
    message = _remove_keys(error.message.replace(key, "[key]"))
    return UpstreamFailed(
        f'The speech service failed during the transcription: "{message}". Try again later.'
    )


def _client_error(response: _ErrorResponse) -> StenoError:
    param = response.error.param
    if response.error.code == "audio_too_short":
        return EmptyRecording(
            f"The recording is too short to contain speech. Send a longer one. {response.reason}"
        )
    if isinstance(param, str) and param not in ("", "file"):
        option = param.removesuffix("[]")
        return InvalidOption(
            option,
            f"The speech service rejected `{response.without_keys(option)}`."
            f" Change or remove this option. {response.reason}",
        )
    return UnreadableRecording(
        "The speech service could not read the recording. Check that the file can be played, or"
        f" convert it to WAV, MP3 or FLAC. {response.reason}"
    )


def _server_error(response: _ErrorResponse) -> UpstreamError:
    status, reason = response.error.status_code, response.reason
    headers = response.error.response.headers
    should_retry = headers.get("x-should-retry")
    safe_to_retry = should_retry == "true" or (
        should_retry != "false" and status in _RETRYABLE_STATUSES
    )
    retry_after = _retry_after(headers)
    if status in (429, 503):
        if retry_after is None:
            retry_after = DEFAULT_RETRY_AFTER_SECONDS
        return UpstreamBusy(
            f"The speech service is busy. Try again later. {reason}",
            safe_to_retry=safe_to_retry,
            retry_after=retry_after,
        )
    if status in (408, 504):
        return UpstreamTimeout(
            f"The speech service took too long. Try again, or send a shorter recording. {reason}",
            safe_to_retry=safe_to_retry,
            retry_after=retry_after,
        )
    return UpstreamFailed(
        f"The speech service failed. Try again later. {reason}",
        safe_to_retry=safe_to_retry,
        retry_after=retry_after,
    )


def _remove_keys(text: str) -> str:
    text = re.sub(r"\b(sk|sess|Bearer)[-_ ][\w*.\-]{4,}", "[key]", text)
    return " ".join(text.split())[:500]


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Return the seconds to wait before a retry (at most one day), or None if no header is valid.

    `Retry-After` contains seconds or a date. `retry-after-ms` contains milliseconds.
    """
    value = headers.get("retry-after", "")
    if milliseconds := _parse_seconds(headers.get("retry-after-ms", "")):
        return milliseconds / 1000
    if (seconds := _parse_seconds(value)) is not None:
        return seconds
    try:
        return min(max(parsedate_to_datetime(value).timestamp() - time.time(), 0), DAY_SECONDS)
    except ValueError:
        return None


def _parse_seconds(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return min(number, DAY_SECONDS) if number >= 0 else None


def connection_error(cause: BaseException) -> UpstreamError:
    """Return the error for a request that did not receive a complete response."""
    if _is_tls_error(cause):
        return UpstreamFailed(
            "The TLS certificate of the speech service could not be verified."
            " The server's owner must check OPENAI_BASE_URL and the certificate."
        )
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return UpstreamFailed(
            f"The speech service cannot be reached ({_remove_keys(str(cause))}). Try again later.",
            safe_to_retry=True,
        )
    if isinstance(cause, httpx2.TimeoutException):
        return timed_out()
    return UpstreamFailed(
        "The connection to the speech service was lost before its response was complete. Try again."
    )


def _is_tls_error(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None


def timed_out() -> UpstreamTimeout:
    """Return the error for a response that did not arrive before the deadline."""
    return UpstreamTimeout(
        "The speech service did not respond in time. Try again, or send a shorter recording."
    )
