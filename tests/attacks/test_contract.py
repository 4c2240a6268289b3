"""Test the app against its OpenAPI document with schemathesis."""

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
from tests.web.test_contract import CODES, UPSTREAM

TOKEN = "open-sesame"
WITH_TOKEN = {"auth": {"openapi": {"HTTPBearer": {"bearer": TOKEN}}}}
CHECKS = {
    # A schema cannot express which options a model supports or which media types are audio.
    "positive_data_acceptance": {"expected-statuses": ["2xx", "401", "404", "409", "415", "422"]},
    "negative_data_rejection": {
        "expected-statuses": ["401", "404", "405", "409", "413", "415", "422"]
    },
}
OPENAI = {
    "include-path": "/v1/audio/transcriptions",
    # OpenAI's clients do not support status 202. If a job is not finished in time, the response is
    # therefore 503, as documented.
    "checks": {"not_a_server_error": {"expected-statuses": ["2xx", "4xx", "503"]}},
}


@schemathesis.check
def every_error_has_a_code(_context, response, case):
    if response.status_code < 400:
        return
    problem = response.json()
    if case.path.startswith("/v1/"):
        problem = problem["error"]
    else:
        assert response.headers["content-type"] == ["application/problem+json"]
        assert problem["status"] == response.status_code
    assert (response.status_code, problem["code"]) in CODES


@schemathesis.check
def a_valid_request_is_rejected_only_for_rules_outside_the_schema(_context, response, case):
    if case.meta and case.meta.generation.mode.is_positive and response.status_code in (415, 422):
        problem = response.json()
        assert problem.get("error", problem)["code"] in ("invalid_option", "unsupported_media")


def _is_valid_as_sent(case, schemas):
    """Return whether an invalid case becomes valid when it is sent.

    A form contains only text, so some values of the wrong type become valid.
    """
    if case.media_type != "multipart/form-data":
        # Pydantic accepts true and false as the numbers 1 and 0.
        return isinstance(case.body, dict) and isinstance(case.body.get("temperature"), bool)
    schema = schemas["Form" if case.path == "/api/transcribe" else "OpenAIForm"]
    kinds = {name: option.get("type") for name, option in schema["properties"].items()}
    texts = {name: _texts(value) for name, value in {**case.body, "file": "a recording"}.items()}
    return jsonschema_rs.is_valid(
        schema, {name: _parse(kinds.get(name), values) for name, values in texts.items() if values}
    )


def _texts(value):
    """Return the nonempty values of a form field as text."""
    return [
        str(text)
        for text in (value if isinstance(value, list) else [value])
        if text not in ("", None)
    ]


def _parse(kind, texts):
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
    statuses: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, recorder):
        for interaction in recorder.interactions.values():
            self.statuses[int(interaction.response.status_code)] += 1
        for identity, checks in recorder.checks.items():
            case = recorder.cases[identity].value
            for failed in (check for check in checks if check.failure_info):
                if failed.name != "negative_data_rejection" or not _is_valid_as_sent(
                    case, self.schemas
                ):
                    failure = failed.failure_info
                    message = failure.failure.message[:500]
                    self.failures.append(f"{failed.name}: {message}\n{failure.code_sample[-2000:]}")

    def count(self, first, last):
        return (
            f"{sum(times for status, times in self.statuses.items() if first <= status <= last):,}"
        )


def run_schemathesis(app, max_examples, **config):
    settings = {"continue-on-failure": True, "checks": CHECKS, "operations": [OPENAI], **config}
    settings["generation"] = {
        "max-examples": max_examples,
        "deterministic": True,
        "database": "none",
    }
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json", app, config=schemathesis.Config.from_dict(settings)
    )
    outcome = Outcome(app.openapi()["components"]["schemas"])
    for event in from_schema(schema).execute():
        assert not isinstance(event, events.NonFatalError | events.FatalError), event
        if isinstance(event, events.ScenarioFinished):
            outcome.add(event.recorder)
    return outcome


@pytest.fixture
def recordings():
    """Register recordings for schemathesis. Only the AMR recording becomes a job."""
    files = [recording(kind, seconds=0.5) for kind in ("webm", "wav", "amr")]
    schemathesis.openapi.format("binary", st.sampled_from(files).map(Binary))


@pytest.mark.usefixtures("recordings")
@pytest.mark.parametrize(
    ("access", "config"),
    [({}, {}), ({"auth": "token", "access_token": TOKEN}, WITH_TOKEN)],
    ids=["auth=open", "auth=token"],
)
def test_every_response_matches_the_openapi_document_and_every_error_has_a_code(
    server, quick_or_soak, record_result, request, access, config
):
    app = server(UPSTREAM, request_deadline_seconds=3, **access).app
    outcome = run_schemathesis(app, quick_or_soak(15, 300), **config)
    assert outcome.failures == []
    assert {200, 201, 404, 405, 422} <= set(outcome.statuses)
    assert (401 in outcome.statuses) is bool(access)
    record_result(
        f"Valid and invalid requests from the OpenAPI document ({request.node.callspec.id})",
        f"{sum(outcome.statuses.values()):,} requests",
        f"every response as documented: {outcome.count(200, 299)} succeeded,"
        f" {outcome.count(400, 499)} were rejected with a code,"
        f" {outcome.count(503, 503)} got 503, {outcome.count(500, 502)} got another server error",
    )
