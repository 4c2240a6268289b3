"""field_errors.py: errors of fields are in our own words, and list only what a route takes."""

import re

import pytest

from handler.errors import InvalidOption
from handler.transcription.options import OpenAIOptions
from tests.place import Place

FORMATS = "`json`, `text`, `srt`, `vtt` or `verbose_json`"
ROUTES = ("/api/transcribe", "/v1/audio/transcriptions")
STRATEGY = "`chunking_strategy`: give `auto`, or OpenAI's `server_vad` object as JSON."
PYDANTICS = re.compile(
    "input|should|valid (string|number|integer)|literal|Value error|NoneType", re.IGNORECASE
)


def detail(answer):
    assert answer.status_code == 422, answer.text
    told = answer.json()
    return told["detail"] if "detail" in told else told["error"]["message"]


@pytest.mark.parametrize(
    ("route", "formats"),
    [
        (ROUTES[0], FORMATS),
        (ROUTES[1], "`json`, `text`, `srt`, `vtt`, `verbose_json` or `diarized_json`"),
    ],
)
def test_a_format_that_is_none_is_refused_with_those_of_the_route(client, webm, route, formats):
    answer = client().post(route, files={"file": webm}, data={"response_format": "docx"})
    assert detail(answer) == f"`response_format`: give {formats}."


def test_an_upload_and_a_transcript_list_their_own_formats(aws):
    place = Place(aws)
    for answer in (
        place.ask(response_format="docx"),
        place.transcript("0" * 32, response_format="docx"),
    ):
        assert detail(answer) == f"`response_format`: give {FORMATS}."
        assert answer.json()["code"] == "invalid_option"


def test_the_format_for_speakers_is_refused_with_the_route_that_has_it(client, webm):
    answer = client().post(
        ROUTES[0], files={"file": webm}, data={"response_format": "diarized_json"}
    )
    assert "/v1/audio/transcriptions" in detail(answer)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"temperature": "hot"}, "`temperature`: give a number."),
        ({"temperature": "nan"}, "`temperature`: give a number."),
        ({"temperature": "1.5"}, "`temperature`: give at most 1."),
        ({"temperature": "-1"}, "`temperature`: give at least 0."),
        ({"stream": "perhaps"}, "`stream`: give `true` or `false`."),
        ({"include": "words"}, "`include`: give `logprobs`."),
        (
            {"timestamp_granularities": "sentence"},
            "`timestamp_granularities`: give `word` or `segment`.",
        ),
        ({"prompt": "x" * 20_001}, "`prompt`: give at most 20,000 characters."),
        ({"keywords": "x" * 101}, "`keywords`: give at most 100 characters."),
        ({"model[x]": "1"}, "`model`: give text."),
        ({"chunking_strategy": "sometimes"}, STRATEGY),
        ({"chunking_strategy": "{not json"}, STRATEGY),
        ({"chunking_strategy": '{"frob": 1}'}, STRATEGY),
        ({"chunking_strategy": '{"type": "server_vad", "threshold": "x"}'}, STRATEGY),
        ({"chunking_strategy": '{"a":' * 20_000}, STRATEGY),
    ],
)
def test_a_bad_option_of_a_form_is_refused_in_our_words(fields, said):
    with pytest.raises(InvalidOption) as refusal:
        OpenAIOptions.from_form({name: [value] for name, value in fields.items()})
    assert refusal.value.detail == said


def test_too_many_entries_are_refused_in_our_words():
    with pytest.raises(InvalidOption, match="`languages`: give at most 100 entries"):
        OpenAIOptions.from_form({"languages": ["en"] * 101})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "`size`: this field is required."),
        ({"size": "many"}, "`size`: give a whole number."),
        ({"size": 1.5}, "`size`: give a whole number."),
        ({"size": None}, "`size`: give a whole number."),
        ({"size": 1, "filename": 5}, "`filename`: give text."),
        ({"size": 1, "filename": "x" * 1001}, "`filename`: give at most 1,000 characters."),
        ({"size": 1, "keywords": "Steno"}, "`keywords`: give a list."),
        ({"size": 1, "keywords": [None]}, "`keywords`: give text."),
        ({"size": 1, "frobnicate": 1}, "`frobnicate`: there is no such field."),
    ],
)
def test_a_bad_field_of_an_upload_is_refused_in_our_words(client, body, said):
    assert detail(client().post("/api/uploads", json=body)) == said


VALUES = (None, 5, -1, 1.5, True, "?", "x" * 30_000, [], [[]], ["?"] * 2000, {}, {"type": 1})


def test_no_text_of_pydantics_is_in_any_refusal_of_an_option(client):
    http, said = client(), set()
    for name in OpenAIOptions.model_fields:
        for value in VALUES:
            answer = http.post("/api/uploads", json={"size": 1, name: value})
            if answer.status_code == 422:
                said.add(detail(answer).partition(": ")[2])
    assert len(said) > 8
    assert [text for text in said if PYDANTICS.search(text)] == []
    assert "this value is not valid." not in said
