"""Convert exceptions into error responses.

The exceptions are Steno's own errors, errors that FastAPI raises, AWS outages, and bugs.
"""

import logging
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from handler.aws.outage import is_outage
from handler.errors import (
    InvalidOption,
    InvalidRequest,
    JobFailed,
    MethodNotAllowed,
    NotFound,
    StenoError,
    StorageUnavailable,
)
from handler.logs import request_id
from handler.transcription.field_errors import field_error
from handler.transcription.options import OpenAIOptions
from handler.web import responses

log = logging.getLogger("steno")


def add_error_handlers(app: FastAPI) -> None:
    """Register the exception handlers.

    Paths below `/v1` return errors in OpenAI's format. All other paths return them as problem
    details (RFC 9457).
    """
    for error in (StenoError, HTTPException, RequestValidationError):
        app.add_exception_handler(error, _error_response)
    app.add_exception_handler(ClientDisconnect, _disconnected_response)


async def _error_response(request: Request, error: Exception) -> Response:
    steno_error = report_error(request, error)
    if request.url.path.startswith("/v1/"):
        return responses.openai_error(steno_error)
    return responses.problem(steno_error, f"{request.base_url}errors")


def report_error(request: Request, error: Exception) -> StenoError:
    """Return the StenoError for an exception. Log it and count it."""
    steno_error = _to_steno_error(request, error)
    if is_outage(error):
        log.error("AWS is unavailable: %s", error)
    elif type(steno_error) is StenoError and error is not steno_error:
        log.error(
            "A request failed because of a bug in Steno. The traceback follows.", exc_info=error
        )
    if not isinstance(steno_error, JobFailed):  # already counted when the job failed
        request.app.state.services.metrics.emit(steno_error.code, Failures=1)
    if steno_error.status >= 500:
        log.warning("The HTTP request failed with %s: %s", steno_error.code, steno_error.detail)
    return steno_error


def _to_steno_error(request: Request, error: Exception) -> StenoError:
    if isinstance(error, StenoError):
        return error
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = filter(partial(_accepts_method, request), ("DELETE", "GET", "POST"))
        return MethodNotAllowed(", ".join(allowed))
    if isinstance(error, HTTPException) and error.status_code == 400:
        return InvalidRequest("The body cannot be parsed. Send JSON in UTF-8 without deep nesting.")
    if isinstance(error, HTTPException):
        return NotFound("There is no route at this path. See /docs for all routes.")
    if isinstance(error, RequestValidationError):
        return _validation_error(error)
    if is_outage(error):
        return StorageUnavailable(
            "The AWS services that store jobs and budgets are unavailable. Try again."
        )
    return StenoError(f"Internal error. See the server log (request {request_id()}).")


def _accepts_method(request: Request, method: str) -> bool:
    """Return whether any route with this path accepts the method.

    Starlette's own 405 error considers only the first route with this path.
    """
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


def _validation_error(error: RequestValidationError) -> StenoError:
    """Return an error for the first problem in the JSON body or in the URL parameters."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return InvalidRequest(f"The body is not valid JSON: {first['ctx']['error']}.")
    if len(first["loc"]) == 1:
        return InvalidRequest(
            "The body is not a JSON object."
            " Send one with the header `Content-Type: application/json`."
        )
    name = str(first["loc"][1]).removesuffix("[]")
    detail = field_error(name, first)
    if name in OpenAIOptions.model_fields:
        return InvalidOption(name, detail)
    return InvalidRequest(detail)


class HandleUnexpectedErrors:
    """Middleware that returns an error response if an unexpected exception is raised.

    It must run inside the CORS middleware, because a page from another origin cannot read a
    response without CORS headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if scope["type"] != "http":
                raise
            response = await _error_response(Request(scope), error)
            await response(scope, receive, send)


async def _disconnected_response(_request: Request, _error: Exception) -> Response:
    """Return a placeholder, which is never received because the client has disconnected."""
    return Response(status_code=400)
