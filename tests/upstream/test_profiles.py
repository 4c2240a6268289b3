"""Tests of profiles.py and models.py: built-in profiles, and the settings MODELS and UPSTREAMS."""

import json
from dataclasses import replace
from datetime import date

import pytest
from pydantic import TypeAdapter, ValidationError

from handler.transcription.options import OpenAIOptions
from handler.upstream.models import Models, Upstream, server_at
from handler.upstream.profiles import Model, servers
from tests.conftest import ROOT, TODAY, settings
from tests.fake_upstream import FakeUpstream, transcript_response
from tests.harness import PACING, Harness, is_part_request
from tests.samples import long_recording

GROQ = "https://api.groq.com/openai/v1"
MISTRAL = "https://api.mistral.ai/v1"
UPSTREAMS = [
    {"name": "groq", "base_url": GROQ, "api_key": "gsk", "models": ["whisper-large-v3"]},
    {"name": "own", "base_url": "http://own.example/v1", "api_key": "none"},
]


def models_at(base_url, default, **overrides):
    return Models(default, (Upstream(base_url, **overrides),), lambda: TODAY)


def parameters(models, **fields):
    """Return the upstream parameters for these form fields and the default model."""
    form = {name: value if isinstance(value, list) else [value] for name, value in fields.items()}
    return OpenAIOptions.from_form(form).upstream_parameters(models.get(), models)


@pytest.mark.parametrize("name", servers())
def test_each_server_states_the_source_of_its_profiles(name):
    path = ROOT / "handler" / "upstream" / "servers" / f"{name}.json"
    content = json.loads(path.read_text())
    assert content["source"].startswith("https://")
    assert content["title"]
    values = [vars(model) for model in servers()[name].models.values()]
    TypeAdapter(list[Model]).validate_python(values)  # raises an error if a type is wrong


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (GROQ, "groq"),
        (MISTRAL, "mistral"),
        ("https://my-resource.openai.azure.com/openai/v1", "azure"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("http://localhost:8000/v1", None),
        ("https://api.groq.com.example/v1", None),
    ],
)
def test_a_server_is_recognized_by_its_host(url, name):
    assert server_at(url) == name


def test_the_models_of_a_known_server_are_listed(client):
    http = client(openai_base_url=GROQ, whisper_model="whisper-large-v3-turbo")
    listed = http.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["whisper-large-v3", "whisper-large-v3-turbo"]
    assert {model["owned_by"] for model in listed} == {"groq"}


def test_groq_returns_segments_itself(client, webm):
    segments = [{"start": 0, "end": 1, "text": "Ever tried."}]
    upstream = FakeUpstream(transcript_response("Ever tried.", segments=segments))
    http = client(upstream, openai_base_url=GROQ, whisper_model="whisper-large-v3")
    response = http.post(
        "/api/transcribe", files={"file": webm}, data={"response_format": "srt", "language": "en"}
    )
    assert response.text.startswith("1\n00:00:00,000 --> 00:00:0")
    assert upstream.calls[0].fields == {
        "model": ["whisper-large-v3"],
        "language": ["en"],
        "response_format": ["verbose_json"],
        "timestamp_granularities[]": ["word", "segment"],
    }


def test_mistral_gets_its_own_fields_and_no_response_format():
    models = models_at(MISTRAL, "voxtral-mini-latest")
    assert parameters(models, keywords=["New York", "Ada"], temperature="0") == {
        "model": "voxtral-mini-latest",
        "context_bias": ["New_York", "Ada"],
        "temperature": 0,
    }
    assert parameters(models, response_format="verbose_json") == {
        "model": "voxtral-mini-latest",
        "timestamp_granularities": ["segment"],
    }
    assert parameters(models, response_format="diarized_json")["diarize"] is True


def test_with_a_language_mistral_returns_no_timestamps_so_steno_aligns_the_text():
    models = models_at(MISTRAL, "voxtral-mini-latest")
    options = OpenAIOptions.from_form({"response_format": ["srt"], "language": ["fr"]})
    assert options.needs_alignment(models.get())
    assert parameters(models, response_format="srt", language="fr") == {
        "model": "voxtral-mini-latest",
        "language": "fr",
    }


def test_mistrals_response_is_read_with_its_speakers_and_billed_seconds(client, webm):
    segment = {"start": 0, "end": 1, "text": "Ever tried.", "speaker_id": "speaker_1"}
    body = {"text": "Ever tried.", "segments": [segment], "usage": {"prompt_audio_seconds": 3}}
    upstream = FakeUpstream(transcript_response(**body))
    http = client(upstream, openai_base_url=MISTRAL, whisper_model="voxtral-mini-latest")
    response = http.post(
        "/v1/audio/transcriptions",
        files={"file": webm},
        data={"response_format": "diarized_json", "keywords[]": "New York"},
    )
    assert response.json()["segments"][0]["speaker"] == "speaker_1"
    assert response.json()["duration"] == 3
    assert upstream.calls[0].fields["context_bias[]"] == ["New_York"]


def test_models_of_speaches_are_found_by_their_pattern_on_any_host():
    models = models_at("http://gpu.example:8000/v1", "Systran/faster-whisper-small")
    assert models.get().timestamps == {"response_format": "verbose_json"}
    assert models.get().name == "Systran/faster-whisper-small"


def test_a_new_model_of_a_known_server_gets_common_options_only():
    models = models_at(GROQ, "whisper-large-v4")
    assert not models.get().is_documented
    assert parameters(models, language="en") == {
        "model": "whisper-large-v4",
        "response_format": "json",
        "language": "en",
    }


def test_the_owner_adds_a_profile_with_the_setting_models(client, webm):
    given = '{"ours": {"like": "gpt-4o-transcribe", "logprobs": false}}'
    upstream = FakeUpstream()
    http = client(
        upstream,
        models=given,
        today=date(2027, 6, 1),
        openai_base_url="https://x.openai.azure.com/openai/v1",
        whisper_model="ours",
    )
    form = {"temperature": "0", "prompt": "Ada"}
    response = http.post("/v1/audio/transcriptions", files={"file": webm}, data=form)
    assert response.headers["Steno-Model"] == "ours"  # a copy has no shutdown date
    assert upstream.calls[0].fields["temperature"] == ["0.0"]
    refused = http.post(
        "/v1/audio/transcriptions", files={"file": webm}, data={"include[]": "logprobs"}
    )
    assert refused.json()["error"]["param"] == "include"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("{", "MODELS is not a JSON object"),
        ("[]", "MODELS is not a JSON object"),
        ('{"a": 1}', "MODELS is not a JSON object"),
        ('{"a": {"like": "nothing"}}', "there is no model `nothing` to copy"),
        ('{"a": {"temperatur": true}}', "`temperatur` is not a field of a profile"),
        ('{"a": {"shutdown": "soon"}}', "MODELS is not a JSON object"),
        ('{"a": {"max_bytes": "many"}}', "valid integer"),
    ],
)
def test_an_invalid_profile_is_reported_at_start_up(given, problem):
    with pytest.raises(ValidationError, match=problem):
        settings(models=given)


def test_a_known_server_without_the_default_model_needs_the_name_of_a_model():
    with pytest.raises(ValidationError, match=r"WHISPER_MODEL is required.*whisper-large-v3"):
        settings(openai_base_url=GROQ)


def test_a_bare_name_chooses_the_first_upstream_that_has_the_model(client, webm):
    upstream = FakeUpstream()
    http = client(upstream, upstreams=json.dumps(UPSTREAMS), whisper_model="whisper-large-v3")
    for name in ("", "own/whisper-large-v3", "llm", "groq/whisper-large-v3"):
        http.post("/api/transcribe", files={"file": webm}, data={"model": name})
    assert [(call.host, call.authorization, call.fields["model"]) for call in upstream.calls] == [
        ("api.groq.com", "Bearer gsk", ["whisper-large-v3"]),
        ("own.example", "Bearer none", ["whisper-large-v3"]),
        ("own.example", "Bearer none", ["llm"]),
        ("api.groq.com", "Bearer gsk", ["whisper-large-v3"]),
    ]


def test_the_response_names_the_upstream_and_the_model(client, webm):
    http = client(upstreams=json.dumps(UPSTREAMS), whisper_model="whisper-large-v3")
    response = http.post("/api/transcribe", files={"file": webm})
    assert response.headers["Steno-Model"] == "groq/whisper-large-v3"
    assert http.get("/v1/models").json()["data"][0]["id"] == "groq/whisper-large-v3"


def test_a_model_that_an_upstream_does_not_offer_is_rejected(client, webm):
    http = client(upstreams=json.dumps(UPSTREAMS), whisper_model="whisper-large-v3")
    response = http.post(
        "/api/transcribe", files={"file": webm}, data={"model": "groq/whisper-large-v3-turbo"}
    )
    assert (response.status_code, response.json()["code"]) == (422, "invalid_option")
    assert "groq/whisper-large-v3" in response.json()["detail"]


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ({"upstreams": "{"}, "UPSTREAMS is not a JSON list"),
        ({"upstreams": json.dumps([{**UPSTREAMS[0], "api_key": None}])}, "api_key` or `secret_arn"),
        ({"upstreams": json.dumps([{**UPSTREAMS[0], "base_url": "groq"}])}, "must be a URL"),
        ({"upstreams": json.dumps([{**UPSTREAMS[0], "name": "My Groq"}])}, "pattern"),
        ({"upstreams": json.dumps([UPSTREAMS[1]] * 2)}, "contains a name twice"),
        ({"fallback_models": "nothing"}, "FALLBACK_MODELS contains nothing"),
    ],
)
def test_invalid_upstreams_are_reported_at_start_up(overrides, problem):
    with pytest.raises(ValidationError, match=problem):
        settings(**overrides)


def test_an_error_about_an_upstream_does_not_show_its_key():
    entry = {**UPSTREAMS[0], "api_key": "gsk-secret", "name": "My Groq"}
    with pytest.raises(ValidationError) as error:
        settings(upstreams=json.dumps([entry]))
    assert "gsk-secret" not in str(error.value)


@pytest.mark.parametrize("limit", ['"max_bytes": 1000', '"max_seconds": 1'])
def test_a_recording_beyond_the_models_limits_becomes_a_job(server, webm, limit):
    upstream = FakeUpstream()
    models = f'{{"small": {{{limit}}}}}'
    harness = server(upstream, openai_base_url="http://x/v1", whisper_model="small", models=models)
    assert harness.send(webm).json() == {"transcript": "Ever tried."}
    assert all(is_part_request(call) for call in upstream.calls)


def test_parts_are_at_most_as_long_as_the_model_allows(aws):
    models = '{"small": {"max_seconds": 40}}'
    config = {"openai_base_url": "http://x/v1", "whisper_model": "small", "models": models}
    harness = Harness(aws, FakeUpstream(), pacing=replace(PACING, part_seconds=300), **config)
    records = harness.cut(harness.upload(long_recording("ogg", 75)))
    seconds = [json.loads(record["body"])["part"]["samples"] / 16_000 for record in records]
    assert len(seconds) >= 2
    assert max(seconds) <= 40


def test_without_a_bucket_a_file_larger_than_the_model_accepts_is_rejected(client, webm):
    http = client(
        openai_base_url="http://x/v1", whisper_model="small", models='{"small": {"max_bytes": 10}}'
    )
    response = http.post("/api/transcribe", files={"file": webm})
    assert (response.status_code, response.json()["code"]) == (413, "recording_too_large")
    assert "small accepts at most 10 bytes" in response.json()["detail"]
