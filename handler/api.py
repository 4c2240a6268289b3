"""The routes, and how their errors are answered."""

import hmac
import logging
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from handler import answers, documents
from handler.audio import identify
from handler.drain import DrainRefused
from handler.errors import InvalidOption, MethodNotAllowed, NotFound, StenoError, Unauthorized, UnsupportedMedia
from handler.form import received_form
from handler.models import MODELS, Model, serving
from handler.options import Options
from handler.settings import Settings
from handler.transcript import Transcript
from handler.wiring import Wiring

log = logging.getLogger("steno")


def create_app(settings: Settings, wiring: Wiring | None = None) -> FastAPI:
    """The application; `wiring` replaces the clients that the settings describe."""
    wiring = wiring or Wiring(settings)
    app = FastAPI(title="Steno", summary="Speech to text that you own.", version="0.1.0")
    app.state.wiring = wiring
    app.include_router(_open)
    app.include_router(_closed)
    for error in (StenoError, HTTPException, Exception):
        app.add_exception_handler(error, _answer_error)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_middleware(DrainRefused)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type"],
        expose_headers=["Location", "Retry-After", "Steno-Model"],
    )
    if warning := MODELS[settings.whisper_model].warning(wiring.today()):
        log.warning(warning)
    return app


async def _wiring(request: Request) -> Wiring:
    wiring: Wiring = request.app.state.wiring
    return wiring


Wired = Annotated[Wiring, Depends(_wiring)]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


async def _authorize(request: Request, wiring: Wired, bearer: Bearer) -> None:
    auth = wiring.settings.auth
    if auth == "jwt" and not _subject(request):
        raise Unauthorized("Send a token of the configured issuer as `Authorization: Bearer ...`.")
    if auth == "token":
        expected = await anyio.to_thread.run_sync(wiring.access_token.get)
        given = bearer.credentials if bearer else ""
        if not hmac.compare_digest(given.encode(), expected.encode()):
            raise Unauthorized("Send the server's access token as `Authorization: Bearer ...`.")


def _subject(request: Request) -> str | None:
    """Who the gateway's JWT authorizer says is calling; nobody where no gateway stands before us."""
    context = request.scope.get("aws.event", {}).get("requestContext", {})
    subject: str | None = context.get("authorizer", {}).get("jwt", {}).get("claims", {}).get("sub")
    return subject


_open = APIRouter(prefix="/api")
_closed = APIRouter(dependencies=[Depends(_authorize)])


@_open.get("/health")
async def health(wiring: Wired) -> dict[str, Any]:
    """Whether Steno is up, and how long its model will be."""
    model, today = MODELS[wiring.settings.whisper_model], wiring.today()
    warning = model.warning(today)
    return {
        "status": "ok",
        "model": _serving(model.name, wiring).name,
        **({"shutdown_date": model.shutdown} if model.shutdown else {}),
        **({"warning": warning} if warning else {}),
    }


@_open.get("/config")
async def config(wiring: Wired) -> dict[str, Any]:
    """What a client needs to choose its way; `upload_max_bytes` is null where there are no uploads."""
    return {
        "direct_max_bytes": wiring.settings.max_audio_bytes,
        "upload_max_bytes": None,
        "model": _serving(wiring.settings.whisper_model, wiring).name,
        "auth": wiring.settings.auth,
    }


@_closed.post("/api/transcribe", openapi_extra=documents.FORM, responses=documents.TRANSCRIBE)
async def transcribe(request: Request, wiring: Wired) -> Response:
    """A recording in, its words out."""
    options, transcript = await _transcript(request, wiring)
    return answers.transcription(transcript, options.response_format)


@_closed.post("/v1/audio/transcriptions", openapi_extra=documents.FORM, responses=documents.OPENAI_TRANSCRIBE)
async def openai_transcribe(request: Request, wiring: Wired) -> Response:
    """The same under OpenAI's own contract: their SDKs work with `base_url` and `api_key` changed."""
    options, transcript = await _transcript(request, wiring)
    return answers.openai_transcription(transcript, options.response_format)


@_closed.get("/v1/models")
async def models(wiring: Wired) -> dict[str, Any]:
    """The models that can be asked for, in OpenAI's shape."""
    today = wiring.today()
    listed = [
        {"id": model.name, "object": "model", "created": 0, "owned_by": "openai", "shutdown_date": model.shutdown}
        for model in MODELS.values()
        if not model.retired(today)
    ]
    return {"object": "list", "data": listed}


async def _transcript(request: Request, wiring: Wiring) -> tuple[Options, Transcript]:
    settings = wiring.settings
    async with received_form(request, settings.max_audio_bytes) as form:
        options = Options.from_form(form.fields)
        model = _serving(options.model or settings.whisper_model, wiring)
        parameters = options.for_model(model, wiring.today())
        container = identify(form.recording)
        if not container.direct:
            raise UnsupportedMedia(
                f"The recording is {container.name}, which the speech service does not take."
                " Send WebM, MP4, Ogg, WAV, MP3 or FLAC."
            )
        speech = await wiring.speech()
        return options, await speech.transcribe(
            form.recording, container, parameters, settings.request_deadline_seconds
        )


def _serving(name: str, wiring: Wiring) -> Model:
    model = serving(name, wiring.today())
    if model is None:
        raise InvalidOption("model", f"There is no model `{name[:100]}`. There are: {', '.join(MODELS)}.")
    return model


async def _answer_error(request: Request, error: Exception) -> Response:
    known = _known(error)
    if known.status >= 500:
        log.warning("%s: %s", known.code, known.detail)
    in_openai_shape = request.url.path.startswith("/v1/")
    return answers.openai_error(known) if in_openai_shape else answers.problem(known)


def _known(error: Exception) -> StenoError:
    if isinstance(error, StenoError):
        return error
    if isinstance(error, HTTPException) and error.status_code == 405:
        return MethodNotAllowed("This address does not take that method; /docs lists what there is.")
    if isinstance(error, HTTPException):
        return NotFound("There is nothing at this address; /docs lists what there is.")
    return StenoError("Steno has a bug here; its log says more.")


async def _answer_nobody(_request: Request, _error: Exception) -> Response:
    """The client left while it was sending: no error of ours, and nobody reads the answer."""
    return Response(status_code=400)
