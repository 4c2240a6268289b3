"""An AWS that fails: a proxy before the local one, which does to some of the calls what is known to happen."""

import contextlib
import random
import threading
from collections import Counter

from tests.intercept import before

_JSON = {"Content_Type": "application/x-amz-json-1.0"}
# service: what it answers to an error of its own, and to whoever asks too much.
_REFUSALS = {
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
FAULTS = ("error", "throttled", "reset", "answer lost", "hang")


class FaultyAWS:
    """Fails a `share` of the calls, and all calls of the service `out`; `faults` counts what was done."""

    def __init__(self, share=0.0, seed=1):
        self.share = share
        self.out = ""
        self.faults = Counter()
        self._chance = random.Random(seed)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def before(self, monkeypatch, aws_process):
        """Between the local AWS and every client that is built from now on."""
        with before(aws_process["AWS_ENDPOINT_URL"], self._treat) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            yield

    def _treat(self, call):
        service = _service(call)
        fault = self._fault(call, service)
        if fault:
            with self._lock:
                self.faults[service, fault] += 1
        match fault:
            case "error" | "throttled":
                status, content = _REFUSALS[service][fault == "throttled"]
                call.refuse(status, content, **({} if service == "s3" else _JSON))
            case "reset":
                call.reset()
            case "answer lost":
                call.answer_of_target()
                call.reset()
            case "hang":
                call.hang()
            case _:
                call.pass_on()

    def _fault(self, call, service):
        if "multipart/form-data" in call.headers.get("content-type", ""):
            return ""  # the caller's own upload
        if self.out == service:
            return "error"
        with self._lock:
            if self._chance.random() >= self.share:
                return ""
            return self._chance.choices(FAULTS, (6, 6, 3, 3, 1))[
                0
            ]  # a call that hangs takes seconds


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
