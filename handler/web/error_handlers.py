"""Errors become responses: those of Steno, of the framework and of AWS, and bugs."""

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
from handler.transcription.field_errors import remedy
from handler.transcription.options import OpenAIOptions
from handler.web import responses

log = logging.getLogger("steno")


def add_error_handlers(app: FastAPI) -> None:
    """Make the app answer errors in Steno's shape, or in OpenAI's below `/v1`."""
    for error in (StenoError, HTTPException, RequestValidationError):
        app.add_exception_handler(error, _answer_error)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)


async def _answer_error(request: Request, error: Exception) -> Response:
    known = _known(request, error)
    if not isinstance(known, JobFailed):  # which was counted when the job failed
        request.app.state.services.metrics.emit(known.code, Failures=1)
    if known.status >= 500:
        log.warning("%s: %s", known.code, known.detail)
    in_openai_shape = request.url.path.startswith("/v1/")
    return responses.openai_error(known) if in_openai_shape else responses.problem(known)


def _known(request: Request, error: Exception) -> StenoError:
    if isinstance(error, StenoError):
        return error
    if isinstance(error, HTTPException) and error.status_code == 405:
        return MethodNotAllowed(
            ", ".join(filter(partial(_takes, request), ("DELETE", "GET", "POST")))
        )
    if isinstance(error, HTTPException) and error.status_code == 400:
        return InvalidRequest("The body cannot be read; send JSON in UTF-8, not nested too deep.")
    if isinstance(error, HTTPException):
        return NotFound("There is nothing at this address; /docs lists what there is.")
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if is_outage(error):
        return StorageUnavailable(
            "AWS, where Steno keeps its jobs and its books, does not answer. Try again."
        )
    return StenoError(f"Internal error. See the server's log (request {request_id()}).")


def _takes(request: Request, method: str) -> bool:
    """Whether the address has a route for the method; the framework tells of the first route only."""
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


def _invalid(error: RequestValidationError) -> StenoError:
    """What is wrong with a JSON body or an address, by the name of its first wrong field."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return InvalidRequest(f"The body is no well-formed JSON: {first['ctx']['error']}.")
    if len(first["loc"]) == 1:
        return InvalidRequest(
            "Send a JSON object, with the header `Content-Type: application/json`."
        )
    name = str(first["loc"][1])
    reason = f"`{name[:100]}`: {remedy(first)}."
    return (
        InvalidOption(name, reason)
        if name in OpenAIOptions.model_fields
        else InvalidRequest(reason)
    )


class HandleUnexpectedErrors:
    """Answers what nobody foresaw, inside the middleware of CORS: outside, a browser would see no answer at all."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if scope["type"] != "http":
                raise
            if is_outage(error):
                log.error("AWS fails: %s", error)
            else:
                log.exception("Internal error:")
            response = await _answer_error(Request(scope), error)
            await response(scope, receive, send)


async def _answer_nobody(_request: Request, _error: Exception) -> Response:
    """The client left while it was sending: no error of ours, and nobody reads the answer."""
    return Response(status_code=400)
