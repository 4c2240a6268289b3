"""What `/openapi.json` says beside what FastAPI sees of the routes.

The routes refer to bodies and forms by name; how those look is worked out when somebody asks, not at a cold start.
"""

from functools import cache
from typing import Any

from fastapi import FastAPI

from handler import errors
from handler.errors import StenoError
from handler.transcription.options import OpenAIOptions, Options, TranscribeOptions
from handler.upstream.models import MODEL_NAME, is_openai

_SCHEMAS = "#/components/schemas/"


class DocumentedApp(FastAPI):
    """An application whose document is whole, and true of its settings."""

    def openapi(self) -> dict[str, Any]:
        document, settings = super().openapi(), self.state.services.settings
        upload = document["components"]["schemas"]["Upload"]
        upload["properties"]["size"]["maximum"] = settings.max_upload_bytes
        forms = {
            "Form": _form(TranscribeOptions),
            "OpenAIForm": _form(OpenAIOptions),
            "Upload": upload,
        }
        if not is_openai(settings.openai_base_url):
            for form in forms.values():
                _allow_any_model(form["properties"]["model"])
        document["components"]["schemas"] = _schemas() | forms
        if settings.auth == "open":
            document["components"].pop("securitySchemes", None)
        for operation in (
            operation for path in document["paths"].values() for operation in path.values()
        ):
            # FastAPI says so of every route with a parameter, but those in an address may be any text.
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
            if settings.auth == "open":
                operation.pop("security", None)
        return document


@cache
def _schemas() -> dict[str, Any]:
    from pydantic import TypeAdapter

    from handler.web import schemas

    _, told = TypeAdapter.json_schemas(
        [(body, "serialization", TypeAdapter(body)) for body in schemas.ALL],
        ref_template=_SCHEMAS + "{model}",
    )
    found: dict[str, Any] = told["$defs"]
    for schema in found.values():
        schema.setdefault("additionalProperties", False)
    codes = sorted({kind.code for kind in _kinds(StenoError)})
    for name in ("Problem", "OpenAIErrorDetail", "Failure"):
        found[name]["properties"]["code"]["enum"] = codes
    return found


def _allow_any_model(option: dict[str, Any]) -> None:
    """Another upstream than OpenAI may have any model."""
    option["description"] = (
        "The name of any of the upstream's models; without it, the server's own choice."
    )
    for kind in (option, *option.get("anyOf", ())):
        if kind.pop("enum", None):
            kind["pattern"] = f"^({MODEL_NAME.pattern})?$"


def _kinds(error: type[StenoError]) -> list[type[StenoError]]:
    return [error, *(kind for child in error.__subclasses__() for kind in _kinds(child))]


def _form(options: type[Options]) -> dict[str, Any]:
    """The multipart form with a recording and those options; a field that is not sent is not null."""
    recording = {
        "type": "string",
        "format": "binary",
        "description": "The recording: audio or video.",
    }
    schema = options.model_json_schema()
    for option in schema["properties"].values():
        option.update(*(kind for kind in option.pop("anyOf", []) if kind != {"type": "null"}))
        if option.get("default", "") is None:
            del option["default"]
        for text in (option, option.get("items", {})):
            if "pattern" in text:  # what is left empty was not given
                text["pattern"] = f"^$|{text['pattern']}"
    return {
        "type": "object",
        "required": ["file"],
        "properties": {"file": recording, **schema["properties"]},
        "additionalProperties": False,
    }


def _content(name: str, media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": _SCHEMAS + name}}}


def _header(description: str, kind: str = "string", *, required: bool = True) -> dict[str, Any]:
    return {"description": description, "required": required, "schema": {"type": kind}}


_PROBLEM, _OPENAI_ERROR = _content("Problem", "application/problem+json"), _content("OpenAIError")
_LOCATION = {"Location": _header("The job's address.")}
_AGAIN = {"Retry-After": _header("Seconds after which to ask again.", "integer")}
_LATER = {
    "Retry-After": _header(
        "Seconds after which to ask again, where that helps.", "integer", required=False
    )
}
_ADVICE = {
    401: {"WWW-Authenticate": _header("`Bearer`.")},
    409: _LATER,
    429: _AGAIN,
    502: _LATER,
    503: _AGAIN,
    504: _LATER,
}
_EVERYWHERE = (
    errors.Unauthorized,
    errors.UpstreamCredentials,
    errors.StorageUnavailable,
    StenoError,
)  # a token's secret may not be readable
_TRANSCRIBING = (
    errors.NotFound,
    errors.RecordingTooLarge,
    errors.UnsupportedMedia,
    errors.EmptyRecording,
    errors.UnreadableRecording,
    errors.InvalidOption,
    errors.InvalidRequest,
    errors.NoAudio,
    errors.BudgetExhausted,
    errors.UpstreamFailed,
    errors.UpstreamModel,
    errors.UpstreamQuota,
    errors.UpstreamBusy,
    errors.UpstreamTimeout,
    *_EVERYWHERE,
)
_JOB = (errors.NotFound, *_EVERYWHERE)
_LINKS = {
    name: {"operationId": name, "parameters": {"identity": "$response.body#/id"}}
    for name in ("transcription", "transcript", "retry", "delete")
}


def _refusals(
    kinds: tuple[type[StenoError], ...], content: dict[str, Any], more: dict[str, Any] | None = None
) -> dict[int | str, dict[str, Any]]:
    """`more` are headers of those that are the server's."""
    codes: dict[int, list[str]] = {}
    for kind in kinds:
        codes.setdefault(int(kind.status), []).append(f"`{kind.code}`")
    return {
        status: {
            "description": ", ".join(names),
            "headers": {**_ADVICE.get(status, {}), **((more or {}) if status >= 500 else {})},
            "content": content,
        }
        for status, names in sorted(codes.items())
    }


def _problems(*kinds: type[StenoError]) -> dict[int | str, dict[str, Any]]:
    return _refusals(kinds, _PROBLEM)


def _openai_errors(*kinds: type[StenoError]) -> dict[int | str, dict[str, Any]]:
    again = _header("`true` or `false`: whether OpenAI's SDKs are to send it again.")
    return _refusals(kinds, _OPENAI_ERROR, {"x-should-retry": again})


def _form_of(name: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": _content(name, "multipart/form-data")}}


def _transcript(*bodies: str) -> dict[str, Any]:
    return {
        "description": "What was said.",
        "headers": {"Steno-Model": _header("The model that heard it.")},
        "content": {
            "application/json": {
                "schema": {"anyOf": [{"$ref": _SCHEMAS + body} for body in bodies]}
            },
            "text/plain": {"schema": {"type": "string"}},
        },
    }


def _job(description: str, headers: dict[str, Any], body: str = "Job") -> dict[str, Any]:
    return {
        "description": description,
        "headers": headers,
        "content": _content(body),
        "links": _LINKS,
    }


_OURS = _transcript("Transcript", "VerboseTranscript")

HEALTH = {
    200: {"description": "Steno is up.", "content": _content("Health")},
    **_problems(StenoError),
}
CONFIG = {
    200: {"description": "What a client needs to know.", "content": _content("Config")},
    **_problems(StenoError),
}
TRANSCRIBE: dict[str, Any] = {
    "openapi_extra": _form_of("Form"),
    "responses": {
        200: _OURS,
        202: _job("It takes longer than a request may.", {**_LOCATION, **_AGAIN}),
        **_problems(*_TRANSCRIBING),
    },
}
OPENAI_TRANSCRIBE: dict[str, Any] = {
    "openapi_extra": _form_of("OpenAIForm"),
    "responses": {200: _transcript("OpenAITranscript"), **_openai_errors(*_TRANSCRIBING)},
}
OPENAI_MODELS = {
    200: {"description": "The models.", "content": _content("Models")},
    **_openai_errors(*_EVERYWHERE),
}
UPLOADS = {
    201: _job("The form to upload the recording with.", _LOCATION, "Awaited"),
    **_problems(
        errors.RecordingTooLarge,
        errors.UnsupportedMedia,
        errors.EmptyRecording,
        errors.InvalidOption,
        errors.InvalidRequest,
        errors.BudgetExhausted,
        *_JOB,
    ),
}
JOB = {200: _job("How the job stands.", _LATER), **_problems(*_JOB)}
TRANSCRIPT = {200: _OURS, **_problems(errors.NotReady, errors.InvalidOption, *_JOB)}
TRANSCRIPT[409]["description"] += (
    " before the job is finished; the `code` of its error if it failed"
)
RETRY = {
    202: _job("The job, which begins again.", {**_LOCATION, **_LATER}),
    **_problems(errors.NotFailed, *_JOB),
}
DELETE = {204: {"description": "All of it is gone."}, **_problems(*_JOB)}
