"""Count the AWS API calls of this process, and calculate their cost.

Prices are in US dollars: the list prices for us-east-1 in 2026.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

GATEWAY = 1.00e-6  # per HTTP API request of up to 512 KB
FUNCTION = 0.20e-6  # per invocation
GB_SECOND = 0.0000133334  # function memory on arm64
TMP_GB_SECOND = 0.0000000309  # ephemeral storage above the free 0.5 GB
_WRITE, _READ = 0.625e-6, 0.125e-6  # DynamoDB on-demand: per KB written, per 4 KB read
_PUT, _GET, _MESSAGE = 5e-6, 0.4e-6, 0.40e-6
# The price of each operation. DynamoDB bills an update or a deletion by the size of the item, and a
# query by the total size of the items that it returns. A job item is up to 2 KB, and a part or
# ledger item is up to 5 KB.
OPERATIONS = {
    "PutItem": _WRITE,  # count_calls counts one call per KB
    "UpdateItem": 2 * _WRITE,
    "DeleteItem": 5 * _WRITE,
    "GetItem": 2 * _READ,
    "Query": 20 * _READ,
    "PutObject": _PUT,
    "ListObjectsV2": _PUT,
    "GetObject": _GET,
    "HeadObject": _GET,
    "DeleteObject": 0.0,
    "GetQueueUrl": _MESSAGE,
    "ReceiveMessage": _MESSAGE,
    "SendMessage": _MESSAGE,
    "DeleteMessage": _MESSAGE,
    "ChangeMessageVisibility": _MESSAGE,
}


class _CallCounter(logging.Handler):
    def __init__(self, exclude_thread: int) -> None:
        super().__init__(logging.DEBUG)
        self.calls: Counter[str] = Counter()
        self._exclude_thread = exclude_thread

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._exclude_thread:
            return
        if not str(record.msg).startswith("Making request for"):
            return
        arguments: Any = record.args  # botocore's operation model and the request
        operation, request = arguments
        is_put = operation.name == "PutItem"
        self.calls[operation.name] += ceil(len(request["body"]) / 1024) if is_put else 1


@contextmanager
def count_calls(exclude_thread: int = 0) -> Iterator[Counter[str]]:
    """Count the AWS API calls of this process by operation, based on botocore's debug log.

    Calls from the thread with the id `exclude_thread` are not counted. A PutItem request counts as
    one call per KB.
    """
    log, counter = logging.getLogger("botocore.endpoint"), _CallCounter(exclude_thread)
    level, log.propagate = log.level, False
    log.setLevel(logging.DEBUG)
    log.addHandler(counter)
    try:
        yield counter.calls
    finally:
        log.removeHandler(counter)
        log.setLevel(level)
        log.propagate = True


def dollars(calls: Counter[str]) -> float:
    """Return the cost of the calls in US dollars."""
    return sum(OPERATIONS[name] * number for name, number in calls.items())
