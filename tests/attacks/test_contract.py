"""All that /openapi.json says, held against the app by schemathesis: what it allows, forbids, and promises."""

import contextlib
from collections import Counter
from dataclasses import dataclass, field

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.engine import events, from_schema
from schemathesis.transport.serialization import Binary

from tests.samples import recording
from tests.web.test_contract import CODES, HEARD

TOKEN = "open-sesame"
WITH_TOKEN = {"auth": {"openapi": {"HTTPBearer": {"bearer": TOKEN}}}}
CHECKS = {
    # No schema can say whether a model honours an option, nor whether a text is a type of sound.
    "positive_data_acceptance": {"expected-statuses": ["2xx", "401", "404", "409", "415", "422"]},
    "negative_data_rejection": {
        "expected-statuses": ["401", "404", "405", "409", "413", "415", "422"]
    },
}
OPENAI = {
    "include-path": "/v1/audio/transcriptions",
    # Its clients know no 202: what takes longer than the request may is 503 in the contract.
    "checks": {"not_a_server_error": {"expected-statuses": ["2xx", "4xx", "503"]}},
}


@schemathesis.check
def every_refusal_has_a_code(_context, answer, case):
    if answer.status_code < 400:
        return
    told = answer.json()
    if case.path.startswith("/v1/"):
        told = told["error"]
    else:
        assert answer.headers["content-type"] == ["application/problem+json"]
        assert told["status"] == answer.status_code
    assert (answer.status_code, told["code"]) in CODES


@schemathesis.check
def what_is_allowed_is_refused_only_for_what_no_schema_can_say(_context, answer, case):
    if case.meta and case.meta.generation.mode.is_positive and answer.status_code in (415, 422):
        told = answer.json()
        assert told.get("error", told)["code"] in ("invalid_option", "unsupported_media")


def _is_as_allowed(case, schemas):
    """Whether nothing is wrong any more with what was to be wrong, once it is sent."""
    if case.media_type != "multipart/form-data":
        return isinstance(case.body, dict) and isinstance(
            case.body.get("temperature"), bool
        )  # pydantic's 1 and 0
    schema = schemas["Form" if case.path == "/api/transcribe" else "OpenAIForm"]
    kinds = {name: option.get("type") for name, option in schema["properties"].items()}
    texts = {name: _texts(value) for name, value in {**case.body, "file": "a recording"}.items()}
    return jsonschema_rs.is_valid(
        schema, {name: _read(kinds.get(name), told) for name, told in texts.items() if told}
    )


def _texts(value):
    """In a form all is text, and what is empty was not given."""
    return [
        str(text)
        for text in (value if isinstance(value, list) else [value])
        if text not in ("", None)
    ]


def _read(kind, texts):
    if kind == "array" or len(texts) > 1:
        return texts
    if kind == "boolean":
        return {"0": False, "false": False}.get(texts[0].lower(), texts[0])
    with contextlib.suppress(ValueError):
        return float(texts[0]) if kind == "number" else texts[0]
    return texts[0]


@dataclass
class Outcome:
    schemas: dict
    answered: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def take(self, recorder):
        for interaction in recorder.interactions.values():
            self.answered[int(interaction.response.status_code)] += 1
        for identity, checks in recorder.checks.items():
            case = recorder.cases[identity].value
            for failed in (check for check in checks if check.failure_info):
                if failed.name != "negative_data_rejection" or not _is_as_allowed(
                    case, self.schemas
                ):
                    told = failed.failure_info
                    self.failures.append(
                        f"{failed.name}: {told.failure.message[:500]}\n{told.code_sample[-2000:]}"
                    )

    def count(self, first, last):
        return (
            f"{sum(times for status, times in self.answered.items() if first <= status <= last):,}"
        )


def attacked(app, most, **config):
    told = {"continue-on-failure": True, "checks": CHECKS, "operations": [OPENAI], **config}
    told["generation"] = {"max-examples": most, "deterministic": True, "database": "none"}
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json", app, config=schemathesis.Config.from_dict(told)
    )
    outcome = Outcome(app.openapi()["components"]["schemas"])
    for event in from_schema(schema).execute():
        assert not isinstance(event, events.NonFatalError | events.FatalError), event
        if isinstance(event, events.ScenarioFinished):
            outcome.take(event.recorder)
    return outcome


@pytest.fixture
def recordings():
    """What schemathesis sends as a file: what is sent at once, and what becomes a job."""
    listed = [recording(kind, seconds=0.5) for kind in ("webm", "wav", "amr")]
    schemathesis.openapi.format("binary", st.sampled_from(listed).map(Binary))


@pytest.mark.usefixtures("recordings")
@pytest.mark.parametrize(
    ("access", "config"),
    [({}, {}), ({"auth": "token", "access_token": TOKEN}, WITH_TOKEN)],
    ids=["open to all", "with a token"],
)
def test_every_answer_is_as_documented_and_every_refusal_has_a_code(
    server, often, tried, request, access, config
):
    app = server(HEARD, request_deadline_seconds=3, **access).app
    outcome = attacked(app, often(15, 300), **config)
    assert outcome.failures == []
    assert {200, 201, 404, 405, 422} <= set(outcome.answered)
    assert (401 in outcome.answered) is bool(access)
    tried(
        f"Requests made from the OpenAPI document, as it allows and as it forbids ({request.node.callspec.id})",
        f"{sum(outcome.answered.values()):,} requests",
        f"every answer as documented: {outcome.count(200, 299)} done, {outcome.count(400, 499)} refused with a code, "
        f"{outcome.count(503, 503)} told to come again, {outcome.count(500, 502)} failed",
    )
