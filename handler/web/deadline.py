"""The moment at which a request has to be answered."""

import time
from collections.abc import MutableMapping
from typing import Any

_ANSWER_SECONDS = 2.0  # what Lambda's own time limit leaves for the answer itself


def deadline_of(scope: MutableMapping[str, Any], most_seconds: float) -> float:
    """Return the deadline, in the seconds of `time.monotonic`, of a request that arrives now.

    It is `most_seconds` away, on Lambda never later than shortly before the function is cut off.
    """
    context = scope.get("aws.context")  # https://mangum.fastapiexpert.com/adapter/
    if context:
        left = context.get_remaining_time_in_millis() / 1000 - _ANSWER_SECONDS
        most_seconds = min(most_seconds, left)
    return time.monotonic() + most_seconds
