"""The routes of jobs: large recordings go to the bucket, and are transcribed without another call."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import anyio.to_thread
from fastapi import APIRouter, Depends, Query, Response
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
from handler.transcription.options import FormatName, TranscribeOptions
from handler.transcripts.formats import TIMED_FORMATS
from handler.transcripts.words import joined_text
from handler.web import openapi, responses
from handler.web.auth import AuthenticatedRoute, CallerDep, ServicesDep, bearer

if TYPE_CHECKING:
    from handler.web import schemas

log = logging.getLogger("steno")

router = APIRouter(prefix="/api", route_class=AuthenticatedRoute, dependencies=[Depends(bearer)])

_OF_THE_FILE = {"filename", "content_type", "size"}
_ANY_TYPE = "application/octet-stream"


class Upload(TranscribeOptions):
    """What is going to be uploaded, and how it is to be transcribed."""

    filename: str = Field("", max_length=1000)
    content_type: str = Field(
        "", description="As the browser says it; empty where it says nothing.", max_length=200
    )
    size: int = Field(
        description="Bytes. The form takes no more than that.", json_schema_extra={"minimum": 1}
    )


@router.post("/uploads", status_code=201, responses=openapi.UPLOADS)
async def create_upload(upload: Upload, services: ServicesDep, caller: CallerDep) -> Response:
    """A job, and the form to upload its recording with: POST `upload.fields` and then `file` to `upload.url`."""
    jobs = services.jobs
    _check(upload, services)
    options = upload.model_dump(exclude=_OF_THE_FILE, exclude_defaults=True)
    await anyio.to_thread.run_sync(jobs.budget.check, caller.account)
    job, form = await anyio.to_thread.run_sync(
        jobs.create, upload.filename, upload.content_type or _ANY_TYPE, upload.size, options, caller
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
        raise EmptyRecording("The recording has no bytes: nothing was recorded.")
    if upload.size > limit:
        raise RecordingTooLarge(
            f"The recording is larger than {limit:,} bytes, the most that this server takes."
        )
    kind = upload.content_type.partition(";")[0].strip().lower()
    a_header = (
        upload.content_type.isascii() and upload.content_type.isprintable()
    )  # which the bucket keeps, and sends
    if kind and kind != _ANY_TYPE and not (kind.startswith(("audio/", "video/")) and a_header):
        raise UnsupportedMedia(
            f"{kind[:100]} is no audio or video. Leave content_type empty if it is not known."
        )
    upload.upstream_parameters(services.models.get(upload.model), services.models.today())


@router.get("/transcriptions/{identity}", responses=openapi.JOB)
async def transcription(identity: str, services: ServicesDep, caller: CallerDep) -> Response:
    """How the job stands, with the text so far."""
    job, text = await anyio.to_thread.run_sync(_read, services, identity, caller.owner)
    return responses.job(job, text)


@router.get("/transcriptions/{identity}/transcript", responses=openapi.TRANSCRIPT)
async def transcript(
    identity: str,
    services: ServicesDep,
    caller: CallerDep,
    response_format: Annotated[FormatName, Query()] = "json",
) -> Response:
    """The whole transcript, in any format that the model's times allow."""
    job = await anyio.to_thread.run_sync(services.jobs.get, identity, caller.owner)
    if job.status == "failed":
        raise JobFailed(job.id, **(job.error or {"code": JobFailed.code, "detail": ""}))
    if job.status != "completed":
        raise NotReady("The job is not finished yet.", responses.poll_seconds(job))
    whole = await anyio.to_thread.run_sync(services.jobs.transcript, job)
    if response_format in TIMED_FORMATS and whole.text and not whole.segments:
        raise InvalidOption(
            "response_format", f"{whole.model} gave no times, and {response_format} needs them."
        )
    return await anyio.to_thread.run_sync(responses.transcription, whole, response_format)


@router.post("/transcriptions/{identity}/retry", status_code=202, responses=openapi.RETRY)
async def retry(identity: str, services: ServicesDep, caller: CallerDep) -> Response:
    """The same recording again, without an upload; only the parts that were not heard are sent."""
    await anyio.to_thread.run_sync(services.jobs.retry, identity, caller)
    job, text = await anyio.to_thread.run_sync(_read, services, identity, caller.owner)
    return responses.job(job, text, 202)


@router.delete("/transcriptions/{identity}", status_code=204, responses=openapi.DELETE)
async def delete(identity: str, services: ServicesDep, caller: CallerDep) -> Response:
    """Recording, parts and transcript are gone."""
    await anyio.to_thread.run_sync(services.jobs.delete, identity, caller.owner)
    return Response(status_code=204)


def _read(services: Services, identity: str, owner: str) -> tuple[Job, str]:
    """Return the job with what its parts tell until it ends, and the text so far."""
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
    return replace(job, done=len(saved), seconds_paid=round(paid, 3)), joined_text(
        part.text for part in saved
    )
