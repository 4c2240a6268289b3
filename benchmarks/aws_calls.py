"""What AWS was asked meanwhile, and what that costs by the list prices of 2026 in us-east-1, in dollars."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

GATEWAY = 1.00e-6  # a request of at most 512 KB, and for each further 512 KB
FUNCTION = 0.20e-6  # an invocation
GB_SECOND = 0.0000133334  # arm64
TMP_GB_SECOND = 0.0000000309  # above 0.5 GB
_WRITE, _READ = 0.625e-6, 0.125e-6  # DynamoDB, on demand: a KB written, 4 KB read
_PUT, _GET, _MESSAGE = 5e-6, 0.4e-6, 0.40e-6
OPERATIONS = {
    "PutItem": _WRITE,
    "UpdateItem": _WRITE,
    "DeleteItem": _WRITE,
    "BatchWriteItem": 25 * _WRITE,
    "GetItem": _READ,
    "Query": 20 * _READ,
    "PutObject": _PUT,
    "CopyObject": _PUT,
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
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.calls: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("Making request for"):
            self.calls[record.args[0].name] += 1  # type: ignore[index, union-attr] # botocore's model of an operation


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """The calls of this process, by operation, as botocore's own log tells them."""
    log, counting = logging.getLogger("botocore.endpoint"), _Counting()
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
