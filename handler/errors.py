"""Defines the errors of Steno, grouped by what the caller should do about them.

StenoError
├── ClientError                 change the request
│   ├── Unauthorized
│   ├── OriginNotAllowed
│   ├── NotFound
│   ├── MethodNotAllowed
│   ├── NotReady
│   ├── NotFailed
│   ├── BudgetExhausted
│   ├── RecordingTooLarge
│   ├── UnsupportedMedia
│   ├── EmptyRecording
│   ├── NoAudio
│   ├── UnreadableRecording
│   ├── InvalidOption
│   └── InvalidRequest
├── JobFailed                   retry the job
├── StorageUnavailable          the request is valid, but AWS is unavailable
└── UpstreamError               the request is valid, but the upstream failed
    ├── UpstreamFailed
    ├── UpstreamCredentials     the operator must set a valid key
    ├── UpstreamModel           the operator must choose another model
    ├── UpstreamQuota           the operator must add credit or raise the spending limit
    ├── UpstreamBusy            send the same request again later
    └── UpstreamTimeout
"""

import time
from http import HTTPStatus

from handler.durations import DAY_SECONDS

_RETRY_AFTER_SECONDS = 5.0


class StenoError(Exception):
    """An error that is sent to the caller.

    `status` and `code` are part of the HTTP API. `detail` describes the problem and how to solve
    it. `job` is the id of the job that failed with this error, if there is one.
    """

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    code = "internal_error"
    job: str | None = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class StorageUnavailable(StenoError):
    """S3, SQS, DynamoDB or Secrets Manager is unavailable. Nothing was billed for the request."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "storage_unavailable"
    retry_after = _RETRY_AFTER_SECONDS


class JobFailed(StenoError):
    """The job has no transcript, because it failed. `code` is the code of the job's error."""

    status = HTTPStatus.CONFLICT

    def __init__(self, job: str, code: str, detail: str) -> None:
        super().__init__(f"The job failed, so it has no transcript. {detail}")
        self.job = job
        self.code = code


class ClientError(StenoError):
    """The request was rejected. The caller must change the request or send it again later."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class Unauthorized(ClientError):
    status = HTTPStatus.UNAUTHORIZED
    code = "unauthorized"


class OriginNotAllowed(ClientError):
    """The request was sent by a web page whose origin is not in ALLOWED_ORIGINS."""

    status = HTTPStatus.FORBIDDEN
    code = "origin_not_allowed"


class NotFound(ClientError):
    status = HTTPStatus.NOT_FOUND
    code = "not_found"


class MethodNotAllowed(ClientError):
    """The URL does not support the request method. `allowed` lists the methods that it supports."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    code = "method_not_allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"Method not allowed. Use {allowed}. See /docs for all routes.")
        self.allowed = allowed


class NotReady(ClientError):
    """The job has no transcript yet. If `retry_after` is set, try again after this many seconds."""

    status = HTTPStatus.CONFLICT
    code = "not_ready"

    def __init__(self, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class NotFailed(ClientError):
    """The job cannot be retried, because it has not failed."""

    status = HTTPStatus.CONFLICT
    code = "not_failed"


class BudgetExhausted(ClientError):
    """Not enough of the daily budget is left. It resets in `retry_after` seconds, at 00:00 UTC."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "budget_exhausted"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.retry_after = DAY_SECONDS - time.time() % DAY_SECONDS


class RecordingTooLarge(ClientError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "recording_too_large"


class UnsupportedMedia(ClientError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "unsupported_media"


class EmptyRecording(ClientError):
    code = "empty_recording"


class NoAudio(ClientError):
    code = "no_audio"


class UnreadableRecording(ClientError):
    code = "unreadable_recording"


class InvalidOption(ClientError):
    """The value of an option is invalid. `option` is the name of the form field."""

    code = "invalid_option"

    def __init__(self, option: str, detail: str) -> None:
        super().__init__(detail)
        self.option = option


class InvalidRequest(ClientError):
    code = "invalid_request"


class UpstreamError(StenoError):
    """The upstream did not transcribe the recording.

    `safe_to_retry` is True if the request cannot have been billed and may be sent again.
    `retry_after` is the number of seconds to wait before sending it again, or None if unknown.
    `allows_fallback` is True if another upstream may be tried, because the request cannot have been
    billed. `never_billed` is True for error classes that occur only if nothing was billed.
    """

    status = HTTPStatus.BAD_GATEWAY
    never_billed = False

    def __init__(
        self, detail: str, *, safe_to_retry: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.safe_to_retry = safe_to_retry
        self.allows_fallback = safe_to_retry or self.never_billed
        self.retry_after = retry_after


class UpstreamFailed(UpstreamError):
    code = "upstream_failed"


class UpstreamCredentials(UpstreamError):
    code = "upstream_credentials"
    never_billed = True


class UpstreamModel(UpstreamError):
    code = "upstream_model"
    never_billed = True


class UpstreamQuota(UpstreamError):
    code = "upstream_quota"
    never_billed = True


class UpstreamBusy(UpstreamError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "upstream_busy"


class UpstreamTimeout(UpstreamError):
    """The upstream did not respond in time. It may still be processing the request."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    code = "upstream_timeout"

    def __init__(
        self, detail: str, *, safe_to_retry: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(detail, safe_to_retry=safe_to_retry, retry_after=retry_after)
        self.allows_fallback = False


def error_from_code(code: str, detail: str) -> StenoError:
    """Return an error with this `code`, for example to raise the stored error of a failed job.

    Returns a plain StenoError if no class has the code.
    """
    if code == InvalidOption.code:
        return InvalidOption("", detail)
    if code == UpstreamBusy.code:
        return UpstreamBusy(detail, safe_to_retry=True, retry_after=_RETRY_AFTER_SECONDS)
    for error_class in (*ClientError.__subclasses__(), *UpstreamError.__subclasses__()):
        if error_class.code == code:
            return error_class(detail)
    return StenoError(detail)
