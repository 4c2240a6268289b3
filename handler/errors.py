"""What can go wrong, by what the caller should do about it.

StenoError
├── ClientError                 the request has to change
│   ├── Unauthorized
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
├── JobFailed                   the job has to be retried
├── StorageUnavailable          the request was fine; AWS was not
└── UpstreamError               the request was fine; the speech service was not
    ├── UpstreamFailed
    ├── UpstreamCredentials     the owner has to give a working key
    ├── UpstreamModel           the owner has to choose another model
    ├── UpstreamQuota           the owner has to pay the speech service
    ├── UpstreamBusy            the same request will work later
    └── UpstreamTimeout
"""

import time
from http import HTTPStatus

from handler.durations import DAY_SECONDS

_BUSY_SECONDS = 5.0


class StenoError(Exception):
    """An error with an answer of its own: `status` and `code` are the contract's, `job` is the one that it ended."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    code = "internal_error"
    job: str | None = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class StorageUnavailable(StenoError):
    """What keeps the jobs, the books or the secrets does not answer; nothing was paid for this request."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "storage_unavailable"
    retry_after = _BUSY_SECONDS


class JobFailed(StenoError):
    """A job has no transcript because it failed; `code` is that of the error that ended it."""

    status = HTTPStatus.CONFLICT

    def __init__(self, job: str, code: str, detail: str) -> None:
        super().__init__(f"The job failed, so it has no transcript. {detail}")
        self.job = job
        self.code = code


class ClientError(StenoError):
    """The caller's request cannot be served as it is."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class Unauthorized(ClientError):
    status = HTTPStatus.UNAUTHORIZED
    code = "unauthorized"


class NotFound(ClientError):
    status = HTTPStatus.NOT_FOUND
    code = "not_found"


class MethodNotAllowed(ClientError):
    """`allowed` are the methods that the address takes."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    code = "method_not_allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"This address takes {allowed} only; /docs lists what there is.")
        self.allowed = allowed


class NotReady(ClientError):
    """A job has no transcript yet; `retry_after` are the seconds after which to look again."""

    status = HTTPStatus.CONFLICT
    code = "not_ready"

    def __init__(self, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class NotFailed(ClientError):
    """Only a job that has failed can be tried again."""

    status = HTTPStatus.CONFLICT
    code = "not_failed"


class BudgetExhausted(ClientError):
    """The day's seconds are spent; `retry_after` seconds from now, at midnight UTC, they are there again."""

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
    """`option` is the name of the form field that is wrong."""

    code = "invalid_option"

    def __init__(self, option: str, detail: str) -> None:
        super().__init__(detail)
        self.option = option


class InvalidRequest(ClientError):
    code = "invalid_request"


class UpstreamError(StenoError):
    """The speech service did not transcribe.

    `again` says that nothing can have been billed and that the same recording may be sent once more;
    `retry_after` are the seconds that the upstream asked to wait.
    """

    status = HTTPStatus.BAD_GATEWAY

    def __init__(
        self, detail: str, *, safe_to_retry: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.safe_to_retry = safe_to_retry
        self.retry_after = retry_after


class UpstreamFailed(UpstreamError):
    code = "upstream_failed"


class UpstreamCredentials(UpstreamError):
    code = "upstream_credentials"


class UpstreamModel(UpstreamError):
    code = "upstream_model"


class UpstreamQuota(UpstreamError):
    code = "upstream_quota"


class UpstreamBusy(UpstreamError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "upstream_busy"


class UpstreamTimeout(UpstreamError):
    status = HTTPStatus.GATEWAY_TIMEOUT
    code = "upstream_timeout"


def error_from_code(code: str, detail: str) -> StenoError:
    """The error that ended a job, by the word for it that was written down."""
    if code == InvalidOption.code:
        return InvalidOption("", detail)
    if code == UpstreamBusy.code:
        return UpstreamBusy(detail, safe_to_retry=True, retry_after=_BUSY_SECONDS)
    kinds: list[type[StenoError]] = [*ClientError.__subclasses__(), *UpstreamError.__subclasses__()]
    return next((kind for kind in kinds if kind.code == code), StenoError)(detail)
