"""models.py, at hosts that are not OpenAI's: no model retires there, and any model may be asked for."""

import logging
from datetime import date

import pytest
from pydantic import ValidationError

from handler.upstream.models import is_openai, serving
from tests.conftest import TODAY, settings
from tests.false_upstream import FalseUpstream, heard
from tests.samples import asset

OTHER = "http://localai.example:8080/v1"
AFTER = date(2027, 2, 27)
ROUTES = ("/api/transcribe", "/v1/audio/transcriptions")
UNKNOWN = "openai/whisper-large-v3-turbo:q5_0"


@pytest.mark.parametrize(
    "url", [OTHER, "https://api.groq.com/openai/v1", "https://my-api.openai.com.example/v1"]
)
def test_a_retired_model_at_another_host_is_sent_as_it_is_with_its_language(client, webm, url):
    upstream = FalseUpstream()
    http = client(upstream, today=AFTER, openai_base_url=url)
    form = {"model": "whisper-1", "language": "en"}
    answer = http.post(ROUTES[1], files={"file": webm}, data=form)
    assert answer.headers["Steno-Model"] == "whisper-1"
    fields = {"model": ["whisper-1"], "language": ["en"], "response_format": ["json"]}
    assert upstream.calls[0].fields == fields


@pytest.mark.parametrize(
    "host", ["api.openai.com", "eu.api.openai.com", "US.API.OpenAI.com", "api.openai.com."]
)
def test_a_retired_model_at_openais_own_host_is_served_by_the_default(client, webm, host):
    upstream = FalseUpstream()
    http = client(upstream, today=AFTER, openai_base_url=f"https://{host}/v1")
    answer = http.post(
        ROUTES[1], files={"file": webm}, data={"model": "whisper-1", "language": "en"}
    )
    assert answer.headers["Steno-Model"] == "gpt-transcribe"
    assert upstream.calls[0].fields["languages[]"] == ["en"]
    assert "language" not in upstream.calls[0].fields


def test_another_host_announces_no_end_of_a_model(client, caplog):
    with caplog.at_level(logging.WARNING):
        http = client(today=AFTER, openai_base_url=OTHER, whisper_model="whisper-1")
    assert http.get("/api/health").json() == {"status": "ok", "model": "whisper-1"}
    assert not caplog.records


def test_an_option_of_a_model_that_openai_has_retired_is_still_offered_at_another_host(
    client, webm
):
    http = client(today=AFTER, openai_base_url=OTHER)
    answer = http.post(ROUTES[1], files={"file": webm}, data={"timestamp_granularities[]": "word"})
    assert "whisper-1" in answer.json()["error"]["message"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("asked", [{"model": UNKNOWN}, {}])
def test_an_unknown_model_at_another_host_is_passed_on_with_what_every_server_takes(
    client, webm, route, asked
):
    upstream = FalseUpstream()
    http = client(
        upstream, openai_base_url=OTHER, whisper_model="gpt-transcribe" if asked else UNKNOWN
    )
    form = {**asked, "language": "en-US", "prompt": "Names: Ada", "response_format": "text"}
    answer = http.post(route, files={"file": webm}, data=form)
    assert (answer.status_code, answer.text) == (200, "Ever tried.\n")
    assert answer.headers["Steno-Model"] == UNKNOWN
    (call,) = upstream.calls
    assert call.fields == {
        "model": [UNKNOWN],
        "language": ["en"],
        "prompt": ["Names: Ada"],
        "response_format": ["json"],
    }


@pytest.mark.parametrize(
    "given",
    [
        {"keywords[]": "Steno"},
        {"temperature": "0"},
        {"include[]": "logprobs"},
        {"chunking_strategy": "auto"},
        {"known_speaker_names[]": "Ada"},
        {"known_speaker_references[]": "data:,"},
        {"languages[]": ["en", "de"]},
        {"timestamp_granularities[]": "word", "response_format": "verbose_json"},
        {"response_format": "diarized_json"},
    ],
)
def test_any_other_option_of_an_unknown_model_is_refused_with_a_sentence(client, webm, given):
    upstream = FalseUpstream()
    http = client(upstream, openai_base_url=OTHER)
    answer = http.post(ROUTES[1], files={"file": webm}, data={"model": UNKNOWN, **given})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "invalid_option")
    assert error["param"] == next(iter(given)).removesuffix("[]")
    assert f"Steno does not know what {UNKNOWN} can do" in error["message"]
    assert upstream.calls == []


def test_a_long_text_of_an_unknown_model_is_not_taken_for_one_that_was_cut_off(client, webm):
    text = "Ever tried. " * 3000
    http = client(FalseUpstream(heard(text)), openai_base_url=OTHER)
    answer = http.post(ROUTES[0], files={"file": webm}, data={"model": UNKNOWN})
    assert answer.json() == {"transcript": text.strip()}


@pytest.mark.parametrize("route", ROUTES)
def test_subtitles_of_an_unknown_model_have_the_times_that_steno_finds(server, route):
    upstream = FalseUpstream()
    place = server(upstream, openai_base_url=OTHER, today=AFTER)
    answer = place.send(asset("beckett.wav"), route, model=UNKNOWN, response_format="srt")
    assert answer.status_code == 200, answer.text
    assert answer.text.startswith("1\n00:00:00,")
    assert answer.headers["Steno-Model"] == UNKNOWN
    assert {name: value for call in upstream.calls for name, value in call.fields.items()} == {
        "model": [UNKNOWN],
        "response_format": ["json"],
    }


def test_without_a_bucket_the_refusal_of_times_names_no_model_that_the_host_may_not_have(
    client, webm
):
    http = client(openai_base_url=OTHER)
    answer = http.post(
        ROUTES[0], files={"file": webm}, data={"model": UNKNOWN, "response_format": "srt"}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option")
    assert "has a bucket" in answer.json()["detail"]
    assert "whisper-1" not in answer.json()["detail"]


@pytest.mark.parametrize("name", ["a model", "naïve", "m" * 201, "a\nb"])
def test_a_name_that_no_header_can_carry_is_refused(client, webm, name):
    http = client(openai_base_url=OTHER)
    answer = http.post(ROUTES[0], files={"file": webm}, data={"model": name})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option")
    with pytest.raises(ValidationError, match="WHISPER_MODEL"):
        settings(openai_base_url=OTHER, whisper_model=name)


def test_an_unknown_model_at_openais_own_host_is_refused():
    assert serving("whisper-9", TODAY) is None
    assert serving("whisper-9", TODAY, "https://eu.api.openai.com/v1") is None
    with pytest.raises(ValidationError, match="WHISPER_MODEL must be one of gpt-transcribe"):
        settings(openai_base_url="https://us.api.openai.com/v1", whisper_model="whisper-9")


def test_of_another_host_only_the_servers_own_choice_is_listed(client):
    http = client(openai_base_url=OTHER, whisper_model=UNKNOWN)
    (listed,) = http.get("/v1/models").json()["data"]
    assert (listed["id"], listed["owned_by"], listed["shutdown_date"]) == (
        UNKNOWN,
        "upstream",
        None,
    )


@pytest.mark.parametrize(("given", "closed"), [({}, True), ({"openai_base_url": OTHER}, False)])
def test_the_openapi_document_lists_the_models_only_where_there_are_no_others(
    client, given, closed
):
    schemas = client(**given).get("/openapi.json").json()["components"]["schemas"]
    for form in ("Form", "OpenAIForm", "Upload"):
        model = str(schemas[form]["properties"]["model"])
        assert ("'enum'" in model) == closed
        assert ("any of the upstream's models" in model) != closed


def test_openais_hosts_are_told_from_those_with_a_similar_name():
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
