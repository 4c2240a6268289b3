"""options.py and models.py: what a caller wants, and what of it each model honours."""

from datetime import date

import pytest

from handler.errors import InvalidOption
from handler.transcription.options import OpenAIOptions
from handler.upstream.models import MODELS, serving
from tests.conftest import TODAY


def sent(model, /, **fields):
    """The upstream's parameters for a form's fields."""
    form = {name: value if isinstance(value, list) else [value] for name, value in fields.items()}
    return OpenAIOptions.from_form(form).upstream_parameters(MODELS[model], TODAY)


@pytest.mark.parametrize(
    ("given", "primary"), [("en", "en"), ("en-US", "en"), ("pt_BR", "pt"), ("zh-Hant-TW", "zh")]
)
def test_a_language_goes_where_the_model_reads_it(given, primary):
    assert sent("gpt-transcribe", language=given)["languages"] == [primary]
    assert sent("whisper-1", language=given)["language"] == primary
    assert "language" not in sent("gpt-transcribe", language=given)
    assert "languages" not in sent("whisper-1", language=given)


def test_several_languages_go_to_the_model_that_takes_them():
    assert sent("gpt-transcribe", language="en", **{"languages[]": ["de", "en"]})["languages"] == [
        "en",
        "de",
    ]
    with pytest.raises(InvalidOption, match="gpt-transcribe") as refusal:
        sent("whisper-1", languages=["en", "de"])
    assert refusal.value.option == "languages"


@pytest.mark.parametrize(
    ("model", "option", "value", "able"),
    [
        ("whisper-1", "keywords", "Steno", "gpt-transcribe"),
        ("gpt-4o-transcribe-diarize", "prompt", "Names: Ada", "whisper-1"),
        ("gpt-transcribe", "include", "logprobs", "gpt-4o-transcribe"),
        ("gpt-transcribe", "timestamp_granularities", "word", "whisper-1"),
        ("gpt-transcribe", "chunking_strategy", "auto", "gpt-4o-transcribe"),
        ("gpt-transcribe", "known_speaker_names", "Ada", "gpt-4o-transcribe-diarize"),
        ("whisper-1", "known_speaker_references", "data:,", "gpt-4o-transcribe-diarize"),
        ("whisper-1", "response_format", "diarized_json", "gpt-4o-transcribe-diarize"),
    ],
)
def test_an_option_that_a_model_would_ignore_is_refused_by_name_with_the_models_that_can(
    model, option, value, able
):
    with pytest.raises(InvalidOption, match=able) as refusal:
        sent(model, **{option: value})
    assert refusal.value.option == option


def test_what_no_living_model_can_do_is_said_so():
    options = OpenAIOptions.from_form({"include": ["logprobs"]})
    with pytest.raises(InvalidOption, match="No model can any more"):
        options.upstream_parameters(MODELS["gpt-transcribe"], date(2028, 1, 1))


@pytest.mark.parametrize(
    ("model", "asked", "upstream"),
    [
        ("gpt-transcribe", "json", "json"),
        ("gpt-transcribe", "text", "json"),
        ("gpt-transcribe", "srt", "json"),
        ("gpt-4o-transcribe", "verbose_json", "json"),
        ("whisper-1", "text", "json"),
        ("whisper-1", "srt", "verbose_json"),
        ("whisper-1", "vtt", "verbose_json"),
        ("whisper-1", "verbose_json", "verbose_json"),
        ("gpt-4o-transcribe-diarize", "srt", "diarized_json"),
        ("gpt-4o-transcribe-diarize", "diarized_json", "diarized_json"),
    ],
)
def test_the_upstream_is_asked_for_the_body_that_tells_what_is_needed(model, asked, upstream):
    assert sent(model, response_format=asked)["response_format"] == upstream


@pytest.mark.parametrize(
    ("model", "asked", "laid"),
    [
        ("gpt-transcribe", "srt", True),
        ("gpt-4o-mini-transcribe", "verbose_json", True),
        ("gpt-transcribe", "text", False),
        ("whisper-1", "vtt", False),
    ],
)
def test_a_job_is_told_of_the_format_only_whether_the_text_is_to_be_laid_on_the_sound(
    model, asked, laid
):
    options = OpenAIOptions.from_form({"response_format": [asked], "language": ["en"]})
    told = {
        "model": model,
        "language": "en",
        **({"response_format": "verbose_json"} if laid else {}),
    }
    assert options.job_options(MODELS[model]) == told


def test_segments_may_be_asked_for_by_name_and_words_only_of_a_model_that_tells_them():
    segments = OpenAIOptions.from_form(
        {"response_format": ["verbose_json"], "timestamp_granularities[]": ["segment"]}
    )
    assert "timestamp_granularities" not in segments.upstream_parameters(
        MODELS["gpt-transcribe"], date(2026, 11, 20)
    )
    assert segments.unsupported_in_jobs == []
    words = OpenAIOptions.from_form(
        {"response_format": ["verbose_json"], "timestamp_granularities[]": ["word", "segment"]}
    )
    assert words.unsupported_in_jobs == ["timestamp_granularities"]
    with pytest.raises(InvalidOption, match="whisper-1"):
        words.upstream_parameters(MODELS["gpt-transcribe"], date(2026, 11, 20))


def test_every_other_option_is_passed_on():
    assert sent(
        "gpt-transcribe",
        prompt="Names: Ada",
        temperature="0.2",
        **{"keywords[]": ["Steno", "Mangum"]},
    ) == {
        "model": "gpt-transcribe",
        "response_format": "json",
        "prompt": "Names: Ada",
        "temperature": 0.2,
        "keywords": ["Steno", "Mangum"],
    }
    words = sent(
        "whisper-1",
        response_format="verbose_json",
        **{"timestamp_granularities[]": ["word", "segment"]},
    )
    assert words["timestamp_granularities"] == ["word", "segment"]
    assert sent("gpt-4o-transcribe", **{"include[]": "logprobs"})["include"] == ["logprobs"]
    speakers = sent("gpt-4o-transcribe-diarize", **{"known_speaker_names[]": ["Ada"]})
    assert speakers["known_speaker_names"] == ["Ada"]


def test_lists_come_in_the_ways_in_which_http_clients_write_them():
    fields = {"keywords": ["a"], "keywords[]": ["b", "c"], "keywords[0]": ["d"]}
    assert OpenAIOptions.from_form(fields).keywords == ["a", "b", "c", "d"]


def test_a_chunking_strategy_comes_as_a_word_as_json_or_in_brackets():
    vad = {"type": "server_vad", "threshold": 0.4}
    assert sent("gpt-4o-transcribe", chunking_strategy="auto")["chunking_strategy"] == "auto"
    as_json = sent(
        "gpt-4o-transcribe", chunking_strategy='{"type": "server_vad", "threshold": 0.4}'
    )
    assert as_json["chunking_strategy"] == vad
    bracketed = {"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "0.4"}
    assert sent("gpt-4o-transcribe", **bracketed)["chunking_strategy"] == vad


def test_the_model_that_tells_speakers_apart_gets_the_strategy_it_requires():
    assert sent("gpt-4o-transcribe-diarize")["chunking_strategy"] == "auto"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("language", "english please"),
        ("temperature", "hot"),
        ("temperature", "1.5"),
        ("response_format", "docx"),
        ("keywords", "<b>"),
        ("keywords", "two\nlines"),
        ("stream", "true"),
        ("stream", "perhaps"),
        ("timestamp_granularities", "sentence"),
        ("chunking_strategy", "{not json"),
        ("chunking_strategy", '{"a":' * 20_000),
        ("temperature", "nan"),
        ("chunking_strategy", "sometimes"),
        ("frobnicate", "1"),
        ("model", ["whisper-1", "gpt-transcribe"]),
        ("chunking_strategy[frob]", "1"),
        ("model[x]", "1"),
    ],
)
def test_a_bad_value_is_refused_by_the_options_name(option, value):
    with pytest.raises(InvalidOption) as refusal:
        sent("gpt-4o-transcribe", **{option: value})
    assert refusal.value.option == option.partition("[")[0]
    assert option.partition("[")[0] in refusal.value.detail


def test_an_option_given_in_two_ways_is_refused():
    with pytest.raises(InvalidOption, match="more than once"):
        sent(
            "gpt-4o-transcribe",
            **{"chunking_strategy": "auto", "chunking_strategy[type]": "server_vad"},
        )


@pytest.mark.parametrize(
    ("model", "fields", "needs"),
    [
        (
            "whisper-1",
            {"timestamp_granularities": "word", "response_format": "json"},
            "verbose_json",
        ),
        ("gpt-4o-transcribe", {"include": "logprobs", "response_format": "text"}, "json"),
    ],
)
def test_an_option_that_needs_a_format_says_which(model, fields, needs):
    with pytest.raises(InvalidOption, match=needs):
        sent(model, **fields)


def test_a_field_left_empty_was_not_given():
    assert sent("gpt-transcribe", language="", prompt="", keywords="", temperature="") == sent(
        "gpt-transcribe"
    )


def test_stream_false_is_what_happens_anyway():
    assert sent("gpt-transcribe", stream="false") == sent("gpt-transcribe")


def test_a_model_is_served_by_itself_until_its_shutdown_and_then_by_the_default():
    assert serving("whisper-1", date(2027, 2, 25)).name == "whisper-1"
    assert serving("whisper-1", date(2027, 2, 26)).name == "gpt-transcribe"
    assert serving("gpt-transcribe", date(2040, 1, 1)).name == "gpt-transcribe"
    assert serving("whisper-9", TODAY) is None


def test_a_model_warns_within_180_days_of_its_end_and_after_it():
    model = MODELS["whisper-1"]
    assert model.warning(date(2026, 8, 29)) is None
    assert "2027-02-26" in model.warning(date(2026, 8, 30))
    assert "gpt-transcribe answers for it" in model.warning(date(2027, 2, 26))
    assert MODELS["gpt-transcribe"].warning(date(2040, 1, 1)) is None
