"""Routes that transcribe in one request, and routes about the server: health, limits, models."""

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
from handler.web.form import receive_form

if TYPE_CHECKING:
    from handler.web import schemas

public_router = APIRouter(prefix="/api")
authenticated_router = APIRouter(route_class=AuthenticatedRoute, dependencies=[Depends(bearer)])


@public_router.get("/health", summary="Get the health of the server", responses=openapi.HEALTH)
async def health(services: ServicesDep) -> Response:
    """Return whether the server is running, and until when its model is available."""
    models = services.models
    body: schemas.Health = {"status": "ok", "model": models.get().name}
    configured = models.configured()
    if configured and configured.shutdown:
        body["shutdown_date"] = str(configured.shutdown)
    if warning := models.warning():
        body["warning"] = warning
    return JSONResponse(body)


@public_router.get("/config", summary="Get the limits of the server", responses=openapi.CONFIG)
async def config(services: ServicesDep) -> Response:
    """Return the limits and settings that a client needs before it sends a recording.

    `upload_max_bytes` is null if the server does not accept uploads.
    """
    settings = services.settings
    body: schemas.Config = {
        "direct_max_bytes": settings.max_audio_bytes,
        "upload_max_bytes": settings.max_upload_bytes if settings.bucket_name else None,
        "model": services.models.get().name,
        "auth": settings.auth,
    }
    return JSONResponse(body)


@authenticated_router.post(
    "/api/transcribe", summary="Transcribe a recording", **openapi.TRANSCRIBE
)
async def transcribe(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Transcribe a recording in one request.

    If the transcription takes longer than a request may take, it continues as a job. The response
    is then 202, and its `Location` header has the path of the job.
    """
    options, result = await _transcribe(request, services, caller, TranscribeOptions)
    if isinstance(result, Job):
        return responses.job(result, "", 202)
    return await _render(responses.transcription, result, options.response_format)


@authenticated_router.post(
    "/v1/audio/transcriptions",
    summary="Transcribe a recording (OpenAI-compatible)",
    **openapi.OPENAI_TRANSCRIBE,
)
async def openai_transcribe(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Transcribe a recording with the API of OpenAI.

    To use an SDK of OpenAI, change its `base_url` and `api_key`.
    """
    options, result = await _transcribe(request, services, caller, OpenAIOptions)
    if isinstance(result, Job):
        # OpenAI's clients do not support 202. If they send the recording again, it joins its job.
        raise UpstreamBusy(
            "Transcription is still running. Send the same request again to get the result;"
            " it is not billed twice.",
            safe_to_retry=True,
            retry_after=responses.POLL_SECONDS,
        )
    return await _render(responses.openai_transcription, result, options.response_format)


@authenticated_router.get(
    "/v1/models", summary="List the models (OpenAI-compatible)", responses=openapi.OPENAI_MODELS
)
async def models(services: ServicesDep) -> Response:
    """List the models that a request can choose, in the format of OpenAI.

    If the upstream is not OpenAI, only the default model of the server is listed.
    """
    at_openai = services.models.at_openai
    data: list[schemas.Model] = [
        {
            "id": model.name,
            "object": "model",
            "created": 0,
            "owned_by": "openai" if at_openai else "upstream",
            "shutdown_date": str(model.shutdown) if model.shutdown else None,
        }
        for model in services.models.available()
    ]
    body: schemas.Models = {"object": "list", "data": data}
    return JSONResponse(body)


async def _transcribe(
    request: Request, services: Services, caller: Caller, options_type: type[Options]
) -> tuple[Options, Transcript | Job]:
    if request.query_params:
        raise InvalidRequest(
            "Query parameters are not supported. Send options as form fields next to `file`."
        )
    async with receive_form(request, services.settings.max_audio_bytes) as form:
        options = options_type.from_form(form.fields)
        deadline = request.state.deadline
        return options, await services.direct.transcribe(form.recording, options, caller, deadline)


async def _render(
    render: Callable[[Transcript, str], Response], transcript: Transcript, response_format: str
) -> Response:
    """Render subtitles in a thread, because breaking their lines is slow.

    Other formats are so fast that a thread switch would take longer.
    """
    if response_format in TIMED_FORMATS:
        return await anyio.to_thread.run_sync(render, transcript, response_format)
    return render(transcript, response_format)
