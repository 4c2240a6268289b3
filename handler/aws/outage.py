"""When AWS itself fails, and what is worth waiting for until it answers again."""

import time
from collections.abc import Callable
from typing import Any

from handler.errors import StorageUnavailable

_PAUSE_SECONDS = 2.0
_SLOW_DOWN = {
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
    """Whether AWS itself has failed: it answered 5xx, asked to slow down, or did not answer, each time it was asked."""
    from boto3.exceptions import RetriesExceededError
    from botocore import exceptions as known

    if isinstance(error, StorageUnavailable):
        return True
    if isinstance(error, known.ClientError):
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return bool(status >= 500 or error.response["Error"]["Code"] in _SLOW_DOWN)
    return isinstance(
        error,
        known.ConnectionError
        | known.HTTPClientError
        | known.IncompleteReadError
        | RetriesExceededError,
    )


def retry_through_outage(call: Callable[..., None], *details: Any, until: float) -> None:
    """Make the call again until an outage is over, at most until `until` (`time.monotonic`)."""
    while True:
        try:
            call(*details)
        except Exception as error:
            if not is_outage(error) or time.monotonic() + _PAUSE_SECONDS > until:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return
