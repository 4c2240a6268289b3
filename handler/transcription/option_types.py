"""The types of transcription options: their limits, validation and schema."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from handler.upstream.models import MODEL_NAME
from handler.upstream.profiles import servers

_MAX_KEYWORD_LENGTH = 100
_LANGUAGE = re.compile(r"([A-Za-z]{2,3})([-_][A-Za-z0-9]+)*")


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


# With larger options, the item of a job could exceed DynamoDB's maximum item size.
MAX_PROMPT_LENGTH = 20_000
MAX_KEYWORDS_LENGTH = 20_000  # of all keywords together
MAX_KEYWORDS = 1_000
MAX_LANGUAGES = 100
ModelName = Annotated[
    str,
    AfterValidator(_validate_model_name),
    Field(json_schema_extra={"enum": [*servers()["openai"].models]}),
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
    """OpenAI's `server_vad` chunking strategy: the settings for voice activity detection."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["server_vad"]
    prefix_padding_ms: int | None = None
    silence_duration_ms: int | None = None
    threshold: float | None = None


CHUNKING_SCHEMA = {
    "type": "string",
    "description": "`auto` or OpenAI's `server_vad` object as JSON.",
}
