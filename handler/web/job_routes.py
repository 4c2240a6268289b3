"""Routes for jobs: create a job with an upload, poll it, get its transcript, retry or delete it."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import anyio.to_thread
from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from handler.errors import (
    EmptyRecording,
    InvalidOption,
    JobFailed,
    NotReady,
    RecordingTooLarge,
    UnsupportedMedia,
)
from handler.jobs.job import Job
from handler.jobs.parts import seconds_paid_for
from handler.jobs.stalled import is_stalled
from handler.services import Services
from handler.transcription.options import FormatName, TranscribeOptions, check_granularities
from handler.transcripts.formats import TIMED_FORMATS
from handler.transcripts.words import join_texts
from handler.web import openapi, responses
from handler.web.auth import AuthenticatedRoute, CallerDep, ServicesDep, bearer

if TYPE_CHECKING:
    from handler.web import schemas

log = logging.getLogger("steno")

router = APIRouter(
    prefix="/api",
    route_class=AuthenticatedRoute,
    dependencies=[Depends(bearer)],
    tags=[openapi.UPLOADS_AND_JOBS],
)

JobId = Annotated[str, Path(alias="id", description="Id of the job.")]
# The fields of an upload that are not options of its job. A job always has all timestamps.
_NOT_OPTIONS = {"filename", "content_type", "size", "timestamp_granularities"}
_UNKNOWN_TYPE = "application/octet-stream"


Granularities = tuple[Literal["word", "segment"], ...]


def _granularities(
    with_brackets: Annotated[
        Granularities,
        Query(
            alias="timestamp_granularities[]",
            description="Timestamps to return. Requires `response_format=verbose_json`."
            " Default: `segment`.",
        ),
    ] = (),
    without_brackets: Annotated[
        Granularities, Query(alias="timestamp_granularities", include_in_schema=False)
    ] = (),
) -> Granularities:
    return (*with_brackets, *without_brackets)


class Upload(TranscribeOptions):
    """The recording to upload, and the options for its transcription."""

    filename: str = Field(
        "", max_length=1000, description="File name of the recording. The job includes it."
    )
    content_type: str = Field(
        "",
        max_length=200,
        description="Media type of the recording, such as `audio/webm`. Empty if it is not known.",
    )
    size: int = Field(
        description="Size of the recording in bytes. The upload form rejects larger files.",
        json_schema_extra={"minimum": 1},
    )


@router.post(
    "/uploads",
    summary="Create an upload for a large recording",
    status_code=201,
    responses=openapi.UPLOADS,
)
async def create_upload(upload: Upload, services: ServicesDep, caller: CallerDep) -> Response:
    """Create a job, and return a presigned form for uploading its recording.

    To upload the recording, POST a form to `upload.url`. The form must contain all `upload.fields`,
    followed by the recording in the field `file`. Transcription starts automatically after the
    upload.
    """
    jobs = services.jobs
    _check(upload, services)
    options = upload.model_dump(exclude=_NOT_OPTIONS, exclude_defaults=True)
    await anyio.to_thread.run_sync(jobs.budget.check, caller.account)
    job, form = await anyio.to_thread.run_sync(
        jobs.create,
        upload.filename,
        upload.content_type or _UNKNOWN_TYPE,
        upload.size,
        options,
        caller,
    )
    body: schemas.Awaited = {
        "id": job.id,
        "status": "awaiting_upload",
        "upload": {"url": form["url"], "fields": form["fields"]},
        "expires_at": responses.date(job.created_at + jobs.upload_seconds),
    }
    return JSONResponse(body, 201, headers={"Location": responses.address(job.id)})


def _check(upload: Upload, services: Services) -> None:
    limit = services.settings.max_upload_bytes
    if upload.size <= 0:
        raise EmptyRecording("The recording is empty. `size` must be at least 1.")
    if upload.size > limit:
        raise RecordingTooLarge(
            f"The recording is larger than {limit:,} bytes, the limit for uploads to this server."
            " Send a shorter one."
        )
    media_type = upload.content_type.partition(";")[0].strip().lower()
    is_media = media_type.startswith(("audio/", "video/"))
    # S3 stores the type, and returns it in a response header.
    is_header_value = upload.content_type.isascii() and upload.content_type.isprintable()
    if media_type not in ("", _UNKNOWN_TYPE) and not (is_media and is_header_value):
        raise UnsupportedMedia(
            f"`content_type` {media_type[:100]} is not an audio or video type."
            " Leave it empty if the type is not known."
        )
    upload.upstream_parameters(services.models.get(upload.model), services.models)


@router.get("/transcriptions/{id}", summary="Get a job", responses=openapi.JOB)
async def transcription(identity: JobId, services: ServicesDep, caller: CallerDep) -> Response:
    """Return the status of a job, and the text transcribed so far."""
    job, text = await anyio.to_thread.run_sync(_get_job_and_text, services, identity, caller.owner)
    return responses.job(job, text)


@router.get(
    "/transcriptions/{id}/transcript",
    summary="Get the transcript of a job",
    responses=openapi.TRANSCRIPT,
)
async def transcript(
    identity: JobId,
    services: ServicesDep,
    caller: CallerDep,
    granularities: Annotated[Granularities, Depends(_granularities)],
    response_format: Annotated[FormatName, Query(description="Format of the transcript.")] = "json",
) -> Response:
    """Return the transcript of a completed job.

    The formats `srt`, `vtt` and `verbose_json` require a transcript with timestamps.
    """
    check_granularities(granularities, response_format)
    job = await anyio.to_thread.run_sync(services.jobs.get, identity, caller.owner)
    if job.status == "failed":
        raise JobFailed(job.id, **(job.error or {"code": JobFailed.code, "detail": ""}))
    if job.status != "completed":
        raise NotReady("The job is not finished yet. Try again later.", responses.poll_seconds(job))
    result = await anyio.to_thread.run_sync(services.jobs.transcript, job)
    if response_format in TIMED_FORMATS and result.text and not result.segments:
        raise InvalidOption(
            "response_format",
            f"{response_format} requires timestamps, but this transcript has none. Use json or"
            f" text, or upload the recording again with response_format={response_format}.",
        )
    return await anyio.to_thread.run_sync(
        responses.transcription, result, response_format, granularities
    )


@router.post(
    "/transcriptions/{id}/retry",
    summary="Retry a failed job",
    status_code=202,
    responses=openapi.RETRY,
)
async def retry(identity: JobId, services: ServicesDep, caller: CallerDep) -> Response:
    """Transcribe the recording of a failed job again, without another upload.

    Only the parts that have no transcript yet are sent to the upstream and billed.
    """
    await anyio.to_thread.run_sync(services.jobs.retry, identity, caller)
    job, text = await anyio.to_thread.run_sync(_get_job_and_text, services, identity, caller.owner)
    return responses.job(job, text, 202)


@router.delete(
    "/transcriptions/{id}",
    summary="Delete a job",
    status_code=204,
    responses=openapi.DELETE,
)
async def delete(identity: JobId, services: ServicesDep, caller: CallerDep) -> Response:
    """Delete a job, along with its recording, parts and transcript, even if it is not finished."""
    await anyio.to_thread.run_sync(services.jobs.delete, identity, caller.owner)
    return Response(status_code=204)


def _get_job_and_text(services: Services, identity: str, owner: str) -> tuple[Job, str]:
    """Return the job, and the text transcribed so far.

    Until the job is completed, `done` and `seconds_paid` are computed from its saved parts.
    """
    jobs = services.jobs
    job = jobs.get(identity, owner, consistent=False)
    if is_stalled(job):
        log.error("Job %s has made no progress for hours.", job.id)
        services.metrics.emit(JobsStalled=1)
    if job.status == "completed":
        return job, jobs.transcript(job).text
    if job.status not in ("processing", "failed"):
        return job, ""
    saved = jobs.parts.saved(identity, job.generation, consistent=False)
    paid = job.paid_earlier + seconds_paid_for(saved)
    job = replace(job, done=len(saved), seconds_paid=round(paid, 3))
    return job, join_texts(part.text for part in saved)
