"""The routes, and how their errors are answered."""

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from handler import __version__
from handler.aws.outage import is_outage
from handler.errors import (
    InvalidOption,
    InvalidRequest,
    JobFailed,
    MethodNotAllowed,
    NotFound,
    StenoError,
    StorageUnavailable,
    UpstreamBusy,
)
from handler.jobs.job import Caller, Job
from handler.logs import request_id
from handler.services import Services, build_services
from handler.settings import Settings
from handler.transcription.field_errors import remedy
from handler.transcription.options import Options, TranscribeOptions
from handler.transcripts.formats import TIMED_FORMATS
from handler.transcripts.transcript import Transcript
from handler.web import job_routes, openapi, pages, responses
from handler.web.auth import AuthenticatedRoute, CallerDep, ServicesDep, bearer
from handler.web.drain import DrainRefused
from handler.web.form import received_form
from handler.web.request_id import RequestId

if TYPE_CHECKING:
    from handler.web import schemas

log = logging.getLogger("steno")


def create_app(settings: Settings, services: Services | None = None) -> FastAPI:
    """The application; `services` replace those that the settings describe."""
    services = services or build_services(settings)
    app = openapi.Documented(
        title="Steno",
        summary="Speech to text that you own.",
        version=__version__,
        redirect_slashes=False,
        docs_url=None,  # it is a page of ours
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # which nothing here collects
    )
    app.state.services = services
    app.include_router(_open)
    app.include_router(_closed)
    app.include_router(job_routes.router)
    app.include_router(pages.router)
    for error in (StenoError, HTTPException, RequestValidationError):
        app.add_exception_handler(error, _answer_error)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_middleware(AnswerBugs)
    app.add_middleware(DrainRefused)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],  # OpenAI's SDK sends a dozen of its own
        expose_headers=["Location", "Retry-After", "Steno-Model", "x-request-id", "x-should-retry"],
    )
    app.add_middleware(RequestId)
    if warning := services.models.warning():
        log.warning(warning)
    return app


_open = APIRouter(prefix="/api")
_closed = APIRouter(route_class=AuthenticatedRoute, dependencies=[Depends(bearer)])


@_open.get("/health", responses=openapi.HEALTH)
async def health(services: ServicesDep) -> Response:
    """Whether Steno is up, and how long its model will be."""
    models = services.models
    body: schemas.Health = {"status": "ok", "model": models.get().name}
    configured = models.configured()
    if configured and configured.shutdown:
        body["shutdown_date"] = str(configured.shutdown)
    if warning := models.warning():
        body["warning"] = warning
    return JSONResponse(body)


@_open.get("/config", responses=openapi.CONFIG)
async def config(services: ServicesDep) -> Response:
    """What a client needs to choose its way; `upload_max_bytes` is null where there are no uploads."""
    body: schemas.Config = {
        "direct_max_bytes": services.settings.max_audio_bytes,
        "upload_max_bytes": services.settings.max_upload_bytes if services.settings.bucket_name else None,
        "model": services.models.get().name,
        "auth": services.settings.auth,
    }
    return JSONResponse(body)


@_closed.post("/api/transcribe", **openapi.TRANSCRIBE)
async def transcribe(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """A recording in, its words out; 202 where that takes longer than the request may, with the job's address."""
    options, outcome = await _outcome(request, services, caller, TranscribeOptions)
    if isinstance(outcome, Job):
        return responses.job(outcome, "", 202)
    return await _rendered(responses.transcription, outcome, options.response_format)


@_closed.post("/v1/audio/transcriptions", **openapi.OPENAI_TRANSCRIBE)
async def openai_transcribe(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """The same under OpenAI's own contract: their SDKs work with `base_url` and `api_key` changed."""
    options, outcome = await _outcome(request, services, caller, Options)
    if isinstance(outcome, Job):  # their clients know no 202; the same recording again joins its job
        raise UpstreamBusy(
            "The recording takes long. It is being worked on: send it again for its transcript, at no further cost.",
            again=True,
            retry_after=responses.POLL_SECONDS,
        )
    return await _rendered(responses.openai_transcription, outcome, options.response_format)


@_closed.get("/v1/models", responses=openapi.OPENAI_MODELS)
async def models(services: ServicesDep) -> Response:
    """The models that can be asked for, in OpenAI's shape; of another upstream, the server's own choice."""
    at_openai = services.models.at_openai
    listed: list[schemas.Model] = [
        {
            "id": model.name,
            "object": "model",
            "created": 0,
            "owned_by": "openai" if at_openai else "upstream",
            "shutdown_date": str(model.shutdown) if model.shutdown else None,
        }
        for model in services.models.listed()
    ]
    body: schemas.Models = {"object": "list", "data": listed}
    return JSONResponse(body)


async def _outcome(
    request: Request, services: Services, caller: Caller, kind: type[Options]
) -> tuple[Options, Transcript | Job]:
    if request.query_params:
        raise InvalidRequest("Options belong in the form, beside `file`, not in the address.")
    async with received_form(request, services.settings.max_audio_bytes) as form:
        options = kind.from_form(form.fields)
        deadline = request.state.deadline
        return options, await services.direct.transcribe(form.recording, options, caller, deadline)


async def _rendered(
    render: Callable[[Transcript, str], Response], transcript: Transcript, response_format: str
) -> Response:
    """In a thread, where lines have to be laid out: for a text alone the way there would take longest of all."""
    if response_format in TIMED_FORMATS:
        return await anyio.to_thread.run_sync(render, transcript, response_format)
    return render(transcript, response_format)


async def _answer_error(request: Request, error: Exception) -> Response:
    known = _known(request, error)
    if not isinstance(known, JobFailed):  # which was counted when the job failed
        request.app.state.services.metrics.tell(known.code, Failures=1)
    if known.status >= 500:
        log.warning("%s: %s", known.code, known.detail)
    in_openai_shape = request.url.path.startswith("/v1/")
    return responses.openai_error(known) if in_openai_shape else responses.problem(known)


def _known(request: Request, error: Exception) -> StenoError:
    if isinstance(error, StenoError):
        return error
    if isinstance(error, HTTPException) and error.status_code == 405:
        return MethodNotAllowed(", ".join(filter(partial(_takes, request), ("DELETE", "GET", "POST"))))
    if isinstance(error, HTTPException) and error.status_code == 400:
        return InvalidRequest("The body cannot be read; send JSON in UTF-8, not nested too deep.")
    if isinstance(error, HTTPException):
        return NotFound("There is nothing at this address; /docs lists what there is.")
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if is_outage(error):
        return StorageUnavailable("AWS, where Steno keeps its jobs and its books, does not answer. Try again.")
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
        return InvalidRequest("Send a JSON object, with the header `Content-Type: application/json`.")
    name = str(first["loc"][1])
    reason = f"`{name[:100]}`: {remedy(first)}."
    return InvalidOption(name, reason) if name in Options.model_fields else InvalidRequest(reason)


class AnswerBugs:
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
