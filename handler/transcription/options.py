"""Validates transcription options, and converts them to the upstream parameters for a model."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
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
from handler.transcription.option_types import (
    CHUNKING_SCHEMA,
    MAX_KEYWORDS,
    MAX_KEYWORDS_LENGTH,
    MAX_LANGUAGES,
    MAX_PROMPT_LENGTH,
    Keyword,
    Language,
    ModelName,
    ServerVad,
)
from handler.transcripts.formats import FORMATS, TIMED_FORMATS
from handler.upstream.models import Models
from handler.upstream.profiles import Model

if TYPE_CHECKING:
    FormatName = str
    OpenAIFormatName = str
else:
    FormatName = Literal[tuple(FORMATS)]
    OpenAIFormatName = Literal[(*FORMATS, "diarized_json")]

# The options that only affect the response. Release 0.1 would reject two of them in a job.
_NOT_IN_JOBS = {"response_format", "timestamp_granularities", "stream"}
_BRACKETS = re.compile(r"(\w+)\[(\w*)\]")


class Options(BaseModel):
    """The options of all transcription routes. In a form, a list is sent as a repeated field."""

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
        max_length=MAX_PROMPT_LENGTH,
        description="Context for the model, such as names, spelling and style.",
    )
    keywords: list[Keyword] = Field(
        [],
        max_length=MAX_KEYWORDS,
        description="Words that may occur in the recording. Repeat the field for each keyword.",
    )
    response_format: str = "json"
    timestamp_granularities: list[Literal["word", "segment"]] = Field(
        [],
        description="Timestamps to return. Requires `response_format=verbose_json`."
        " Default: `segment`.",
    )
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
        if sum(map(len, keywords)) > MAX_KEYWORDS_LENGTH:
            raise ValueError(f"must have at most {MAX_KEYWORDS_LENGTH:,} characters in total")
        return keywords

    @classmethod
    def from_form(cls, fields: Mapping[str, Sequence[str]]) -> Self:
        """Create the options from the fields of a form.

        `keywords[]` is read as `keywords`. An empty field is treated as omitted.
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
        """Return the names of the options in this request that jobs do not support.

        The results of these options cannot be joined across the parts of a job.
        """
        return []

    def job_options(self, model: Model) -> dict[str, Any]:
        """Return the options to store with a job.

        The requested response format is not stored, because all formats are rendered from the
        stored transcript. If the text must be aligned, `verbose_json` is stored instead.
        """
        options = self.model_dump(exclude_defaults=True, exclude=_NOT_IN_JOBS)
        options["model"] = model.full_name
        if self.needs_alignment(model):
            options["response_format"] = "verbose_json"
        return options

    def needs_alignment(self, model: Model) -> bool:
        """Return whether the format requires timestamps that the model does not return.

        Steno then computes them by aligning the text with the audio.
        """
        has_timestamps = model.timestamps is not None and not self._excludes_timestamps(model)
        return self.response_format in TIMED_FORMATS and not has_timestamps

    def needs_word_alignment(self, model: Model) -> bool:
        """Return whether the request requires word timestamps that the model does not return."""
        has_words = model.word_timestamps and not self.needs_alignment(model)
        return "word" in self.timestamp_granularities and not has_words

    def _excludes_timestamps(self, model: Model) -> bool:
        return model.timestamps_exclude_language and bool(self._languages())

    def upstream_parameters(self, model: Model, models: Models) -> dict[str, Any]:
        """Return the parameters of the upstream request for `model`.

        Raises InvalidOption if the model would reject or ignore one of the options. The error
        message suggests models from `models` that support the option.
        """
        self._reject_ignored_options(model, models)
        parameters = self.model_dump(include=self._forwarded_options(), exclude_defaults=True)
        if keywords := parameters.pop("keywords", None):
            spaced = [keyword.replace(" ", model.keyword_space) for keyword in keywords]
            parameters[str(model.keyword_field)] = spaced
        if model.diarization and model.chunking:  # required for recordings longer than 30 s
            parameters.setdefault("chunking_strategy", "auto")
        return {
            "model": model.name,
            **self._format_parameters(model, models),
            **_language_parameter(self._languages(), model, models),
            **parameters,
        }

    def _forwarded_options(self) -> set[str]:
        return {"prompt", "keywords", "temperature"}

    def _languages(self) -> list[str]:
        return [self.language] if self.language else []

    def _reject_ignored_options(self, model: Model, models: Models) -> None:
        for option, ability in _ABILITIES.items():
            in_use = getattr(self, option, None) not in (None, "", [])
            if in_use and not getattr(model, ability):
                problem = f"`{option}` is not supported by {model.name}."
                raise _unsupported(option, problem, model, ability, models)
        check_granularities(self.timestamp_granularities, self.response_format)

    def _format_parameters(self, model: Model, models: Models) -> dict[str, Any]:
        """Return the parameters that select the content of the upstream's response.

        Steno always requests a JSON format, because it renders text and subtitles itself.
        """
        if self.response_format == "diarized_json" and not model.diarization:
            problem = f"response_format=diarized_json is not supported by {model.name}."
            raise _unsupported("response_format", problem, model, "diarization", models)
        if self.response_format == "diarized_json" and self._excludes_timestamps(model):
            problem = f"`language` cannot be combined with diarized_json at {model.name}."
            raise InvalidOption("language", f"{problem} Remove `language`.")
        parameters: dict[str, Any] = {"response_format": "json"} if model.response_format else {}
        if self.response_format == "diarized_json":
            return parameters | dict(model.diarization or {})
        if self.response_format not in TIMED_FORMATS or self.needs_alignment(model):
            return parameters
        parameters |= dict(model.timestamps or {})
        if model.word_timestamps:
            # Always request both, so that a later request for the other one is not billed.
            parameters["timestamp_granularities"] = ["word", "segment"]
        return parameters


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
        [], max_length=MAX_LANGUAGES, description="Languages that may be spoken in the recording."
    )
    response_format: OpenAIFormatName = Field("json", description="Format of the transcript.")
    include: list[Literal["logprobs"]] = Field(
        [], description="Additional data to return. Requires `response_format=json`."
    )
    chunking_strategy: Annotated[
        Literal["auto"] | ServerVad | None, WithJsonSchema(CHUNKING_SCHEMA)
    ] = None
    known_speaker_names: list[str] = Field(
        [],
        max_length=4,
        description="Names of known speakers, in the same order as their audio samples.",
    )
    known_speaker_references: list[str] = Field(
        [],
        max_length=4,
        description="Audio samples of known speakers, as data URLs, each 2 to 10 seconds long.",
    )
    stream: bool = Field(
        False,
        description="Whether to return the transcript as server-sent events. Subtitles and word"
        " timestamps cannot be streamed.",
    )

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
        unsupported = self.model_fields_set - supported
        diarized = ["response_format"] if self.response_format == "diarized_json" else []
        return diarized + [option for option in type(self).model_fields if option in unsupported]

    def _forwarded_options(self) -> set[str]:
        options = super()._forwarded_options()
        options |= {"include", "chunking_strategy"}
        return options | {"known_speaker_names", "known_speaker_references"}

    def _languages(self) -> list[str]:
        return list(dict.fromkeys([*super()._languages(), *self.languages]))

    def _reject_ignored_options(self, model: Model, models: Models) -> None:
        super()._reject_ignored_options(model, models)
        if self.include and self.response_format != "json":
            raise InvalidOption("include", "`include` requires response_format=json. Set it too.")
        has_words = "word" in self.timestamp_granularities
        if self.stream and (self.response_format in ("srt", "vtt") or has_words):
            raise InvalidOption(
                "stream",
                "`stream` cannot be combined with subtitles or word timestamps. Remove `stream`.",
            )


def check_granularities(granularities: Sequence[str], response_format: str) -> None:
    """Raise InvalidOption if granularities are given for a format that has no timestamps."""
    if granularities and response_format != "verbose_json":
        raise InvalidOption(
            "timestamp_granularities",
            "`timestamp_granularities` requires response_format=verbose_json. Set it too.",
        )


# The attribute of Model that each option requires.
_ABILITIES = {
    "prompt": "prompt",
    "keywords": "keyword_field",
    "temperature": "temperature",
    "include": "logprobs",
    "chunking_strategy": "chunking",
    "known_speaker_names": "known_speakers",
    "known_speaker_references": "known_speakers",
}


def _language_parameter(languages: list[str], model: Model, models: Models) -> dict[str, Any]:
    if not languages:
        return {}
    if model.language_field is None:
        problem = f"`language` is not supported by {model.name}."
        raise _unsupported("language", problem, model, "language_field", models)
    if model.several_languages:
        return {model.language_field: languages}
    if len(languages) > 1:
        problem = f"{model.name} supports only one language."
        raise _unsupported("languages", problem, model, "several_languages", models)
    return {model.language_field: languages[0]}


_REPEATABLE = {name for name, field in OpenAIOptions.model_fields.items() if field.default == []}


def _unsupported(
    option: str, problem: str, model: Model, ability: str, models: Models
) -> InvalidOption:
    """Return the error for an option that the model does not support, and suggest other models."""
    if not model.is_documented:
        return InvalidOption(
            option,
            f"This value of `{option}` is not supported: Steno has no profile for {model.name}, so"
            " it sends only `language`, `prompt` and response_format=json to this model. Change or"
            f" remove `{option}`. The server's owner can add a profile with the setting MODELS.",
        )
    return InvalidOption(option, f"{problem} {models.suggest(ability)}")


def _add_field(options: dict[str, Any], field: str, values: list[str]) -> None:
    """Add the values of a form field to `options`. `name[key]` sets one key of a nested object."""
    match = _BRACKETS.fullmatch(field)
    name, key = match.groups() if match else (field, "")
    if name in _REPEATABLE:  # `keywords`, `keywords[]` and `keywords[0]` are equivalent
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
