"""Compute the deadline of a request."""

import time
from collections.abc import MutableMapping
from typing import Any

_RESPONSE_SECONDS = 2.0  # reserved for sending the response before Lambda's timeout


def deadline_of(scope: MutableMapping[str, Any], max_seconds: float) -> float:
    """Return the deadline of a request that arrives now, as a value of `time.monotonic`.

    The deadline is `max_seconds` from now. On Lambda, it is earlier if this is necessary to leave
    two seconds before the timeout of the function.
    """
    context = scope.get("aws.context")  # https://mangum.fastapiexpert.com/adapter/
    if context:
        remaining = context.get_remaining_time_in_millis() / 1000 - _RESPONSE_SECONDS
        max_seconds = min(max_seconds, remaining)
    return time.monotonic() + max_seconds
