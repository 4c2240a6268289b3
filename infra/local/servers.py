"""Rules of transcription servers other than OpenAI, for the offline engine.

The engine emulates these servers below `/groq/v1`, `/mistral/v1`, `/azure/v1` and `/speaches/v1`.
The rules follow the documentation of the servers and do not use the profiles in `handler/upstream`,
so that tests fail if a profile is wrong.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class RequestError(Exception):
    """A client error. `error` describes it in OpenAI's format."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = {
            "message": message,
            "type": "invalid_request_error",
            "param": param,
            "code": code,
        }


def _format_error(error: dict[str, Any]) -> dict[str, Any]:
    return {"error": error}


@dataclass(frozen=True)
class ServerRules:
    """The rules of one server.

    `fields` are the form fields that the server accepts, and `formats` the values that it accepts
    for `response_format`. `has_model` returns whether the server has a model. `reshape` converts
    the body of a JSON response from OpenAI's format to the server's format. `format_error` converts
    an error to the server's format.
    """

    fields: frozenset[str]
    formats: frozenset[str]
    has_model: Callable[[str], bool]
    reshape: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] = lambda body, _: body
    format_error: Callable[[dict[str, Any]], dict[str, Any]] = _format_error

    def check(self, fields: dict[str, Any]) -> None:
        """Raise RequestError if the server rejects the form fields of a request."""
        model = str(fields.get("model", ""))
        if not self.has_model(model):
            raise RequestError(404, f"The model `{model}` does not exist.", code="model_not_found")
        if unknown := fields.keys() - self.fields:
            raise RequestError(422, f"Unknown field: {min(unknown)}", min(unknown))
        response_format = fields.get("response_format", "json")
        if response_format not in self.formats:
            raise RequestError(400, f"Unknown format: {response_format}", "response_format")
        if "context_bias[]" in fields and any(
            set(" ,") & set(word) for word in fields["context_bias[]"]
        ):
            raise RequestError(422, "context_bias must not contain spaces", "context_bias")
        if "diarize" in self.fields and {"language", "timestamp_granularities[]"} <= fields.keys():
            raise RequestError(
                400, "language and timestamps cannot be combined", "timestamp_granularities"
            )


_COMMON = frozenset({"model", "language", "prompt", "response_format", "temperature"})
_WHISPER = _COMMON | {"timestamp_granularities[]"}
_JSON_FORMATS = frozenset({"json", "text", "verbose_json"})


def _groq_body(body: dict[str, Any], _fields: dict[str, Any]) -> dict[str, Any]:
    body = {name: value for name, value in body.items() if name not in ("usage", "languages")}
    return {**body, "x_groq": {"id": "req_1"}}


def _speaches_body(body: dict[str, Any], _fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in ("usage", "languages")}


def _mistral_body(body: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Convert a `verbose_json` body to the format of Mistral, which labels speakers differently."""
    segments = [
        {
            "type": "transcription_segment",
            "text": segment["text"],
            "start": segment["start"],
            "end": segment["end"],
            "speaker_id": "speaker_1" if fields.get("diarize") == "true" else None,
        }
        for segment in body.get("segments", ())
    ]
    has_times = "timestamp_granularities[]" in fields
    return {
        "model": fields["model"],
        "text": body["text"],
        "language": None,
        "segments": segments if has_times else [],
        "usage": {"prompt_audio_seconds": math.ceil(body["duration"])},
    }


SERVERS = {
    "groq": ServerRules(
        _WHISPER,
        _JSON_FORMATS,
        {"whisper-large-v3", "whisper-large-v3-turbo"}.__contains__,
        _groq_body,
    ),
    "mistral": ServerRules(
        frozenset(
            {
                "model",
                "language",
                "temperature",
                "timestamp_granularities[]",
                "diarize",
                "context_bias[]",
            }
        ),
        frozenset({"json"}),
        lambda model: model.startswith("voxtral-"),
        _mistral_body,
        lambda error: {"object": "error", "message": error["message"], "code": error["code"]},
    ),
    "azure": ServerRules(
        _WHISPER | {"include[]", "chunking_strategy"},
        frozenset({"json", "text", "srt", "vtt", "verbose_json", "diarized_json"}),
        {
            "gpt-4o-transcribe",
            "gpt-4o-mini-transcribe",
            "gpt-4o-transcribe-diarize",
            "whisper",
            "my-deployment",
        }.__contains__,
    ),
    "speaches": ServerRules(
        _WHISPER | {"hotwords", "vad_filter"},
        frozenset({"json", "text", "srt", "vtt", "verbose_json"}),
        lambda model: model.startswith("Systran/"),
        _speaches_body,
        lambda error: {"detail": error["message"]},
    ),
}
