"""Add response bodies, forms, headers and errors to `/openapi.json`.

FastAPI cannot derive them from the routes. Routes refer to schemas by name. The schemas are built
when the document is requested, so that they do not slow down a cold start.
"""

from functools import cache
from typing import Any

from fastapi import FastAPI

from handler import errors
from handler.errors import StenoError
from handler.transcription.options import OpenAIOptions, Options, TranscribeOptions
from handler.upstream.models import MODEL_NAME, is_openai
from handler.web import responses

_SCHEMAS = "#/components/schemas/"
TRANSCRIPTION, UPLOADS_AND_JOBS, OPENAI_API, SERVER = TAGS = (
    "Transcription",
    "Uploads and jobs",
    "OpenAI-compatible API",
    "Server",
)
DESCRIPTION = """\
Send a recording in one request, or upload a large recording to a bucket and poll its job.

Later versions may add fields to any response. Clients must ignore fields that they do not know.

Errors are problem details (RFC 9457). Use the field `code` in programs. The page [errors](errors)
lists all codes. Routes below `/v1` return errors in OpenAI's format.
"""


class DocumentedApp(FastAPI):
    """A FastAPI app whose OpenAPI document is complete and matches its settings."""

    def openapi(self) -> dict[str, Any]:
        document, settings = super().openapi(), self.state.services.settings
        upload = document["components"]["schemas"]["Upload"]
        upload["properties"]["size"]["maximum"] = settings.max_upload_bytes
        forms = {
            "Form": _form_schema(TranscribeOptions),
            "OpenAIForm": _form_schema(OpenAIOptions),
            "Upload": upload,
        }
        if settings.models or settings.upstreams or not is_openai(settings.openai_base_url):
            for form in forms.values():
                _allow_any_model(form["properties"]["model"])
        document["components"]["schemas"] = _schemas() | forms
        if settings.auth == "open":
            document["components"].pop("securitySchemes", None)
        paths = document["paths"].values()
        for operation in (operation for path in paths for operation in path.values()):
            # FastAPI adds a 422 response to each route that has a parameter. It is wrong here: any
            # string is a valid path parameter, and each route documents its other errors itself.
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
            if settings.auth == "open":
                operation.pop("security", None)
        return document


@cache
def _schemas() -> dict[str, Any]:
    from pydantic import TypeAdapter

    from handler.web import schemas

    _, generated = TypeAdapter.json_schemas(
        [(body, "serialization", TypeAdapter(body)) for body in schemas.ALL],
        ref_template=_SCHEMAS + "{model}",
    )
    definitions: dict[str, Any] = generated["$defs"]
    codes = sorted({error.code for error in _error_classes(StenoError)})
    for name in ("Problem", "OpenAIErrorDetail", "Failure"):
        # This is not an enumeration, because later versions may add codes.
        definitions[name]["properties"]["code"]["examples"] = codes
    return definitions


def _allow_any_model(option: dict[str, Any]) -> None:
    """Allow any model name, because the models of an upstream other than OpenAI are not known."""
    option["description"] = (
        "Name of a model that the upstream offers. The default is the model of the server."
    )
    for schema in (option, *option.get("anyOf", ())):
        if schema.pop("enum", None):
            schema["pattern"] = f"^({MODEL_NAME.pattern})?$"


def _error_classes(error: type[StenoError]) -> list[type[StenoError]]:
    classes = [error]
    for subclass in error.__subclasses__():
        classes += _error_classes(subclass)
    return classes


def _form_schema(options: type[Options]) -> dict[str, Any]:
    """Return the schema of the multipart form with a recording and these options.

    Form fields cannot be null, so the null type is removed from the schema of each option.
    """
    recording = {
        "type": "string",
        "format": "binary",
        "description": "The recording: an audio or video file.",
    }
    schema = options.model_json_schema()
    for option in schema["properties"].values():
        option.update(*(type_ for type_ in option.pop("anyOf", []) if type_ != {"type": "null"}))
        if option.get("default", "") is None:
            del option["default"]
        for text in (option, option.get("items", {})):
            if "pattern" in text:  # an empty field is treated as omitted
                text["pattern"] = f"^$|{text['pattern']}"
    return {
        "type": "object",
        "description": "The recording, and the options for its transcription.",
        "required": ["file"],
        "properties": {"file": recording, **schema["properties"]},
        "additionalProperties": False,
    }


def _content(name: str, media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": _SCHEMAS + name}}}


def _header(description: str, kind: str = "string", *, required: bool = True) -> dict[str, Any]:
    return {"description": description, "required": required, "schema": {"type": kind}}


_PROBLEM, _OPENAI_ERROR = _content("Problem", "application/problem+json"), _content("OpenAIError")
_LOCATION = {"Location": _header("URL path of the job.")}
_RETRY_AFTER = {
    "Retry-After": _header("Number of seconds to wait before the next request.", "integer")
}
_OPTIONAL_RETRY_AFTER = {
    "Retry-After": _header(
        "Number of seconds to wait before the next request. Omitted if another request would not"
        " help, or if the time is not known.",
        "integer",
        required=False,
    )
}
_ERROR_HEADERS = {
    401: {"WWW-Authenticate": _header("Always `Bearer`.")},
    409: _OPTIONAL_RETRY_AFTER,
    429: _RETRY_AFTER,
    502: _OPTIONAL_RETRY_AFTER,
    503: _RETRY_AFTER,
    504: _OPTIONAL_RETRY_AFTER,
}
_COMMON_ERRORS = (
    errors.Unauthorized,
    errors.OriginNotAllowed,
    errors.UpstreamCredentials,  # also used if the access token's secret cannot be read
    errors.StorageUnavailable,
    StenoError,
)
_TRANSCRIPTION_ERRORS = (
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
    *_COMMON_ERRORS,
)
_JOB_ERRORS = (errors.NotFound, *_COMMON_ERRORS)
_LINKS = {
    name: {"operationId": name, "parameters": {"id": "$response.body#/id"}}
    for name in ("transcription", "transcript", "retry", "delete")
}


def _error_responses(
    error_classes: tuple[type[StenoError], ...],
    content: dict[str, Any],
    retry_headers: dict[str, Any] | None = None,
) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the error responses, by status.

    `retry_headers` are added to responses that OpenAI's SDKs retry.
    """
    codes: dict[int, list[str]] = {}
    for error in error_classes:
        codes.setdefault(int(error.status), []).append(f"`{error.code}`")
    documented: dict[int | str, dict[str, Any]] = {}
    for status, names in sorted(codes.items()):
        headers = dict(_ERROR_HEADERS.get(status, {}))
        if status in responses.RETRIED_STATUSES:
            headers |= retry_headers or {}
        label = "Error code" if len(names) == 1 else "Error codes"
        documented[status] = {
            "description": f"{label}: {', '.join(names)}.",
            "headers": headers,
            "content": content,
        }
    return documented


def _problems(*error_classes: type[StenoError]) -> dict[int | str, dict[str, Any]]:
    return _error_responses(error_classes, _PROBLEM)


def _openai_errors(*error_classes: type[StenoError]) -> dict[int | str, dict[str, Any]]:
    should_retry = _header(
        "`true` if the same request can be sent again, otherwise `false`. OpenAI's SDKs use it."
    )
    return _error_responses(error_classes, _OPENAI_ERROR, {"x-should-retry": should_retry})


def _form_body(name: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": _content(name, "multipart/form-data")}}


def _transcript_response(*bodies: str) -> dict[str, Any]:
    return {
        "description": "The transcript.",
        "headers": {
            "Steno-Model": _header("Name of the model that transcribed the recording."),
            "Steno-Timestamps": _header(
                "`model` if the model returned the timestamps, `aligned` if Steno computed them."
                " Omitted if the format has no timestamps.",
                required=False,
            ),
        },
        "content": {
            "application/json": {
                "schema": {"anyOf": [{"$ref": _SCHEMAS + body} for body in bodies]}
            },
            "text/plain": {"schema": {"type": "string"}},
        },
    }


def _job_response(description: str, headers: dict[str, Any], body: str = "Job") -> dict[str, Any]:
    return {
        "description": description,
        "headers": headers,
        "content": _content(body),
        "links": _LINKS,
    }


_TRANSCRIPT_RESPONSE = _transcript_response("Transcript", "VerboseTranscript")

_OPENAI_RESPONSE = _transcript_response("OpenAITranscript")
_OPENAI_RESPONSE["headers"]["Steno-Model"] = _header(
    "Name of the model that transcribed the recording. Omitted if events are sent during the"
    " transcription.",
    required=False,
)
_OPENAI_RESPONSE["content"]["text/event-stream"] = {
    "schema": {"description": "Server-sent events, if `stream` is true."}
}

HEALTH = {
    200: {"description": "The server is running.", "content": _content("Health")},
    **_problems(StenoError),
}
CONFIG = {
    200: {"description": "The limits and settings of the server.", "content": _content("Config")},
    **_problems(StenoError),
}
TRANSCRIBE: dict[str, Any] = {
    "openapi_extra": _form_body("Form"),
    "responses": {
        200: _TRANSCRIPT_RESPONSE,
        202: _job_response(
            "The transcription takes longer than the time limit for a request. It continues as this"
            " job.",
            {**_LOCATION, **_RETRY_AFTER},
        ),
        **_problems(*_TRANSCRIPTION_ERRORS),
    },
}
OPENAI_TRANSCRIBE: dict[str, Any] = {
    "openapi_extra": _form_body("OpenAIForm"),
    "responses": {
        200: _OPENAI_RESPONSE,
        **_openai_errors(*_TRANSCRIPTION_ERRORS),
    },
}
OPENAI_MODELS = {
    200: {"description": "The models that a request can choose.", "content": _content("Models")},
    **_openai_errors(*_COMMON_ERRORS),
}
OPENAI_MODEL = {
    200: {"description": "The model.", "content": _content("Model")},
    **_openai_errors(errors.NotFound, *_COMMON_ERRORS),
}
UPLOADS = {
    201: _job_response("The job, and the form for uploading its recording.", _LOCATION, "Awaited"),
    **_problems(
        errors.RecordingTooLarge,
        errors.UnsupportedMedia,
        errors.EmptyRecording,
        errors.InvalidOption,
        errors.InvalidRequest,
        errors.BudgetExhausted,
        *_JOB_ERRORS,
    ),
}
JOB = {
    200: _job_response("The status of the job.", _OPTIONAL_RETRY_AFTER),
    **_problems(*_JOB_ERRORS),
}
TRANSCRIPT = {
    200: _TRANSCRIPT_RESPONSE,
    **_problems(errors.NotReady, errors.InvalidOption, *_JOB_ERRORS),
}
TRANSCRIPT[409]["description"] = (
    "Error code: `not_ready` if the job is not finished, or the error code of a failed job."
)
RETRY = {
    202: _job_response("The job, now queued again.", {**_LOCATION, **_OPTIONAL_RETRY_AFTER}),
    **_problems(errors.NotFailed, *_JOB_ERRORS),
}
DELETE = {204: {"description": "The job has been deleted."}, **_problems(*_JOB_ERRORS)}
