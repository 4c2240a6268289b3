"""Tests of settings.py: variables are validated at startup, and errors contain their names."""

import os
import subprocess
import sys

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from handler.settings import read_settings
from tests.conftest import ROOT, settings

LAMBDA = {"aws_lambda_function_name": "steno-api"}


def test_the_defaults_are_as_documented():
    config = settings()
    assert config.whisper_model == "gpt-transcribe"
    assert config.allowed_origins == ("http://localhost:*", "http://127.0.0.1:*")
    assert config.auth == "open"
    assert config.max_audio_bytes == 26_000_000
    assert config.max_concurrent_calls == 250
    assert config.request_deadline_seconds == 600


def test_on_lambda_a_token_is_required_and_the_deadline_is_below_the_gateway_timeout():
    config = settings(**LAMBDA, access_token="t")
    assert (config.auth, config.request_deadline_seconds) == ("token", 25)
    assert settings(**LAMBDA, auth="open").auth == "open"


@pytest.mark.parametrize("environment", [{}, {"OPENAI_API_KEY": ""}, {"OPENAI_API_KEY": " \n"}])
def test_the_start_fails_without_a_key_and_the_error_names_both_settings(environment, tmp_path):
    command = [sys.executable, "-m", "uvicorn", "handler.main:app", "--app-dir", str(ROOT)]
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "OPENAI_API_KEY" in run.stderr
    assert "OPENAI_SECRET_ARN" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ({"whisper_model": "whisper-9"}, "WHISPER_MODEL"),
        ({"openai_base_url": "localhost:9000"}, "OPENAI_BASE_URL"),
        ({"allowed_origins": "localhost:3000"}, "ALLOWED_ORIGINS"),
        ({"allowed_origins": "https://a.example/path"}, "ALLOWED_ORIGINS"),
        ({"auth": "token"}, "ACCESS_TOKEN"),
        ({"auth": "jwt"}, "API Gateway"),
        (LAMBDA, "TOKEN_SECRET_ARN"),
        ({"auth": "none"}, "'token', 'jwt' or 'open'"),
        ({"max_audio_bytes": 0}, "greater than or equal to 1"),
        ({"request_deadline_seconds": "soon"}, "number"),
        ({"daily_seconds": 3600}, "TABLE_NAME"),
        ({"daily_seconds_per_caller": 3600}, "TABLE_NAME"),
    ],
)
def test_an_invalid_setting_is_rejected_by_name(overrides, word):
    with pytest.raises(ValidationError, match=word):
        settings(**overrides)


UPLOAD_SETTINGS = (
    "bucket_name",
    "table_name",
    "recordings_queue_url",
    "parts_queue_url",
    "express_queue_url",
)


@pytest.mark.parametrize("missing", UPLOAD_SETTINGS)
def test_a_missing_upload_setting_is_rejected_by_name(missing):
    uploads = dict.fromkeys(UPLOAD_SETTINGS, "a-name")
    assert settings(**uploads).bucket_name == "a-name"
    with pytest.raises(ValidationError, match=f"Also set {missing.upper()}"):
        settings(**uploads | {missing: None})


def test_an_invalid_setting_is_one_sentence_without_the_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("MAX_CONCURRENT_CALLS", "many")
    with pytest.raises(SystemExit, match="MAX_CONCURRENT_CALLS: ") as end:
        read_settings()
    assert "very-secret" not in str(end.value)


def test_a_configured_token_is_required():
    assert settings(access_token="t").auth == "token"
    assert settings(token_secret_arn="arn").auth == "token"
    assert settings(access_token="t", auth="open").auth == "open"


def test_an_empty_base_url_is_that_of_openai(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    assert read_settings().openai_base_url == "https://api.openai.com/v1"


def test_the_key_is_not_in_the_repr():
    assert "sk-test-key" not in repr(settings())
    assert "sk-test-key" not in str(settings().model_dump())


def test_a_line_break_after_the_key_is_removed():
    assert settings(openai_api_key="sk-a\n").openai_api_key.get_secret_value() == "sk-a"


def test_origins_are_separated_by_commas_and_a_final_slash_is_removed():
    config = settings(allowed_origins="https://app.example/, capacitor://localhost")
    assert config.allowed_origins == ("https://app.example", "capacitor://localhost")


def test_the_environment_overrides_the_env_file(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text(
        "OPENAI_API_KEY=sk-file\nWHISPER_MODEL=whisper-1\nAUTH=\nPORT=9\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    monkeypatch.setenv("WHISPER_MODEL", "")
    config = read_settings()
    assert config.whisper_model == "whisper-1"
    assert config.openai_api_key.get_secret_value() == "sk-environment"


def test_on_lambda_the_env_file_is_not_read(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-file\nWHISPER_MODEL=whisper-1\nAUTH=open\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "steno-api")
    with pytest.raises(SystemExit, match="No OpenAI key"):
        read_settings()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    monkeypatch.setenv("ACCESS_TOKEN", "t")
    assert (read_settings().whisper_model, read_settings().auth) == ("gpt-transcribe", "token")


def test_list_settings_are_separated_by_commas_and_names_ignore_case(monkeypatch):
    monkeypatch.setenv("openai_api_key", "sk-environment")
    monkeypatch.setenv("ALLOWED_ORIGINS", "https://a.example,https://b.example/")
    assert read_settings().allowed_origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize(
    "url",
    [
        "http://host:port/v1",
        "http://host:99999/v1",
        "http://1.2.3.999/v1",
        "http://[::1/v1",
        "http://[::g]/v1",
        "http://",
        "http:///v1",
        "http://:8000/v1",
        "http:/host/v1",
        "http://a host/v1",
        "http://host/v1\n",
        "http://höst/v1",
        "ftp://host/v1",
        "https://host/v1?api-version=1",
        "https://host/v1#part",
    ],
)
def test_an_invalid_upstream_url_is_rejected_at_the_start(url):
    with pytest.raises(ValidationError, match="OPENAI_BASE_URL must be a URL such as") as refusal:
        settings(openai_base_url=url)
    assert len(refusal.value.errors()) == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "http://localhost:9000",
        "http://localhost:9000/",
        "http://[::1]:8000/v1",
        "https://my_server.internal/openai/deployments/a~b/v1/",
        "https://name:word@host/v1",
    ],
)
def test_an_upstream_url_may_have_a_port_a_path_and_a_password(url):
    assert settings(openai_base_url=url).openai_base_url == url


@given(st.builds("http{}".format, st.text(alphabet='s:/@[]?#.%-_\\ "09aéö\t\x7f', max_size=20)))
@example("http://0.0.0.00/")
def test_every_accepted_upstream_url_is_valid_for_the_http_client(url):
    try:
        taken = settings(openai_base_url=url).openai_base_url
    except ValidationError:
        return
    assert httpx2.URL(taken).host
