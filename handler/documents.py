"""The parts of `/openapi.json` that FastAPI cannot see, because the routes read the raw request to refuse early."""

from typing import Any

from handler import errors
from handler.answers import Problem, Verbose
from handler.errors import StenoError
from handler.options import Options, TranscribeOptions

_TRANSCRIBING = (
    errors.Unauthorized,
    errors.RecordingTooLarge,
    errors.UnsupportedMedia,
    errors.EmptyRecording,
    errors.UnreadableRecording,
    errors.InvalidOption,
    errors.InvalidRequest,
    errors.NoAudio,
    errors.BudgetExhausted,
    StenoError,
    errors.UpstreamFailed,
    errors.UpstreamCredentials,
    errors.UpstreamModel,
    errors.UpstreamQuota,
    errors.UpstreamBusy,
    errors.UpstreamTimeout,
)
_OPENAI_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}
_PROBLEM_CONTENT = {"application/problem+json": {"schema": Problem.model_json_schema()}}
_OPENAI_CONTENT = {"application/json": {"schema": _OPENAI_ERROR}}


def _refusals(errors: tuple[type[StenoError], ...], content: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    codes: dict[int, list[str]] = {}
    for error in errors:
        codes.setdefault(int(error.status), []).append(f"`{error.code}`")
    return {status: {"description": ", ".join(names), "content": content} for status, names in codes.items()}


def _transcript(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": "What was said.",
        "headers": {"Steno-Model": {"description": "The model that heard it.", "schema": {"type": "string"}}},
        "content": {"application/json": {"schema": body}, "text/plain": {"schema": {"type": "string"}}},
    }


def _form(options: tuple[str, ...], formats: tuple[str, ...]) -> dict[str, Any]:
    """The multipart form with a recording and those options."""
    properties = Options.model_json_schema()["properties"]
    properties["response_format"]["enum"] = list(formats)
    recording = {"type": "string", "format": "binary", "description": "The recording: audio or video."}
    schema = {
        "type": "object",
        "required": ["file"],
        "properties": {"file": recording, **{name: properties[name] for name in options}},
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


_FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
_TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}

TRANSCRIBE: dict[str, Any] = {
    "openapi_extra": _form(TranscribeOptions.taken(), _FORMATS),
    "responses": {
        200: _transcript(Verbose.model_json_schema()),
        202: {"description": "It takes longer than a request may: `Location` is the job's address."},
        **_refusals(_TRANSCRIBING, _PROBLEM_CONTENT),
    },
}
OPENAI_TRANSCRIBE: dict[str, Any] = {
    "openapi_extra": _form(Options.taken(), (*_FORMATS, "diarized_json")),
    "responses": {200: _transcript(_TEXT), **_refusals(_TRANSCRIBING, _OPENAI_CONTENT)},
}
OPENAI_MODELS = _refusals((errors.Unauthorized, StenoError), _OPENAI_CONTENT)
_JOBS = (errors.Unauthorized, errors.NotFound, errors.InvalidOption, errors.InvalidRequest, StenoError)
JOBS = _refusals(_JOBS, _PROBLEM_CONTENT)
UPLOADS = _refusals(
    (errors.RecordingTooLarge, errors.UnsupportedMedia, errors.EmptyRecording, errors.BudgetExhausted, *_JOBS),
    _PROBLEM_CONTENT,
)
RETRIES = _refusals((errors.NotFailed, *_JOBS), _PROBLEM_CONTENT)
TRANSCRIPTS = _refusals((errors.NotReady, *_JOBS), _PROBLEM_CONTENT)
