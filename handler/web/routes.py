"""Routes for transcription in one request, and for the server's health, limits and models."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated

import anyio.to_thread
from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import JSONResponse

from handler.errors import InvalidRequest, NotFound, UpstreamBusy
from handler.jobs.job import Job
from handler.services import Services
from handler.transcription.listener import Listener
from handler.transcription.options import OpenAIOptions, Options, TranscribeOptions
from handler.transcripts.formats import TIMED_FORMATS
from handler.transcripts.transcript import Transcript
from handler.upstream.models import server_at
from handler.upstream.profiles import Model
from handler.web import openapi, responses, streaming
from handler.web.auth import AuthenticatedRoute, CallerDep, ServicesDep, bearer
from handler.web.form import Form, receive_form

if TYPE_CHECKING:
    from handler.web import schemas

public_router = APIRouter(prefix="/api", tags=[openapi.SERVER])
authenticated_router = APIRouter(route_class=AuthenticatedRoute, dependencies=[Depends(bearer)])


@public_router.get("/health", summary="Get the health of the server", responses=openapi.HEALTH)
async def health(services: ServicesDep) -> Response:
    """Return the health of the server, and the shutdown date of its model if there is one."""
    models = services.models
    body: schemas.Health = {"status": "ok", "model": models.get().full_name}
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
        "model": services.models.get().full_name,
        "auth": settings.auth,
    }
    return JSONResponse(body)


@authenticated_router.post(
    "/api/transcribe",
    summary="Transcribe a recording",
    tags=[openapi.TRANSCRIPTION],
    **openapi.TRANSCRIBE,
)
async def transcribe(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Transcribe a recording in one request.

    If the transcription takes longer than the time limit for a request, it continues as a job. The
    response then has the status 202, and its `Location` header contains the path of the job.
    """
    async with _receive(request, services) as form:
        options = TranscribeOptions.from_form(form.fields)
        result = await services.direct.transcribe(
            form.recording, options, caller, request.state.deadline
        )
    if isinstance(result, Job):
        return responses.job(result, "", 202)
    return await _render(responses.transcription, result, options)


@authenticated_router.post(
    "/v1/audio/transcriptions",
    summary="Transcribe a recording (OpenAI-compatible)",
    tags=[openapi.OPENAI_API],
    **openapi.OPENAI_TRANSCRIBE,
)
async def openai_transcribe(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Transcribe a recording with an API that is compatible with OpenAI's.

    To use an OpenAI SDK, change its `base_url` and `api_key`. With `stream=true`, the response
    consists of server-sent events. An API Gateway HTTP API cannot stream responses, so on AWS all
    events are sent at the end.
    """
    async with AsyncExitStack() as resources:
        form = await resources.enter_async_context(_receive(request, services))
        options = OpenAIOptions.from_form(form.fields)
        transcribe = partial(
            services.direct.transcribe, form.recording, options, caller, request.state.deadline
        )
        if options.stream and "aws.event" not in request.scope:
            recording = resources.pop_all()

            async def transcribe_and_delete(listener: Listener) -> Transcript | Job:
                async with recording:
                    return await transcribe(listener)

            return await streaming.live_response(
                request, transcribe_and_delete, options.response_format
            )
        result = await transcribe()
    if isinstance(result, Job):
        # OpenAI's clients do not support 202. If a client sends the request again, the new request
        # waits for the same job.
        raise UpstreamBusy(
            "Transcription is still running. Send the same request again to get the result;"
            " it is not billed twice.",
            safe_to_retry=True,
            retry_after=responses.POLL_SECONDS,
        )
    if options.stream:
        return streaming.buffered_response(result, options.response_format)
    return await _render(responses.openai_transcription, result, options)


@authenticated_router.get(
    "/v1/models",
    summary="List the models (OpenAI-compatible)",
    tags=[openapi.OPENAI_API],
    responses=openapi.OPENAI_MODELS,
)
async def models(services: ServicesDep) -> Response:
    """List the models that a request can choose, in OpenAI's format.

    An upstream may have models that are not in this list. A request can choose them too, unless the
    upstream is OpenAI.
    """
    data = [_describe(model) for model in services.models.available()]
    body: schemas.Models = {"object": "list", "data": data}
    return JSONResponse(body)


@authenticated_router.get(
    "/v1/models/{id:path}",
    summary="Get a model (OpenAI-compatible)",
    tags=[openapi.OPENAI_API],
    responses=openapi.OPENAI_MODEL,
)
async def model(
    name: Annotated[str, Path(alias="id", description="Name of the model.")],
    services: ServicesDep,
) -> Response:
    """Return a model that requests can choose, in OpenAI's format."""
    found = services.models.find_available(name)
    if found is None:
        raise NotFound(
            f"There is no model `{name[:100]}` on this server. GET /v1/models lists the models."
        )
    return JSONResponse(_describe(found))


def _describe(model: Model) -> "schemas.Model":
    return {
        "id": model.full_name,
        "object": "model",
        "created": 0,
        "owned_by": server_at(model.base_url) or "upstream",
        "shutdown_date": str(model.shutdown) if model.shutdown else None,
    }


def _receive(request: Request, services: Services) -> AbstractAsyncContextManager[Form]:
    """Receive the form of a request. The recording is deleted at the end of the `with` block."""
    if request.query_params:
        raise InvalidRequest(
            "Query parameters are not supported. Send options as form fields, along with `file`."
        )
    return receive_form(request, services.settings.max_audio_bytes)


async def _render(
    render: Callable[[Transcript, str, Sequence[str]], Response],
    transcript: Transcript,
    options: Options,
) -> Response:
    """Render a transcript. Subtitles are rendered in a thread, because line breaking is slow.

    Rendering any other format takes less time than a thread switch.
    """
    arguments = (transcript, options.response_format, options.timestamp_granularities)
    if options.response_format in TIMED_FORMATS:
        return await anyio.to_thread.run_sync(render, *arguments)
    return render(*arguments)
