"""Test requests to five kinds of upstream servers, which the offline engine emulates over HTTP.

Each combination of a format and an option either returns a transcript, or is rejected with a reason
before anything is billed. The engine rejects the same requests as the real servers.
"""

import itertools
import json

import pytest

from tests.conftest import TODAY
from tests.harness import Harness
from tests.samples import recording

AFTER_THE_SHUTDOWN = TODAY.replace(year=2027, month=2, day=27)
# The path at which the engine emulates each server, and its model. Steno cannot recognize a server
# by the engine's host name, so the tests select the profile of the model with the setting MODELS.
SERVERS = {
    "openai": ("", "gpt-transcribe"),
    "openai whisper": ("", "whisper-1"),
    "openai diarize": ("", "gpt-4o-transcribe-diarize"),
    "groq": ("groq/", "whisper-large-v3"),
    "mistral": ("mistral/", "voxtral-mini-latest"),
    "azure": ("azure/", "gpt-4o-transcribe"),
    "azure whisper": ("azure/", "whisper"),
    "speaches": ("speaches/", "Systran/faster-whisper-small"),
}
FORMATS = ("json", "text", "srt", "vtt", "verbose_json", "diarized_json")
OPTIONS = {
    "no option": {},
    "language": {"language": "en-US"},
    "languages": {"languages[]": ["en", "de"]},
    "prompt": {"prompt": "Names: Ada"},
    "keywords": {"keywords[]": ["New York", "Ada"]},
    "temperature": {"temperature": "0.2"},
    "word timestamps": {"timestamp_granularities[]": ["word"]},
    "logprobs": {"include[]": ["logprobs"]},
    "chunking": {"chunking_strategy": "auto"},
    "speaker names": {"known_speaker_names[]": ["Ada"], "known_speaker_references[]": ["data:,"]},
}
# All formats without an option, and all options with a format without and with timestamps.
COMBINATIONS = [
    *((response_format, {}) for response_format in FORMATS),
    *itertools.product(("json", "verbose_json", "diarized_json"), list(OPTIONS.values())[1:]),
]
UPLOAD_OPTIONS = ("no option", "language", "keywords")


def settings_for(engine, name):
    """Return the settings for one of SERVERS."""
    path, model = SERVERS[name]
    url = engine.url.removesuffix("/v1") + f"/{path}v1"
    models = json.dumps({model: {"like": model}})
    return {"openai_base_url": url, "whisper_model": model, "models": models}


def assert_rejected_before_billing(response, error, calls):
    assert response.status_code == 422, response.text
    assert error["code"] == "invalid_option", error
    assert calls == [], (error, calls)


@pytest.mark.parametrize("name", SERVERS)
def test_each_request_is_transcribed_or_rejected_before_it_is_billed(name, server, engine):
    app = server(**settings_for(engine, name))
    clip = recording("webm")
    transcribed = 0
    for response_format, option in COMBINATIONS:
        form = {"response_format": response_format, **option}
        response = app.http.post("/v1/audio/transcriptions", files={"file": clip}, data=form)
        calls = engine.calls()
        if response.status_code == 200:
            assert "ever" in response.text.lower(), (form, response.text)
            assert [call["status"] for call in calls if call["status"] != 200] == []
            transcribed += 1
        else:
            assert_rejected_before_billing(response, response.json()["error"], calls)
    assert transcribed >= len(FORMATS) - 1  # without options, only diarized_json may fail


@pytest.mark.parametrize("name", SERVERS)
def test_each_upload_is_transcribed_or_rejected_before_it_is_billed(name, aws, engine):
    app = Harness(aws, **settings_for(engine, name))
    clip = recording("ogg")
    completed = 0
    for option in UPLOAD_OPTIONS:
        fields = {key.removesuffix("[]"): value for key, value in OPTIONS[option].items()}
        created = app.request_upload(len(clip), response_format="srt", **fields)
        if created.status_code != 201:
            assert_rejected_before_billing(created, created.json(), engine.calls())
            continue
        app.post(created.json()["upload"], clip)
        app.run_worker()
        job_id = created.json()["id"]
        assert app.job(job_id)["status"] == "completed", app.job(job_id)
        for response_format in FORMATS[:-1]:
            text = app.transcript(job_id, response_format=response_format).text
            assert "ever" in text.lower()
        assert {call["status"] for call in engine.calls()} <= {200}
        completed += 1
    assert completed >= 1


@pytest.mark.parametrize("name", SERVERS)
def test_after_the_shutdown_of_openais_models_other_servers_work_unchanged(name, aws, engine):
    models = {}
    for today in (TODAY, AFTER_THE_SHUTDOWN):
        app = Harness(aws, today=today, **settings_for(engine, name))
        response = app.http.post(
            "/api/transcribe",
            files={"file": recording("webm")},
            data={"prompt": str(today)} if name not in ("mistral", "openai diarize") else {},
        )
        assert response.status_code == 200, response.text
        models[today] = response.headers["Steno-Model"]
    assert len(set(models.values())) == 1


@pytest.mark.parametrize("name", ["groq", "mistral", "azure", "speaches"])
def test_an_unknown_model_is_reported_with_the_servers_own_message(name, aws, engine):
    config = settings_for(engine, name)
    app = Harness(aws, **{**config, "whisper_model": "whisper-9", "models": "{}"})
    response = app.http.post("/api/transcribe", files={"file": recording("webm")})
    assert response.json()["code"] == "upstream_model"
    assert "The model `whisper-9` does not exist." in response.json()["detail"]


def test_a_missing_v1_is_reported_with_its_remedy(aws, engine):
    url = engine.url.removesuffix("/v1")
    app = Harness(aws, openai_base_url=url, whisper_model="gpt-transcribe")
    response = app.http.post("/api/transcribe", files={"file": recording("webm")})
    assert response.json()["code"] == "upstream_model"
    assert "usually ends in /v1" in response.json()["detail"]
