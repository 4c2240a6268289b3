"""Transcription options: their validation, and the upstream parameters that a model supports."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
)

from handler.errors import InvalidOption
from handler.transcription.field_errors import field_error
from handler.transcripts.formats import FORMATS, TIMED_FORMATS
from handler.upstream.models import MODEL_NAME, MODELS, Model, suggest_models

if TYPE_CHECKING:
    FormatName = str
    OpenAIFormatName = str
else:
    FormatName = Literal[tuple(FORMATS)]
    OpenAIFormatName = Literal[(*FORMATS, "diarized_json")]

_MAX_KEYWORD_LENGTH = 100
_LANGUAGE = re.compile(r"([A-Za-z]{2,3})([-_][A-Za-z0-9]+)*")
_BRACKETS = re.compile(r"(\w+)\[(\w*)\]")


def _primary_language(tag: str) -> str:
    """Return the primary language of a BCP 47 tag, such as `en` for `en-US`.

    The upstream accepts only primary languages.
    """
    match = _LANGUAGE.fullmatch(tag.strip())
    if not match:
        raise ValueError("must be a language code such as en, de or pt-BR")
    return match[1].lower()


def _validate_keyword(text: str) -> str:
    if re.search(r"[<>\r\n]", text):
        raise ValueError(
            "must not contain <, > or line breaks, because OpenAI rejects requests with such"
            " keywords"
        )
    return text


def _validate_model_name(text: str) -> str:
    if text and not MODEL_NAME.fullmatch(text):
        raise ValueError(
            "must have at most 200 characters, all of them printable ASCII without spaces"
        )
    return text


# With larger options, the item of a job could exceed the size that DynamoDB stores.
_MAX_PROMPT_LENGTH = 20_000
_MAX_KEYWORDS_LENGTH = 20_000  # the total of all keywords
_MAX_KEYWORDS = 1_000
_MAX_LANGUAGES = 100
ModelName = Annotated[
    str, AfterValidator(_validate_model_name), Field(json_schema_extra={"enum": [*MODELS]})
]
Language = Annotated[
    str,
    AfterValidator(_primary_language),
    Field(json_schema_extra={"pattern": rf"^\s*{_LANGUAGE.pattern}\s*$"}),
]
Keyword = Annotated[
    str,
    Field(max_length=_MAX_KEYWORD_LENGTH, json_schema_extra={"pattern": r"^[^<>\r\n]*$"}),
    AfterValidator(_validate_keyword),
]


class ServerVad(BaseModel):
    """OpenAI's `server_vad` chunking strategy: voice activity detection with these thresholds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["server_vad"]
    prefix_padding_ms: int | None = None
    silence_duration_ms: int | None = None
    threshold: float | None = None


_CHUNKING_SCHEMA = {
    "type": "string",
    "description": "`auto` or OpenAI's `server_vad` object as JSON.",
}


class Options(BaseModel):
    """The options of all transcription routes. In a form, a list is a repeated field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelName | None = Field(
        None,
        description="A model listed by `GET /v1/models`. Default: the server's configured model.",
    )
    language: Language | None = Field(
        None, description="Language of the recording: ISO 639-1 (`en`) or BCP 47 (`en-US`)."
    )
    prompt: str | None = Field(
        None,
        max_length=_MAX_PROMPT_LENGTH,
        description="Context for the model, such as names, spelling and style.",
    )
    keywords: list[Keyword] = Field(
        [],
        max_length=_MAX_KEYWORDS,
        description="Words that may occur in the recording. Repeat the field for each keyword.",
    )
    response_format: str = "json"
    temperature: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Sampling temperature of the model, from 0 to 1.",
    )

    @field_validator("keywords")
    @classmethod
    def _check_total_length(cls, keywords: list[str]) -> list[str]:
        if sum(map(len, keywords)) > _MAX_KEYWORDS_LENGTH:
            raise ValueError(
                f"must have at most {_MAX_KEYWORDS_LENGTH:,} characters in all keywords together"
            )
        return keywords

    @classmethod
    def from_form(cls, fields: Mapping[str, Sequence[str]]) -> Self:
        """Return the options in the fields of a form.

        `keywords[]` is read as `keywords`. An empty field counts as omitted.
        Raises InvalidOption if a field is unknown or invalid.
        """
        options: dict[str, Any] = {}
        for field, values in fields.items():
            _add_field(options, field, [value for value in values if value])
        for option in options:
            if option not in cls.model_fields:
                supported = ", ".join(cls.model_fields)
                raise InvalidOption(
                    option,
                    f"`{option[:100]}` is not an option of this route. Options: {supported}.",
                )
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            first = error.errors()[0]
            option = str(first["loc"][0])
            raise InvalidOption(option, field_error(option, first)) from None

    @property
    def unsupported_in_jobs(self) -> list[str]:
        """Return the names of the options in use that jobs do not support.

        The results of these options cannot be joined across the parts of a job.
        """
        return []

    def job_options(self, model: Model) -> dict[str, Any]:
        """Return the options to store with a job.

        They contain a response format only if the text needs alignment, because all formats are
        rendered from the stored transcript.
        """
        options = self.model_dump(
            exclude_defaults=True, exclude={"response_format", "timestamp_granularities"}
        )
        options["model"] = model.name
        if self.needs_alignment(model):
            options["response_format"] = "verbose_json"
        return options

    def needs_alignment(self, model: Model) -> bool:
        """Return whether the format needs timestamps that the model does not return.

        Steno then computes them by aligning the text with the audio.
        """
        return self.response_format in TIMED_FORMATS and model.timed_format is None

    def upstream_parameters(self, model: Model, today: date) -> dict[str, Any]:
        """Return the parameters of the upstream request for `model`.

        Raises InvalidOption if the model would reject or ignore one of the options.
        """
        self._reject_ignored_options(model, today)
        parameters = self.model_dump(include=self._forwarded_options(), exclude_defaults=True)
        if model.diarization:  # the upstream requires a strategy for recordings longer than 30 s
            parameters.setdefault("chunking_strategy", "auto")
        return {
            "model": model.name,
            "response_format": self._upstream_format(model, today),
            **_language_parameter(self._languages(), model, today),
            **parameters,
        }

    def _forwarded_options(self) -> set[str]:
        return {"prompt", "keywords", "temperature"}

    def _languages(self) -> list[str]:
        return [self.language] if self.language else []

    def _reject_ignored_options(self, model: Model, today: date) -> None:
        for option, ability in _ABILITIES.items():
            in_use = getattr(self, option, None) not in (None, "", [])
            if in_use and not getattr(model, ability):
                problem = f"`{option}` is not supported by {model.name}."
                raise _unsupported(option, problem, model, ability, today)

    def _upstream_format(self, model: Model, today: date) -> str:
        """Return the format to request from the upstream.

        It is always a JSON format, because Steno renders text and subtitles itself.
        """
        if self.response_format == "diarized_json" and not model.diarization:
            problem = f"response_format=diarized_json is not supported by {model.name}."
            raise _unsupported("response_format", problem, model, "diarization", today)
        if self.response_format == "diarized_json":
            return "diarized_json"
        if self.response_format not in TIMED_FORMATS:
            return "json"
        return model.timed_format or "json"


class TranscribeOptions(Options):
    """The options of `/api/transcribe` and `/api/uploads`."""

    response_format: FormatName = Field("json", description="Format of the transcript.")

    @field_validator("response_format", mode="before")
    @classmethod
    def _reject_diarized_json(cls, response_format: object) -> object:
        if response_format == "diarized_json":
            raise ValueError(
                "must not be `diarized_json` on this route. Use `verbose_json`, which includes the"
                " speakers, or the route /v1/audio/transcriptions"
            )
        return response_format


class OpenAIOptions(Options):
    """The options of `/v1/audio/transcriptions`: all transcription parameters of OpenAI's API."""

    languages: list[Language] = Field(
        [], max_length=_MAX_LANGUAGES, description="Languages that may be spoken."
    )
    response_format: OpenAIFormatName = Field("json", description="Format of the transcript.")
    include: list[Literal["logprobs"]] = Field(
        [], description="More data to return. Needs `response_format=json`."
    )
    timestamp_granularities: list[Literal["word", "segment"]] = Field(
        [], description="Which times to return. Needs `response_format=verbose_json`."
    )
    chunking_strategy: Annotated[
        Literal["auto"] | ServerVad | None, WithJsonSchema(_CHUNKING_SCHEMA)
    ] = None
    known_speaker_names: list[str] = Field(
        [], max_length=4, description="Names of known speakers, in the order of their samples."
    )
    known_speaker_references: list[str] = Field(
        [], max_length=4, description="Samples of known speakers, as data URLs of 2 to 10 seconds."
    )
    stream: bool = Field(
        False,
        description="Only `false` is supported: the response is the complete transcript.",
        json_schema_extra={"const": False},
    )

    @field_validator("stream")
    @classmethod
    def _reject_streaming(cls, stream: bool) -> bool:
        if stream:
            raise ValueError(
                "must be `false` or omitted, because Steno does not stream transcripts"
            )
        return stream

    @field_validator("chunking_strategy", mode="wrap")
    @classmethod
    def _parse_json(cls, strategy: object, validate: ValidatorFunctionWrapHandler) -> object:
        try:
            is_json = isinstance(strategy, str) and strategy.startswith("{")
            return validate(json.loads(str(strategy)) if is_json else strategy)
        except (ValueError, RecursionError):
            raise ValueError("must be `auto` or OpenAI's `server_vad` object as JSON") from None

    @property
    def unsupported_in_jobs(self) -> list[str]:
        supported = {*Options.model_fields, "languages", "stream"}
        if not self._wants_word_timestamps:
            supported.add("timestamp_granularities")
        unsupported = self.model_fields_set - supported
        diarized = ["response_format"] if self.response_format == "diarized_json" else []
        return diarized + [option for option in type(self).model_fields if option in unsupported]

    @property
    def _wants_word_timestamps(self) -> bool:
        return "word" in self.timestamp_granularities

    def _forwarded_options(self) -> set[str]:
        options = super()._forwarded_options()
        options |= {"include", "chunking_strategy"}
        options |= {"known_speaker_names", "known_speaker_references"}
        if self._wants_word_timestamps:  # timestamps of segments do not need the parameter
            options.add("timestamp_granularities")
        return options

    def _languages(self) -> list[str]:
        return list(dict.fromkeys([*super()._languages(), *self.languages]))

    def _reject_ignored_options(self, model: Model, today: date) -> None:
        super()._reject_ignored_options(model, today)
        if self._wants_word_timestamps and not model.word_timestamps:
            option = "timestamp_granularities"
            problem = f"{option}=word is not supported by {model.name}."
            raise _unsupported(option, problem, model, "word_timestamps", today)
        for option, response_format in (
            ("timestamp_granularities", "verbose_json"),
            ("include", "json"),
        ):
            if getattr(self, option) and self.response_format != response_format:
                raise InvalidOption(
                    option, f"`{option}` requires response_format={response_format}. Set it too."
                )


# The attribute of Model that each option requires.
_ABILITIES = {
    "prompt": "prompt",
    "keywords": "keywords",
    "temperature": "temperature",
    "include": "logprobs",
    "chunking_strategy": "chunking",
    "known_speaker_names": "diarization",
    "known_speaker_references": "diarization",
}


def _language_parameter(languages: list[str], model: Model, today: date) -> dict[str, Any]:
    if not languages:
        return {}
    if model.several_languages:
        return {"languages": languages}
    if len(languages) > 1:
        problem = f"{model.name} supports only one language."
        raise _unsupported("languages", problem, model, "several_languages", today)
    return {"language": languages[0]}


_REPEATABLE = {name for name, field in OpenAIOptions.model_fields.items() if field.default == []}


def _unsupported(
    option: str, problem: str, model: Model, ability: str, today: date
) -> InvalidOption:
    """Return the error for an option that the model does not support. It suggests other models."""
    if not model.documented:
        return InvalidOption(
            option,
            f"This value of `{option}` is not supported: {model.name} is not in Steno's table of"
            " models. Steno sends only `language`, `prompt` and response_format=json to such"
            f" models. Change or remove `{option}`.",
        )
    models = suggest_models(ability, today, at_other_host=model.at_other_host)
    return InvalidOption(option, f"{problem} {models}")


def _add_field(options: dict[str, Any], field: str, values: list[str]) -> None:
    """Add the values of a form field to `options`. `name[key]` sets one key of a nested object."""
    match = _BRACKETS.fullmatch(field)
    name, key = match.groups() if match else (field, "")
    if name in _REPEATABLE:  # `keywords`, `keywords[]` and `keywords[0]` are the same
        options.setdefault(name, []).extend(values)
        return
    nested = key and isinstance(options.get(name, {}), dict)
    if len(values) > 1 or (values and name in options and not nested):
        raise InvalidOption(name, f"`{name}` was given more than once. Send it once.")
    for value in values:
        if key:
            options.setdefault(name, {})[key] = value
        else:
            options[name] = value
