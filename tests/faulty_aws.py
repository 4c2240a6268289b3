"""A proxy in front of the AWS emulator. It makes some calls fail, as real AWS calls can."""

import contextlib
import random
import threading
from collections import Counter

from tests.intercept import proxy_before

_JSON = {"Content_Type": "application/x-amz-json-1.0"}
# For each service, its response if an internal error occurs, and if a request is throttled.
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
    """A proxy that makes calls to AWS fail at random.

    `share` is the probability that a call fails. All calls to the service `out` fail.
    `faults` counts the failed calls by service and kind of fault.
    """

    def __init__(self, share=0.0, seed=1):
        self.share = share
        self.out = ""
        self.faults = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def install(self, monkeypatch, aws_process):
        """Use this proxy for every AWS client that is created from now on."""
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
            return ""  # a caller's upload to the bucket never fails
        if self.out == service:
            return "error"
        with self._lock:
            if self._random.random() >= self.share:
                return ""
            # A hanging call takes several seconds, so this fault is chosen rarely.
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
