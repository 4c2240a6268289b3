"""What AWS was asked meanwhile, and what that costs by the list prices of 2026 in us-east-1, in dollars."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

GATEWAY = 1.00e-6  # a request of at most 512 KB, and for each further 512 KB
FUNCTION = 0.20e-6  # an invocation
GB_SECOND = 0.0000133334  # arm64
TMP_GB_SECOND = 0.0000000309  # above 0.5 GB
_WRITE, _READ = 0.625e-6, 0.125e-6  # DynamoDB, on demand: a KB written, 4 KB read
_PUT, _GET, _MESSAGE = 5e-6, 0.4e-6, 0.40e-6
# A job's item has up to 2 KB, that of a part or an answer up to 5 KB: a change or a deletion is
# billed by the size of the item, a query by that of all items that it returns.
OPERATIONS = {
    "PutItem": _WRITE,  # counted by its KB
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


class _Counting(logging.Handler):
    def __init__(self, but: int) -> None:
        super().__init__(logging.DEBUG)
        self.calls: Counter[str] = Counter()
        self._but = but

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._but or not str(record.msg).startswith("Making request for"):
            return
        details: Any = record.args  # botocore's model of an operation, and its request
        operation, request = details
        self.calls[operation.name] += (
            ceil(len(request["body"]) / 1024) if operation.name == "PutItem" else 1
        )


@contextmanager
def counted(but: int = 0) -> Iterator[Counter[str]]:
    """The calls of this process, by operation, as botocore's own log tells them; `but` those of one thread.

    PutItem is counted by its KB.
    """
    log, counting = logging.getLogger("botocore.endpoint"), _Counting(but)
    level, log.propagate = log.level, False
    log.setLevel(logging.DEBUG)
    log.addHandler(counting)
    try:
        yield counting.calls
    finally:
        log.removeHandler(counting)
        log.setLevel(level)
        log.propagate = True


def dollars(calls: Counter[str]) -> float:
    return sum(OPERATIONS[name] * times for name, times in calls.items())
