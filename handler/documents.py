"""The parts of `/openapi.json` that FastAPI cannot see, because the routes read the raw request to refuse early."""

from typing import Any

from handler.answers import Problem
from handler.errors import Refused, UpstreamError
from handler.options import Options


def _form() -> dict[str, Any]:
    schema = Options.model_json_schema()
    recording = {"type": "string", "format": "binary", "description": "The recording: audio or video."}
    schema["properties"] = {"file": recording, **schema["properties"]}
    schema["required"] = ["file"]
    return schema


FORM: dict[str, Any] = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _form()}}}}


def _errors(content: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    codes: dict[int, list[str]] = {}
    for family in (Refused, UpstreamError):
        for error in family.__subclasses__():
            codes.setdefault(error.status, []).append(f"`{error.code}`")
    return {status: {"description": ", ".join(names), "content": content} for status, names in sorted(codes.items())}


_PROBLEM = {"application/problem+json": {"schema": Problem.model_json_schema()}}
_OPENAI_ERROR = {
    "application/json": {
        "schema": {
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
    }
}


def _transcript(text_key: str) -> dict[str, Any]:
    schema = {"type": "object", "required": [text_key], "properties": {text_key: {"type": "string"}}}
    return {
        "description": "What was said.",
        "headers": {"Steno-Model": {"description": "The model that heard it.", "schema": {"type": "string"}}},
        "content": {"application/json": {"schema": schema}, "text/plain": {"schema": {"type": "string"}}},
    }


TRANSCRIBE: dict[int | str, dict[str, Any]] = {200: _transcript("transcript"), **_errors(_PROBLEM)}
OPENAI_TRANSCRIBE: dict[int | str, dict[str, Any]] = {200: _transcript("text"), **_errors(_OPENAI_ERROR)}
