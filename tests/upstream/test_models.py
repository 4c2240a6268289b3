"""Tests of models.py for hosts other than OpenAI: no model is retired, and any name is allowed."""

import logging
from datetime import date

import pytest
from pydantic import ValidationError

from handler.upstream.models import is_openai
from tests.conftest import settings
from tests.fake_upstream import FakeUpstream, transcript_response
from tests.samples import asset

OTHER = "http://localai.example:8080/v1"
AFTER = date(2027, 2, 27)
ROUTES = ("/api/transcribe", "/v1/audio/transcriptions")
UNKNOWN = "openai/whisper-large-v3-turbo:q5_0"


@pytest.mark.parametrize(
    "url", [OTHER, "https://api.groq.com/openai/v1", "https://my-api.openai.com.example/v1"]
)
def test_a_retired_model_is_sent_unchanged_to_another_host(client, webm, url):
    upstream = FakeUpstream()
    http = client(upstream, today=AFTER, openai_base_url=url, whisper_model="whisper-large-v3")
    form = {"model": "whisper-1", "language": "en"}
    response = http.post(ROUTES[1], files={"file": webm}, data=form)
    assert response.headers["Steno-Model"] == "whisper-1"
    fields = {"model": ["whisper-1"], "language": ["en"], "response_format": ["json"]}
    assert upstream.calls[0].fields == fields


@pytest.mark.parametrize(
    "host", ["api.openai.com", "eu.api.openai.com", "US.API.OpenAI.com", "api.openai.com."]
)
def test_a_retired_model_is_replaced_by_the_default_at_openai(client, webm, host):
    upstream = FakeUpstream()
    http = client(upstream, today=AFTER, openai_base_url=f"https://{host}/v1")
    response = http.post(
        ROUTES[1], files={"file": webm}, data={"model": "whisper-1", "language": "en"}
    )
    assert response.headers["Steno-Model"] == "gpt-transcribe"
    assert upstream.calls[0].fields["languages[]"] == ["en"]
    assert "language" not in upstream.calls[0].fields


def test_at_another_host_there_is_no_shutdown_warning(client, caplog):
    with caplog.at_level(logging.WARNING):
        http = client(today=AFTER, openai_base_url=OTHER, whisper_model="whisper-1")
    assert http.get("/api/health").json() == {"status": "ok", "model": "whisper-1"}
    assert not caplog.records


def test_a_retired_model_is_suggested_for_its_options_at_another_host(client, webm):
    http = client(today=AFTER, openai_base_url=OTHER)
    response = http.post(ROUTES[1], files={"file": webm}, data={"chunking_strategy": "auto"})
    assert "gpt-4o-transcribe" in response.json()["error"]["message"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("fields", [{"model": UNKNOWN}, {}])
def test_an_unknown_model_is_sent_to_another_host_with_common_options(client, webm, route, fields):
    upstream = FakeUpstream()
    http = client(
        upstream, openai_base_url=OTHER, whisper_model="gpt-transcribe" if fields else UNKNOWN
    )
    form = {**fields, "language": "en-US", "prompt": "Names: Ada", "response_format": "text"}
    response = http.post(route, files={"file": webm}, data=form)
    assert (response.status_code, response.text) == (200, "Ever tried.\n")
    assert response.headers["Steno-Model"] == UNKNOWN
    (call,) = upstream.calls
    assert call.fields == {
        "model": [UNKNOWN],
        "language": ["en"],
        "prompt": ["Names: Ada"],
        "response_format": ["json"],
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"keywords[]": "Steno"},
        {"temperature": "0"},
        {"include[]": "logprobs"},
        {"chunking_strategy": "auto"},
        {"known_speaker_names[]": "Ada"},
        {"known_speaker_references[]": "data:,"},
        {"languages[]": ["en", "de"]},
        {"response_format": "diarized_json"},
    ],
)
def test_other_options_of_an_unknown_model_are_rejected(client, webm, fields):
    upstream = FakeUpstream()
    http = client(upstream, openai_base_url=OTHER)
    response = http.post(ROUTES[1], files={"file": webm}, data={"model": UNKNOWN, **fields})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (422, "invalid_option")
    assert error["param"] == next(iter(fields)).removesuffix("[]")
    assert f"Steno has no profile for {UNKNOWN}" in error["message"]
    assert upstream.calls == []


def test_a_long_text_of_an_unknown_model_is_not_taken_for_a_truncated_response(client, webm):
    text = "Ever tried. " * 3000
    http = client(FakeUpstream(transcript_response(text)), openai_base_url=OTHER)
    response = http.post(ROUTES[0], files={"file": webm}, data={"model": UNKNOWN})
    assert response.json() == {"transcript": text.strip()}


@pytest.mark.parametrize("route", ROUTES)
def test_subtitles_of_an_unknown_model_are_aligned_by_steno(server, route):
    upstream = FakeUpstream()
    harness = server(upstream, openai_base_url=OTHER, today=AFTER)
    response = harness.send(asset("beckett.wav"), route, model=UNKNOWN, response_format="srt")
    assert response.status_code == 200, response.text
    assert response.text.startswith("1\n00:00:00,")
    assert response.headers["Steno-Model"] == UNKNOWN
    assert {name: value for call in upstream.calls for name, value in call.fields.items()} == {
        "model": [UNKNOWN],
        "response_format": ["json"],
    }


def test_without_a_bucket_the_error_for_times_names_no_model(client, webm):
    http = client(openai_base_url=OTHER)
    response = http.post(
        ROUTES[0], files={"file": webm}, data={"model": UNKNOWN, "response_format": "srt"}
    )
    assert (response.status_code, response.json()["code"]) == (422, "invalid_option")
    assert "has a bucket" in response.json()["detail"]
    assert "whisper-1" not in response.json()["detail"]


@pytest.mark.parametrize("name", ["a model", "naïve", "m" * 201, "a\nb"])
def test_a_model_name_that_is_not_a_valid_header_value_is_rejected(client, webm, name):
    http = client(openai_base_url=OTHER)
    response = http.post(ROUTES[0], files={"file": webm}, data={"model": name})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_option")
    with pytest.raises(ValidationError, match="WHISPER_MODEL"):
        settings(openai_base_url=OTHER, whisper_model=name)


def test_an_unknown_model_is_rejected_at_openai():
    with pytest.raises(ValidationError, match="WHISPER_MODEL must be one of gpt-transcribe"):
        settings(openai_base_url="https://us.api.openai.com/v1", whisper_model="whisper-9")


def test_at_another_host_only_the_configured_model_is_listed(client):
    http = client(openai_base_url=OTHER, whisper_model=UNKNOWN)
    (listed,) = http.get("/v1/models").json()["data"]
    assert (listed["id"], listed["owned_by"], listed["shutdown_date"]) == (
        UNKNOWN,
        "upstream",
        None,
    )


@pytest.mark.parametrize(("overrides", "closed"), [({}, True), ({"openai_base_url": OTHER}, False)])
def test_the_openapi_document_lists_the_models_only_for_openai(client, overrides, closed):
    schemas = client(**overrides).get("/openapi.json").json()["components"]["schemas"]
    for form in ("Form", "OpenAIForm", "Upload"):
        model = str(schemas[form]["properties"]["model"])
        assert ("'enum'" in model) == closed
        assert ("Name of a model that the upstream offers" in model) != closed


def test_hosts_with_similar_names_are_not_taken_for_openai():
    assert is_openai("https://api.openai.com/v1")
    assert is_openai("https://ae.api.openai.com/v1")
    for host in (
        "api.openai.com.example",
        "openai.com",
        "notapi.openai.com",
        "x.openai.azure.com",
        "localhost",
    ):
        assert not is_openai(f"https://{host}/v1")
