"""A proxy in front of the offline engine that injects typical faults of speech-to-text services."""

import contextlib
import hashlib
import json
import random
import re
import threading
from dataclasses import dataclass

from tests.intercept import proxy_before

# The values: status, OpenAI's error code, headers. A request that gets a 502 may have been billed.
_ERROR_RESPONSES = {
    "rate limit": (429, "rate_limit_exceeded", {"retry_after": "0.1"}),
    "rate limit in milliseconds": (429, "rate_limit_exceeded", {"retry_after_ms": "50"}),
    "no quota": (429, "insufficient_quota", {}),
    "spend limit": (429, "project_spend_limit_exceeded", {}),
    "not readable": (400, "unsupported_value", {}),
    "too large": (413, None, {}),
    "media type": (415, None, {}),
    "server error": (500, "server_error", {}),
    "overloaded": (503, None, {"retry_after": "0.1"}),
    "overloaded, do not retry": (
        503,
        None,
        {"retry_after": "0.1", "x_should_retry": "false"},
    ),
    "request timeout": (408, None, {}),
    "bad gateway": (502, None, {}),
    "gateway timeout": (504, None, {}),
    "wrong key": (401, "invalid_api_key", {}),
}
_BEFORE_ENGINE = ("reset", "reset while sending")
_AFTER_ENGINE = ("connection closed", "truncated response", "invalid response", "hang")
_HARMLESS = ("slow",)
FAULTS = (*_ERROR_RESPONSES, *_BEFORE_ENGINE, *_AFTER_ENGINE, *_HARMLESS)
_PARTS = re.compile(rb'name="(prompt|file)".*?\r\n\r\n(.*?)\r\n--', re.DOTALL)


@dataclass
class ProcessedRequest:
    """A request that reached the engine.

    `seconds` is the billed duration, or 0 if the engine rejected the request. `delivered` is true
    if the client received the response.
    """

    request_hash: str
    seconds: int
    delivered: bool


class FaultyUpstream:
    """Injects faults into a `share` (0 to 1) of the requests.

    `processed` lists the requests that reached the engine. `faults` lists the fault for each
    request, in order. An empty string means that there was no fault.
    """

    def __init__(self, share, seed=1):
        self.processed = []
        self.faults = []
        self._share = share
        self._rng = random.Random(seed)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def install(self, engine):
        """Run the proxy in front of `engine` and yield its base URL."""
        with proxy_before(engine.url.removesuffix("/v1"), self._handle) as url:
            yield f"{url}/v1"

    def billed_requests(self):
        """Return the hashes of the requests that were billed."""
        return {request.request_hash for request in self.processed if request.seconds}

    def _handle(self, call):
        with self._lock:
            fault = self._rng.choice(FAULTS) if self._rng.random() < self._share else ""
            self.faults.append(fault)
        if fault in _ERROR_RESPONSES:
            status, code, headers = _ERROR_RESPONSES[fault]
            call.respond_error(
                status, json.dumps({"error": {"message": fault, "code": code}}).encode(), **headers
            )
        elif fault in _BEFORE_ENGINE:
            call.reset(after=0 if fault == "reset" else int(call.headers["content-length"]) // 2)
        else:
            self._pass_to_engine(call, fault)

    def _pass_to_engine(self, call, fault):
        response = call.fetch_from_target()
        billed = response.json()["usage"]["seconds"] if response.is_success else 0
        processed = ProcessedRequest(
            request_hash_of(*_form_values(call.body)), billed, delivered=fault not in _AFTER_ENGINE
        )
        self.processed.append(processed)
        try:
            self._deliver(call, response, fault)
        except ConnectionError:  # the client timed out and disconnected
            processed.delivered = False
            raise

    def _deliver(self, call, response, fault):
        match fault:
            case "connection closed":
                call.reset()
            case "truncated response":
                call.respond_with(response, share=0.5)
            case "invalid response":
                call.respond_error(200, b"<html>Bad gateway</html>")
            case "hang":
                call.hang()
            case "slow":
                threading.Event().wait(1)
                call.respond_with(response)
            case _:
                call.respond_with(response)


def request_hash_of(*values):
    """Return one hash of all values: the recording and the optional prompt."""
    return hashlib.sha256(b"".join(values)).hexdigest()


def _form_values(body):
    """Extract the recording and the prompt from a multipart form with any boundary."""
    return (value for _, value in sorted(_PARTS.findall(body)))
