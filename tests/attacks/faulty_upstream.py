"""A speech service that fails: a proxy before the engine, which does to some of the calls what is known to happen."""

import contextlib
import hashlib
import json
import random
import re
import threading
from dataclasses import dataclass

from tests.intercept import before

# name: status, OpenAI's code, headers. After a 502 nobody knows whether the work was done.
_REFUSALS = {
    "rate limit": (429, "rate_limit_exceeded", {"retry_after": "0.1"}),
    "rate limit in milliseconds": (429, "rate_limit_exceeded", {"retry_after_ms": "50"}),
    "no quota": (429, "insufficient_quota", {}),
    "spend limit": (429, "project_spend_limit_exceeded", {}),
    "not readable": (400, "unsupported_value", {}),
    "too large": (413, None, {}),
    "media type": (415, None, {}),
    "server error": (500, "server_error", {}),
    "overloaded": (503, None, {"retry_after": "0.1"}),
    "overloaded for whoever asks again": (
        503,
        None,
        {"retry_after": "0.1", "x_should_retry": "false"},
    ),
    "timeout of its own": (408, None, {}),
    "gateway": (502, None, {}),
    "gateway's timeout": (504, None, {}),
    "wrong key": (401, "invalid_api_key", {}),
}
_UNHEARD = ("reset", "reset while sending")
_HEARD = ("hung up", "half an answer", "garbage", "hang")
_HARMLESS = ("slow",)
FAULTS = (*_REFUSALS, *_UNHEARD, *_HEARD, *_HARMLESS)
_PARTS = re.compile(rb'name="(prompt|file)".*?\r\n\r\n(.*?)\r\n--', re.DOTALL)


@dataclass
class Heard:
    """A call that the engine has heard, and billed; `arrived` says whether its answer was delivered."""

    question: str
    seconds: int
    arrived: bool


class FaultyUpstream:
    """Fails a `share` of the calls; `heard` are those that were billed, `faults` what was done, in turn."""

    def __init__(self, share, seed=1):
        self.heard = []
        self.faults = []
        self._share = share
        self._chance = random.Random(seed)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def before(self, engine):
        """Its base URL."""
        with before(engine.url.removesuffix("/v1"), self._treat) as url:
            yield f"{url}/v1"

    def _treat(self, call):
        with self._lock:
            fault = self._chance.choice(FAULTS) if self._chance.random() < self._share else ""
            self.faults.append(fault)
        if fault in _REFUSALS:
            status, code, headers = _REFUSALS[fault]
            call.refuse(
                status, json.dumps({"error": {"message": fault, "code": code}}).encode(), **headers
            )
        elif fault in _UNHEARD:
            call.reset(after=0 if fault == "reset" else int(call.headers["content-length"]) // 2)
        else:
            self._answer(call, fault)

    def _answer(self, call, fault):
        answer = call.answer_of_target()
        billed = answer.json()["usage"]["seconds"] if answer.is_success else 0
        heard = Heard(question_of(*_sent(call.body)), billed, arrived=fault not in _HEARD)
        self.heard.append(heard)
        try:
            self._deliver(call, answer, fault)
        except ConnectionError:  # the client had no time left, and has gone
            heard.arrived = False
            raise

    def _deliver(self, call, answer, fault):
        match fault:
            case "hung up":
                call.reset()
            case "half an answer":
                call.answer_with(answer, share=0.5)
            case "garbage":
                call.refuse(200, b"<html>Bad gateway</html>")
            case "hang":
                call.hang()
            case "slow":
                threading.Event().wait(1)
                call.answer_with(answer)
            case _:
                call.answer_with(answer)


def question_of(*values):
    """The name of a recording, and of a prompt if there is one."""
    return hashlib.sha256(b"".join(values)).hexdigest()


def _sent(body):
    """The recording and the prompt of a form, whatever its boundary."""
    return (value for _, value in sorted(_PARTS.findall(body)))
