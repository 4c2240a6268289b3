"""How a caller wants a recording transcribed, and what of it the model honours."""

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
from handler.transcription.field_errors import remedy
from handler.transcripts.formats import FORMATS, TIMED_FORMATS
from handler.upstream.models import MODEL_NAME, MODELS, Model, able

if TYPE_CHECKING:
    FormatName = str
    OpenAIFormatName = str
else:
    FormatName = Literal[tuple(FORMATS)]
    OpenAIFormatName = Literal[(*FORMATS, "diarized_json")]

_LONGEST_KEYWORD = 100
_LANGUAGE = re.compile(r"([A-Za-z]{2,3})([-_][A-Za-z0-9]+)*")
_BRACKETS = re.compile(r"(\w+)\[(\w*)\]")


def _primary_language(tag: str) -> str:
    """`en-US`, as browsers say it, is `en` to the upstream."""
    match = _LANGUAGE.fullmatch(tag.strip())
    if not match:
        raise ValueError("give a language code such as en, de or pt-BR")
    return match[1].lower()


def _plain_keyword(text: str) -> str:
    if re.search(r"[<>\r\n]", text):
        raise ValueError(
            "a keyword cannot hold <, > or a line break: OpenAI would refuse the whole request"
        )
    return text


def _plain_name(text: str) -> str:
    if text and not MODEL_NAME.fullmatch(text):
        raise ValueError(
            "a model's name has at most 200 characters, all of them printable ASCII without spaces"
        )
    return text


# Beyond these, no job could be stored with its options.
_LONGEST_PROMPT = 20_000
_LONGEST_KEYWORDS = 20_000  # all together
_MOST_KEYWORDS = 1_000
_MOST_LANGUAGES = 100
ModelName = Annotated[
    str, AfterValidator(_plain_name), Field(json_schema_extra={"enum": [*MODELS]})
]
Language = Annotated[
    str,
    AfterValidator(_primary_language),
    Field(json_schema_extra={"pattern": rf"^\s*{_LANGUAGE.pattern}\s*$"}),
]
Keyword = Annotated[
    str,
    Field(max_length=_LONGEST_KEYWORD, json_schema_extra={"pattern": r"^[^<>\r\n]*$"}),
    AfterValidator(_plain_keyword),
]


class ServerVad(BaseModel):
    """OpenAI's own voice activity detection and its thresholds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["server_vad"]
    prefix_padding_ms: int | None = None
    silence_duration_ms: int | None = None
    threshold: float | None = None


_CHUNKING_SCHEMA = {
    "type": "string",
    "description": "`auto`, or OpenAI's `server_vad` object as JSON.",
}


class Options(BaseModel):
    """What all routes that transcribe take; a list is a field that may be repeated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelName | None = Field(
        None, description="One of `GET /v1/models`; without it, the server's own choice."
    )
    language: Language | None = Field(
        None, description="What is spoken: ISO 639-1 (`en`) or BCP 47 (`en-US`)."
    )
    prompt: str | None = Field(
        None, max_length=_LONGEST_PROMPT, description="Context that helps: names, spelling, style."
    )
    keywords: list[Keyword] = Field(
        [], max_length=_MOST_KEYWORDS, description="Words to expect; repeat the field for each."
    )
    response_format: str = "json"
    temperature: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)

    @field_validator("keywords")
    @classmethod
    def _not_too_long(cls, keywords: list[str]) -> list[str]:
        if sum(map(len, keywords)) > _LONGEST_KEYWORDS:
            raise ValueError(f"all keywords together have at most {_LONGEST_KEYWORDS:,} characters")
        return keywords

    @classmethod
    def from_form(cls, fields: Mapping[str, Sequence[str]]) -> Self:
        """The options in a form's fields; `keywords[]` is `keywords`, and a field left empty was not given."""
        given: dict[str, Any] = {}
        for field, values in fields.items():
            _add_field(given, field, [value for value in values if value])
        for option in given:
            if option not in cls.model_fields:
                there_are = ", ".join(cls.model_fields)
                raise InvalidOption(
                    option, f"There is no option `{option[:100]}` here. There are: {there_are}."
                )
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            option = str(first["loc"][0])
            raise InvalidOption(option, f"`{option}`: {remedy(first)}.") from None

    @property
    def unsupported_in_jobs(self) -> list[str]:
        """The given options that a job's transcript, which is joined of parts, has no place for."""
        return []

    def job_options(self, model: Model) -> dict[str, Any]:
        """What a job has to know: of the format no more than whether the text is to be laid on the sound, for the rest
        is made of its transcript."""
        told = self.model_dump(
            exclude_defaults=True, exclude={"response_format", "timestamp_granularities"}
        )
        times = {"response_format": "verbose_json"} if self.needs_alignment(model) else {}
        return told | {"model": model.name} | times

    def needs_alignment(self, model: Model) -> bool:
        """Whether times are asked of a model that tells none, so that the text is laid on the sound."""
        return self.response_format in TIMED_FORMATS and model.timed_format is None

    def upstream_parameters(self, model: Model, today: date) -> dict[str, Any]:
        """The upstream's parameters for `model`; InvalidOption for one that it would refuse or ignore."""
        self._reject_ignored_options(model, today)
        parameters = self.model_dump(include=self._passed_on(), exclude_defaults=True)
        if model.speakers:  # required by the upstream beyond 30 s
            parameters.setdefault("chunking_strategy", "auto")
        return {
            "model": model.name,
            "response_format": self._upstream_format(model, today),
            **_language_hint(self._languages(), model, today),
            **parameters,
        }

    def _passed_on(self) -> set[str]:
        return {"prompt", "keywords", "temperature"}

    def _languages(self) -> list[str]:
        return [self.language] if self.language else []

    def _reject_ignored_options(self, model: Model, today: date) -> None:
        for option, ability in _ABILITIES.items():
            given = getattr(self, option, None) not in (None, "", [])
            if given and not getattr(model, ability):
                raise _unsupported(option, f"does not honour `{option}`", model, ability, today)

    def _upstream_format(self, model: Model, today: date) -> str:
        """Texts and subtitles are rendered here, so the upstream is only ever asked for a body that tells more."""
        if self.response_format == "diarized_json" and not model.speakers:
            raise _unsupported(
                "response_format", "does not tell speakers apart", model, "speakers", today
            )
        if self.response_format == "diarized_json":
            return "diarized_json"
        if self.response_format not in TIMED_FORMATS:
            return "json"
        return model.timed_format or "json"


class TranscribeOptions(Options):
    """Those of `/api/transcribe` and of uploads."""

    response_format: FormatName = "json"

    @field_validator("response_format", mode="before")
    @classmethod
    def _has_a_place(cls, response_format: object) -> object:
        if response_format == "diarized_json":
            raise ValueError(
                "diarized_json is for /v1/audio/transcriptions; here, verbose_json tells the speakers"
            )
        return response_format


class OpenAIOptions(Options):
    """All of OpenAI's transcription parameters."""

    languages: list[Language] = Field(
        [], max_length=_MOST_LANGUAGES, description="Several languages that may be spoken."
    )
    response_format: OpenAIFormatName = "json"
    include: list[Literal["logprobs"]] = []
    timestamp_granularities: list[Literal["word", "segment"]] = []
    chunking_strategy: Annotated[
        Literal["auto"] | ServerVad | None, WithJsonSchema(_CHUNKING_SCHEMA)
    ] = None
    known_speaker_names: list[str] = Field([], max_length=4)
    known_speaker_references: list[str] = Field([], max_length=4)
    stream: bool = Field(
        False, description="Only `false`: answers come whole.", json_schema_extra={"const": False}
    )

    @field_validator("stream")
    @classmethod
    def _whole_answers_only(cls, stream: bool) -> bool:
        if stream:
            raise ValueError("Steno answers with the whole transcript; leave `stream` out")
        return stream

    @field_validator("chunking_strategy", mode="wrap")
    @classmethod
    def _from_json(cls, strategy: object, validate: ValidatorFunctionWrapHandler) -> object:
        try:
            as_json = isinstance(strategy, str) and strategy.startswith("{")
            return validate(json.loads(str(strategy)) if as_json else strategy)
        except (ValueError, RecursionError):
            raise ValueError("give `auto`, or OpenAI's `server_vad` object as JSON") from None

    @property
    def unsupported_in_jobs(self) -> list[str]:
        taken = {*Options.model_fields, "languages", "stream"}
        if not self._word_times:
            taken.add("timestamp_granularities")
        speakers = ["response_format"] if self.response_format == "diarized_json" else []
        return speakers + [
            option for option in type(self).model_fields if option in self.model_fields_set - taken
        ]

    @property
    def _word_times(self) -> bool:
        """Segments are told in any case."""
        return "word" in self.timestamp_granularities

    def _passed_on(self) -> set[str]:
        more = {"include", "chunking_strategy", "known_speaker_names", "known_speaker_references"}
        words = {"timestamp_granularities"} if self._word_times else set()
        return super()._passed_on() | more | words

    def _languages(self) -> list[str]:
        return list(dict.fromkeys([*super()._languages(), *self.languages]))

    def _reject_ignored_options(self, model: Model, today: date) -> None:
        super()._reject_ignored_options(model, today)
        if self._word_times and not model.word_times:
            raise _unsupported(
                "timestamp_granularities",
                "does not tell when words were said",
                model,
                "word_times",
                today,
            )
        for option, response_format in (
            ("timestamp_granularities", "verbose_json"),
            ("include", "json"),
        ):
            if getattr(self, option) and self.response_format != response_format:
                raise InvalidOption(option, f"`{option}` needs response_format={response_format}.")


_ABILITIES = {  # of a model, that an option needs
    "prompt": "prompt",
    "keywords": "keywords",
    "temperature": "temperature",
    "include": "logprobs",
    "chunking_strategy": "chunking",
    "known_speaker_names": "speakers",
    "known_speaker_references": "speakers",
}


def _language_hint(spoken: list[str], model: Model, today: date) -> dict[str, Any]:
    if not spoken:
        return {}
    if model.several_languages:
        return {"languages": spoken}
    if len(spoken) > 1:
        raise _unsupported(
            "languages", "takes one language only", model, "several_languages", today
        )
    return {"language": spoken[0]}


_REPEATABLE = {name for name, field in OpenAIOptions.model_fields.items() if field.default == []}


def _unsupported(
    option: str, reason: str, model: Model, ability: str, today: date
) -> InvalidOption:
    if not model.known:
        return InvalidOption(
            option,
            f"`{option}` cannot be passed on as it is given: Steno does not know what {model.name} can do,"
            " and sends `language`, `prompt` and response_format=json alone.",
        )
    return InvalidOption(
        option, f"{model.name} {reason}. {able(ability, today, elsewhere=model.elsewhere)}"
    )


def _add_field(given: dict[str, Any], field: str, values: list[str]) -> None:
    match = _BRACKETS.fullmatch(field)
    name, key = match.groups() if match else (field, "")
    if name in _REPEATABLE:  # `keywords`, `keywords[]` and `keywords[0]` are the same
        given.setdefault(name, []).extend(values)
        return
    nested = key and isinstance(given.get(name, {}), dict)
    if len(values) > 1 or (values and name in given and not nested):
        raise InvalidOption(name, f"`{name}` was given more than once.")
    for value in values:
        if key:
            given.setdefault(name, {})[key] = value
        else:
            given[name] = value
