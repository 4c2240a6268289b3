"""Tests of options.py and models.py: request options, and which models support them."""

from datetime import date

import pytest

from handler.errors import InvalidOption
from handler.transcription.options import OpenAIOptions
from handler.upstream.models import OPENAI_URL, Models, Upstream
from tests.conftest import TODAY


def models(today=TODAY):
    """Return OpenAI's models as of a given day."""
    return Models("gpt-transcribe", (Upstream(OPENAI_URL),), lambda: today)


def upstream_parameters(model, /, **fields):
    """Return the upstream parameters for form fields."""
    form = {name: value if isinstance(value, list) else [value] for name, value in fields.items()}
    return OpenAIOptions.from_form(form).upstream_parameters(models().get(model), models())


@pytest.mark.parametrize(
    ("language", "primary"), [("en", "en"), ("en-US", "en"), ("pt_BR", "pt"), ("zh-Hant-TW", "zh")]
)
def test_a_language_is_sent_in_the_parameter_of_the_model(language, primary):
    assert upstream_parameters("gpt-transcribe", language=language)["languages"] == [primary]
    assert upstream_parameters("whisper-1", language=language)["language"] == primary
    assert "language" not in upstream_parameters("gpt-transcribe", language=language)
    assert "languages" not in upstream_parameters("whisper-1", language=language)


def test_several_languages_are_sent_to_a_model_that_accepts_them():
    assert upstream_parameters("gpt-transcribe", language="en", **{"languages[]": ["de", "en"]})[
        "languages"
    ] == [
        "en",
        "de",
    ]
    with pytest.raises(InvalidOption, match="gpt-transcribe") as refusal:
        upstream_parameters("whisper-1", languages=["en", "de"])
    assert refusal.value.option == "languages"


@pytest.mark.parametrize(
    ("model", "option", "value", "able"),
    [
        ("whisper-1", "keywords", "Steno", "gpt-transcribe"),
        ("gpt-4o-transcribe-diarize", "prompt", "Names: Ada", "whisper-1"),
        ("gpt-transcribe", "include", "logprobs", "gpt-4o-transcribe"),
        ("gpt-transcribe", "chunking_strategy", "auto", "gpt-4o-transcribe"),
        ("gpt-transcribe", "known_speaker_names", "Ada", "gpt-4o-transcribe-diarize"),
        ("whisper-1", "known_speaker_references", "data:,", "gpt-4o-transcribe-diarize"),
        ("whisper-1", "response_format", "diarized_json", "gpt-4o-transcribe-diarize"),
    ],
)
def test_an_unsupported_option_is_rejected_with_the_models_that_support_it(
    model, option, value, able
):
    with pytest.raises(InvalidOption, match=able) as refusal:
        upstream_parameters(model, **{option: value})
    assert refusal.value.option == option


def test_an_option_that_no_current_model_supports_is_rejected():
    options = OpenAIOptions.from_form({"include": ["logprobs"]})
    with pytest.raises(InvalidOption, match="No available model supports it"):
        options.upstream_parameters(models().get(), models(date(2028, 1, 1)))


@pytest.mark.parametrize(
    ("model", "requested", "upstream"),
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
def test_the_upstream_response_format_contains_the_requested_data(model, requested, upstream):
    assert upstream_parameters(model, response_format=requested)["response_format"] == upstream


@pytest.mark.parametrize(
    ("model", "requested", "needs_alignment"),
    [
        ("gpt-transcribe", "srt", True),
        ("gpt-4o-mini-transcribe", "verbose_json", True),
        ("gpt-transcribe", "text", False),
        ("whisper-1", "vtt", False),
    ],
)
def test_job_options_contain_a_format_only_if_times_must_be_aligned(
    model, requested, needs_alignment
):
    options = OpenAIOptions.from_form({"response_format": [requested], "language": ["en"]})
    expected = {
        "model": model,
        "language": "en",
        **({"response_format": "verbose_json"} if needs_alignment else {}),
    }
    assert options.job_options(models().get(model)) == expected


@pytest.mark.parametrize(
    ("model", "granularities", "aligned"),
    [
        ("gpt-transcribe", ["word"], True),
        ("gpt-4o-transcribe-diarize", ["word", "segment"], True),
        ("whisper-1", ["word"], False),
        ("gpt-transcribe", ["segment"], False),
    ],
)
def test_words_are_aligned_only_if_the_model_does_not_return_them(model, granularities, aligned):
    options = OpenAIOptions.from_form(
        {"response_format": ["verbose_json"], "timestamp_granularities[]": granularities}
    )
    assert options.needs_word_alignment(models().get(model)) is aligned
    assert options.unsupported_in_jobs == []


def test_all_timestamps_are_requested_so_that_another_granularity_is_not_billed():
    segments = upstream_parameters("whisper-1", response_format="verbose_json")
    words = upstream_parameters(
        "whisper-1", response_format="verbose_json", **{"timestamp_granularities[]": "word"}
    )
    assert segments == words
    assert words["timestamp_granularities"] == ["word", "segment"]


def test_other_options_are_passed_on():
    assert upstream_parameters(
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
    assert upstream_parameters("gpt-4o-transcribe", **{"include[]": "logprobs"})["include"] == [
        "logprobs"
    ]
    speakers = upstream_parameters(
        "gpt-4o-transcribe-diarize", **{"known_speaker_names[]": ["Ada"]}
    )
    assert speakers["known_speaker_names"] == ["Ada"]


def test_lists_are_accepted_in_all_common_encodings():
    fields = {"keywords": ["a"], "keywords[]": ["b", "c"], "keywords[0]": ["d"]}
    assert OpenAIOptions.from_form(fields).keywords == ["a", "b", "c", "d"]


def test_a_chunking_strategy_is_accepted_as_a_word_as_json_or_in_brackets():
    vad = {"type": "server_vad", "threshold": 0.4}
    assert (
        upstream_parameters("gpt-4o-transcribe", chunking_strategy="auto")["chunking_strategy"]
        == "auto"
    )
    as_json = upstream_parameters(
        "gpt-4o-transcribe", chunking_strategy='{"type": "server_vad", "threshold": 0.4}'
    )
    assert as_json["chunking_strategy"] == vad
    bracketed = {"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "0.4"}
    assert upstream_parameters("gpt-4o-transcribe", **bracketed)["chunking_strategy"] == vad


def test_the_diarization_model_gets_its_required_chunking_strategy():
    assert upstream_parameters("gpt-4o-transcribe-diarize")["chunking_strategy"] == "auto"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("language", "english please"),
        ("temperature", "hot"),
        ("temperature", "1.5"),
        ("response_format", "docx"),
        ("keywords", "<b>"),
        ("keywords", "two\nlines"),
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
def test_an_invalid_value_is_rejected_with_the_name_of_the_option(option, value):
    with pytest.raises(InvalidOption) as refusal:
        upstream_parameters("gpt-4o-transcribe", **{option: value})
    assert refusal.value.option == option.partition("[")[0]
    assert option.partition("[")[0] in refusal.value.detail


def test_an_option_in_two_encodings_is_rejected():
    with pytest.raises(InvalidOption, match="more than once"):
        upstream_parameters(
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
def test_an_option_without_its_required_format_is_rejected_with_that_format(model, fields, needs):
    with pytest.raises(InvalidOption, match=needs):
        upstream_parameters(model, **fields)


def test_an_empty_field_is_ignored():
    assert upstream_parameters(
        "gpt-transcribe", language="", prompt="", keywords="", temperature=""
    ) == upstream_parameters("gpt-transcribe")


def test_stream_false_is_accepted():
    assert upstream_parameters("gpt-transcribe", stream="false") == upstream_parameters(
        "gpt-transcribe"
    )


def test_a_model_is_replaced_by_the_default_after_its_shutdown():
    assert models(date(2027, 2, 25)).get("whisper-1").name == "whisper-1"
    assert models(date(2027, 2, 26)).get("whisper-1").name == "gpt-transcribe"
    assert models(date(2040, 1, 1)).get("gpt-transcribe").name == "gpt-transcribe"
    with pytest.raises(InvalidOption, match="Supported models: gpt-transcribe"):
        models().get("whisper-9")


def test_a_model_has_a_warning_from_180_days_before_its_shutdown():
    upstream = (Upstream(OPENAI_URL),)

    def warning(model, day):
        return Models(model, upstream, lambda: day).warning()

    assert warning("whisper-1", date(2026, 8, 29)) is None
    assert "2027-02-26" in warning("whisper-1", date(2026, 8, 30))
    assert "Steno uses gpt-transcribe instead" in warning("whisper-1", date(2027, 2, 26))
    assert warning("gpt-transcribe", date(2040, 1, 1)) is None
