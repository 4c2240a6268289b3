"""Tests of field_errors.py: errors have Steno's own messages, which list the accepted values."""

import re

import pytest

from handler.errors import InvalidOption
from handler.transcription.options import OpenAIOptions
from tests.harness import Harness

FORMATS = "`json`, `text`, `srt`, `vtt` or `verbose_json`"
ROUTES = ("/api/transcribe", "/v1/audio/transcriptions")
STRATEGY = "`chunking_strategy` must be `auto` or OpenAI's `server_vad` object as JSON."
PYDANTIC_TEXT = re.compile(
    "input|should|valid (string|number|integer)|literal|Value error|NoneType", re.IGNORECASE
)


def detail(response):
    assert response.status_code == 422, response.text
    body = response.json()
    return body["detail"] if "detail" in body else body["error"]["message"]


@pytest.mark.parametrize(
    ("route", "formats"),
    [
        (ROUTES[0], FORMATS),
        (ROUTES[1], "`json`, `text`, `srt`, `vtt`, `verbose_json` or `diarized_json`"),
    ],
)
def test_an_unknown_format_is_rejected_with_the_formats_of_the_route(client, webm, route, formats):
    response = client().post(route, files={"file": webm}, data={"response_format": "docx"})
    assert detail(response) == f"`response_format` must be {formats}."


def test_uploads_and_transcripts_list_their_own_formats(aws):
    harness = Harness(aws)
    for response in (
        harness.request_upload(response_format="docx"),
        harness.transcript("0" * 32, response_format="docx"),
    ):
        assert detail(response) == f"`response_format` must be {FORMATS}."
        assert response.json()["code"] == "invalid_option"


def test_the_speaker_format_is_rejected_with_the_route_that_supports_it(client, webm):
    response = client().post(
        ROUTES[0], files={"file": webm}, data={"response_format": "diarized_json"}
    )
    assert "/v1/audio/transcriptions" in detail(response)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": "hot"}, "`temperature` must be a number."),
        ({"temperature": "nan"}, "`temperature` must be a number."),
        ({"temperature": "1.5"}, "`temperature` must be at most 1."),
        ({"temperature": "-1"}, "`temperature` must be at least 0."),
        ({"stream": "perhaps"}, "`stream` must be `true` or `false`."),
        ({"include": "words"}, "`include` must be `logprobs`."),
        (
            {"timestamp_granularities": "sentence"},
            "`timestamp_granularities` must be `word` or `segment`.",
        ),
        ({"prompt": "x" * 20_001}, "`prompt` must have at most 20,000 characters."),
        ({"keywords": "x" * 101}, "`keywords` must have at most 100 characters."),
        ({"model[x]": "1"}, "`model` must be a string."),
        ({"chunking_strategy": "sometimes"}, STRATEGY),
        ({"chunking_strategy": "{not json"}, STRATEGY),
        ({"chunking_strategy": '{"frob": 1}'}, STRATEGY),
        ({"chunking_strategy": '{"type": "server_vad", "threshold": "x"}'}, STRATEGY),
        ({"chunking_strategy": '{"a":' * 20_000}, STRATEGY),
    ],
)
def test_an_invalid_form_field_is_rejected_with_our_message(fields, message):
    with pytest.raises(InvalidOption) as rejection:
        OpenAIOptions.from_form({name: [value] for name, value in fields.items()})
    assert rejection.value.detail == message


def test_too_many_list_items_are_rejected_with_our_message():
    with pytest.raises(InvalidOption, match="`languages` must have at most 100 entries"):
        OpenAIOptions.from_form({"languages": ["en"] * 101})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "`size` is required."),
        ({"size": "many"}, "`size` must be an integer."),
        ({"size": 1.5}, "`size` must be an integer."),
        ({"size": None}, "`size` must be an integer."),
        ({"size": 1, "filename": 5}, "`filename` must be a string."),
        ({"size": 1, "filename": "x" * 1001}, "`filename` must have at most 1,000 characters."),
        ({"size": 1, "keywords": "Steno"}, "`keywords` must be a list."),
        ({"size": 1, "keywords": [None]}, "`keywords` must be a string."),
        ({"size": 1, "frobnicate": 1}, "`frobnicate` is not a known field."),
    ],
)
def test_an_invalid_upload_field_is_rejected_with_our_message(client, body, message):
    assert detail(client().post("/api/uploads", json=body)) == message


VALUES = (None, 5, -1, 1.5, True, "?", "x" * 30_000, [], [[]], ["?"] * 2000, {}, {"type": 1})


def test_no_option_error_contains_a_pydantic_message(client):
    http, messages = client(), set()
    for name in OpenAIOptions.model_fields:
        for value in VALUES:
            response = http.post("/api/uploads", json={"size": 1, name: value})
            if response.status_code == 422:
                messages.add(detail(response).partition("` ")[2])
    assert len(messages) > 8
    assert [text for text in messages if PYDANTIC_TEXT.search(text)] == []
    assert "is not valid." not in messages
