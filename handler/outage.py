"""When AWS itself fails, and what is worth waiting for until it answers again."""

from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread

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

Result = TypeVar("Result")


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
        error, known.ConnectionError | known.HTTPClientError | known.IncompleteReadError | RetriesExceededError
    )


async def outlasting(call: Callable[..., Result], *details: Any) -> Result:
    """What the call gives, in a thread, made again until an outage is over."""
    while True:
        try:
            return await anyio.to_thread.run_sync(call, *details)
        except Exception as error:
            if not is_outage(error):
                raise
        await anyio.sleep(_PAUSE_SECONDS)
