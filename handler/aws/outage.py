"""Detects outages of AWS services, and retries calls during an outage."""

import time
from collections.abc import Callable
from typing import Any

from handler.errors import StorageUnavailable

_PAUSE_SECONDS = 2.0
_THROTTLING_CODES = {
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}


def is_outage(error: BaseException) -> bool:
    """Return whether an error means that an AWS service is unavailable.

    That is the case if the service returned a 5xx status, throttled the request, or did not
    respond. The AWS client has already retried such a request.
    """
    from boto3.exceptions import RetriesExceededError
    from botocore import exceptions as botocore_errors

    if isinstance(error, StorageUnavailable):
        return True
    if isinstance(error, botocore_errors.ClientError):
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return bool(status >= 500 or error.response["Error"]["Code"] in _THROTTLING_CODES)
    return isinstance(
        error,
        botocore_errors.ConnectionError
        | botocore_errors.HTTPClientError
        | botocore_errors.IncompleteReadError
        | RetriesExceededError,
    )


def retry_through_outage(call: Callable[..., None], *args: Any, until: float) -> None:
    """Call `call(*args)`, and repeat the call while AWS is unavailable.

    `until` is the deadline on the `time.monotonic` clock. If the outage lasts longer,
    the last error is raised. Any other error is raised immediately.
    """
    while True:
        try:
            call(*args)
        except Exception as error:
            if not is_outage(error) or time.monotonic() + _PAUSE_SECONDS > until:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return
