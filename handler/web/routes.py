"""The routes that transcribe in one request, and those that tell what this server has."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio.to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from handler.errors import InvalidRequest, UpstreamBusy
from handler.jobs.job import Caller, Job
from handler.services import Services
from handler.transcription.options import OpenAIOptions, Options, TranscribeOptions
from handler.transcripts.formats import TIMED_FORMATS
from handler.transcripts.transcript import Transcript
from handler.web import openapi, responses
from handler.web.auth import AuthenticatedRoute, CallerDep, ServicesDep, bearer
from handler.web.form import received_form

if TYPE_CHECKING:
    from handler.web import schemas

public_router = APIRouter(prefix="/api")
authenticated_router = APIRouter(route_class=AuthenticatedRoute, dependencies=[Depends(bearer)])


@public_router.get("/health", responses=openapi.HEALTH)
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


@public_router.get("/config", responses=openapi.CONFIG)
async def config(services: ServicesDep) -> Response:
    """What a client needs to choose its way; `upload_max_bytes` is null where there are no uploads."""
    body: schemas.Config = {
        "direct_max_bytes": services.settings.max_audio_bytes,
        "upload_max_bytes": services.settings.max_upload_bytes
        if services.settings.bucket_name
        else None,
        "model": services.models.get().name,
        "auth": services.settings.auth,
    }
    return JSONResponse(body)


@authenticated_router.post("/api/transcribe", **openapi.TRANSCRIBE)
async def transcribe(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """A recording in, its words out; 202 where that takes longer than the request may, with the job's address."""
    options, outcome = await _outcome(request, services, caller, TranscribeOptions)
    if isinstance(outcome, Job):
        return responses.job(outcome, "", 202)
    return await _rendered(responses.transcription, outcome, options.response_format)


@authenticated_router.post("/v1/audio/transcriptions", **openapi.OPENAI_TRANSCRIBE)
async def openai_transcribe(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """The same under OpenAI's own contract: their SDKs work with `base_url` and `api_key` changed."""
    options, outcome = await _outcome(request, services, caller, OpenAIOptions)
    if isinstance(
        outcome, Job
    ):  # their clients know no 202; the same recording again joins its job
        raise UpstreamBusy(
            "The recording takes long. It is being worked on: send it again for its transcript, at no further cost.",
            safe_to_retry=True,
            retry_after=responses.POLL_SECONDS,
        )
    return await _rendered(responses.openai_transcription, outcome, options.response_format)


@authenticated_router.get("/v1/models", responses=openapi.OPENAI_MODELS)
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
