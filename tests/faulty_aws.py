"""A proxy in front of the local AWS that makes some of the calls fail, as AWS can fail."""

import contextlib
import random
import threading
from collections import Counter

from tests.intercept import proxy_before

_JSON = {"Content_Type": "application/x-amz-json-1.0"}
# service: its response for an internal error, and for a throttled request
_ERROR_RESPONSES = {
    "dynamodb": (
        (500, b'{"__type": "InternalServerError"}'),
        (400, b'{"__type": "ThrottlingException"}'),
    ),
    "sqs": ((500, b'{"__type": "InternalFailure"}'), (400, b'{"__type": "RequestThrottled"}')),
    "secretsmanager": (
        (500, b'{"__type": "InternalServiceError"}'),
        (400, b'{"__type": "ThrottlingException"}'),
    ),
    "s3": (
        (500, b"<Error><Code>InternalError</Code></Error>"),
        (503, b"<Error><Code>SlowDown</Code></Error>"),
    ),
}
FAULTS = ("error", "throttled", "reset", "response lost", "hang")


class FaultyAWS:
    """Make a random `share` of the calls fail, and all calls of the service `out`.

    `faults` counts the faults by service and kind.
    """

    def __init__(self, share=0.0, seed=1):
        self.share = share
        self.out = ""
        self.faults = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def install(self, monkeypatch, aws_process):
        """Route every AWS client that is built from now on through this proxy."""
        with proxy_before(aws_process["AWS_ENDPOINT_URL"], self._handle) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            yield

    def _handle(self, call):
        service = _service(call)
        fault = self._choose_fault(call, service)
        if fault:
            with self._lock:
                self.faults[service, fault] += 1
        match fault:
            case "error" | "throttled":
                status, content = _ERROR_RESPONSES[service][fault == "throttled"]
                call.respond_error(status, content, **({} if service == "s3" else _JSON))
            case "reset":
                call.reset()
            case "response lost":
                call.fetch_from_target()
                call.reset()
            case "hang":
                call.hang()
            case _:
                call.forward()

    def _choose_fault(self, call, service):
        if "multipart/form-data" in call.headers.get("content-type", ""):
            return ""  # an upload that the caller sends to the bucket
        if self.out == service:
            return "error"
        with self._lock:
            if self._random.random() >= self.share:
                return ""
            # A call that hangs takes seconds, so hanging is rare.
            return self._random.choices(FAULTS, (6, 6, 3, 3, 1))[0]


def _service(call):
    target = call.headers.get("x-amz-target", "")
    for name, service in (
        ("DynamoDB", "dynamodb"),
        ("AmazonSQS", "sqs"),
        ("secretsmanager", "secretsmanager"),
    ):
        if target.startswith(name):
            return service
    return "s3"
