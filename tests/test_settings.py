"""settings.py: what the environment may say, and how a wrong one ends the start."""

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


def test_the_defaults_are_those_of_the_readme():
    chosen = settings()
    assert chosen.whisper_model == "gpt-transcribe"
    assert chosen.allowed_origins == ("http://localhost:3000",)
    assert chosen.auth == "open"
    assert chosen.max_audio_bytes == 26_000_000
    assert chosen.max_concurrent_calls == 250
    assert chosen.request_deadline_seconds == 600


def test_on_lambda_nothing_is_open_and_the_deadline_is_below_the_gateways():
    chosen = settings(**LAMBDA, access_token="t")
    assert (chosen.auth, chosen.request_deadline_seconds) == ("token", 25)
    assert settings(**LAMBDA, auth="open").auth == "open"


@pytest.mark.parametrize("given", [{}, {"OPENAI_API_KEY": ""}, {"OPENAI_API_KEY": " \n"}])
def test_without_a_key_the_start_is_refused_with_a_sentence_that_names_both_ways(given, tmp_path):
    command = [sys.executable, "-m", "uvicorn", "handler.main:app", "--app-dir", str(ROOT)]
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "OPENAI_API_KEY" in run.stderr
    assert "OPENAI_SECRET_ARN" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "word"),
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
def test_a_setting_that_cannot_work_is_refused_by_name(given, word):
    with pytest.raises(ValidationError, match=word):
        settings(**given)


OF_UPLOADS = (
    "bucket_name",
    "table_name",
    "recordings_queue_url",
    "parts_queue_url",
    "express_queue_url",
)


@pytest.mark.parametrize("missing", OF_UPLOADS)
def test_settings_of_uploads_of_which_one_is_missing_are_refused_by_its_name(missing):
    given = dict.fromkeys(OF_UPLOADS, "a-name")
    assert settings(**given).bucket_name == "a-name"
    with pytest.raises(ValidationError, match=f"Set {missing.upper()} too"):
        settings(**given | {missing: None})


def test_a_wrong_setting_is_one_sentence_and_never_shows_a_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("MAX_CONCURRENT_CALLS", "many")
    with pytest.raises(SystemExit, match="MAX_CONCURRENT_CALLS: ") as end:
        read_settings()
    assert "very-secret" not in str(end.value)


def test_a_token_that_is_given_is_asked_for():
    assert settings(access_token="t").auth == "token"
    assert settings(token_secret_arn="arn").auth == "token"
    assert settings(access_token="t", auth="open").auth == "open"


def test_an_address_left_empty_is_openais(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    assert read_settings().openai_base_url == "https://api.openai.com/v1"


def test_a_key_is_in_no_repr():
    assert "sk-test-key" not in repr(settings())
    assert "sk-test-key" not in str(settings().model_dump())


def test_a_key_pasted_with_a_line_break_is_the_key():
    assert settings(openai_api_key="sk-a\n").openai_api_key.get_secret_value() == "sk-a"


def test_origins_are_separated_by_commas_and_lose_their_last_slash():
    chosen = settings(allowed_origins="https://app.example/, capacitor://localhost")
    assert chosen.allowed_origins == ("https://app.example", "capacitor://localhost")


def test_a_file_named_env_gives_settings_and_the_environment_overrules_it(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text(
        "OPENAI_API_KEY=sk-file\nWHISPER_MODEL=whisper-1\nAUTH=\nPORT=9\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    monkeypatch.setenv("WHISPER_MODEL", "")
    chosen = read_settings()
    assert chosen.whisper_model == "whisper-1"
    assert chosen.openai_api_key.get_secret_value() == "sk-environment"


def test_on_lambda_no_file_named_env_is_read(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-file\nWHISPER_MODEL=whisper-1\nAUTH=open\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "steno-api")
    with pytest.raises(SystemExit, match="No OpenAI key"):
        read_settings()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    monkeypatch.setenv("ACCESS_TOKEN", "t")
    assert (read_settings().whisper_model, read_settings().auth) == ("gpt-transcribe", "token")


def test_the_environment_gives_a_list_as_it_is_written_and_names_in_any_case(monkeypatch):
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
def test_an_upstream_address_that_no_request_can_be_sent_to_is_refused_at_the_start(url):
    with pytest.raises(ValidationError, match="OPENAI_BASE_URL must be an address like") as refusal:
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
def test_an_upstream_address_may_have_a_port_a_path_and_a_password(url):
    assert settings(openai_base_url=url).openai_base_url == url


@given(st.builds("http{}".format, st.text(alphabet='s:/@[]?#.%-_\\ "09aéö\t\x7f', max_size=20)))
@example("http://0.0.0.00/")
def test_every_upstream_address_that_is_taken_is_one_to_the_http_client_too(url):
    try:
        taken = settings(openai_base_url=url).openai_base_url
    except ValidationError:
        return
    assert httpx2.URL(taken).host
