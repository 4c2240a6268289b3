"""Build responses for transcripts, jobs and errors, in Steno's format and in OpenAI's format."""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING, Any, cast

from fastapi.responses import JSONResponse, PlainTextResponse, Response

from handler.errors import (
    BudgetExhausted,
    InvalidOption,
    MethodNotAllowed,
    NotReady,
    StenoError,
    StorageUnavailable,
    UpstreamError,
)
from handler.jobs.job import Job
from handler.logs import request_id
from handler.transcripts.alignment import align_words
from handler.transcripts.formats import TIMED_FORMATS, render
from handler.transcripts.transcript import Transcript

if TYPE_CHECKING:
    from handler.web import schemas

# API Gateway allows 50 requests per second for each route. This is enough for 100 clients that
# poll at this interval.
POLL_SECONDS = 2
# Each pair contains the maximum age of a job and its polling interval, both in seconds.
_POLL_SECONDS_BY_AGE = ((30, POLL_SECONDS), (300, 5))
_MAX_POLL_SECONDS = 15
# The statuses below /v1 that OpenAI's SDKs retry, unless the header `x-should-retry` forbids it.
RETRIED_STATUSES = (429, *range(500, 600))
# Fields of a segment that OpenAI's specification requires. Some clients, such as Vercel's AI SDK,
# reject a response without them. Steno cannot calculate them, so the values are those of a segment
# that is certain: clients that ignore segments by a threshold keep it.
# https://platform.openai.com/docs/api-reference/audio/verbose-json-object
_SEGMENT_FIELDS: dict[str, Any] = {
    "seek": 0,
    "tokens": [],
    "temperature": 0.0,
    "avg_logprob": 0.0,
    "compression_ratio": 1.0,
    "no_speech_prob": 0.0,
}


def transcription(
    transcript: Transcript, response_format: str, granularities: Sequence[str] = ()
) -> Response:
    """Return a transcript in the format of Steno's own API.

    `granularities` are the requested timestamps: `word`, `segment`, or both.
    """
    headers = _transcript_headers(transcript, response_format, granularities)
    if (text := render(transcript, response_format)) is not None:
        return PlainTextResponse(text, headers=headers)
    if response_format == "json":
        short_body: schemas.Transcript = {"transcript": transcript.text}
        return JSONResponse(short_body, headers=headers)
    body: schemas.VerboseTranscript = {
        "transcript": transcript.text,
        "language": transcript.language,
        "duration": transcript.duration,
        "segments": _segments(transcript),
        "no_speech": not transcript.text,
        "model": transcript.model,
    }
    if "word" in granularities:
        body["words"] = _words(transcript)
    return JSONResponse(body, headers=headers)


def openai_transcription(
    transcript: Transcript, response_format: str, granularities: Sequence[str] = ()
) -> Response:
    """Return a transcript in the format of OpenAI's API.

    `granularities` are the requested timestamps. If the upstream returned the same format, its
    response body is returned, without the timestamps that were not requested.
    """
    headers = _transcript_headers(transcript, response_format, granularities)
    if (text := render(transcript, response_format)) is not None:
        return PlainTextResponse(text, headers=headers)
    return JSONResponse(openai_body(transcript, response_format, granularities), headers=headers)


def openai_body(
    transcript: Transcript, response_format: str, granularities: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the JSON body of a transcript in the format of OpenAI's API."""
    if transcript.answer and response_format == transcript.answer_format:
        body = dict(transcript.answer)
    else:
        body = _body_from_transcript(transcript)
    if response_format != "json":
        timed = _timed_fields(transcript, response_format)
        body = {**timed, **body, "segments": body.get("segments") or timed["segments"]}
    if "word" in granularities:
        body["words"] = _words(transcript)
        if "segment" not in granularities:
            del body["segments"]
    return body


def _body_from_transcript(transcript: Transcript) -> dict[str, Any]:
    """Return the body for a response format in which the upstream did not respond."""
    usage = transcript.answer.get("usage")
    if not usage or "type" not in usage:  # Mistral's usage has other fields
        usage = {"type": "duration", "seconds": ceil(transcript.duration or 0)}
    body = {"text": transcript.text, "usage": usage}
    if transcript.languages:
        body["languages"] = [{"code": code} for code in transcript.languages]
    return body


def _timed_fields(transcript: Transcript, response_format: str) -> dict[str, Any]:
    segments: Sequence[Mapping[str, Any]] = _segments(transcript)
    if response_format == "verbose_json":
        segments = [{**segment, **_SEGMENT_FIELDS} for segment in segments]
    return {
        "task": "transcribe",
        "language": transcript.language or "",
        "duration": transcript.duration or 0.0,
        "segments": segments,
    }


def job(job: Job, text: str, status: int = 200) -> Response:
    """Return the status of a job. `text` is its transcript so far."""
    body: schemas.Job = {
        "id": job.id,
        "status": job.status,
        "filename": job.filename,
        "created_at": date(job.created_at),
        "progress": _progress(job),
        "duration": job.duration,
        "model": job.model,
        "seconds_paid": job.seconds_paid,
        "no_speech": job.no_speech,
        "transcript": text,
        "error": cast("schemas.Failure | None", job.error),
    }
    headers = {"Location": address(job.id)} if status != HTTPStatus.OK else {}
    if not job.finished:
        headers["Retry-After"] = str(poll_seconds(job))
    return JSONResponse(body, status, headers=headers)


def poll_seconds(job: Job) -> int:
    """Return the number of seconds that a client should wait before it polls the job again.

    The interval grows with the age of the job.
    """
    age = time.time() - job.created_at
    return next(
        (seconds for max_age, seconds in _POLL_SECONDS_BY_AGE if age < max_age),
        _MAX_POLL_SECONDS,
    )


def _progress(job: Job) -> "schemas.Progress":
    if job.status == "completed":
        # A job whose result was already in the ledger has no parts. Report it as one part.
        total = job.total or 1
        return {"done": total, "total": total}
    return {"done": job.done, "total": job.expected_total}


def address(identity: str) -> str:
    """Return the URL path of a job."""
    return f"/api/transcriptions/{identity}"


def date(seconds: float) -> str:
    """Convert a Unix timestamp to an ISO 8601 string in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _transcript_headers(
    transcript: Transcript, response_format: str, granularities: Iterable[str]
) -> dict[str, str]:
    headers = {"Steno-Model": transcript.model}
    if response_format in TIMED_FORMATS and transcript.aligned is not None:
        aligned = {*transcript.aligned, *(("word",) if transcript.lacks_words else ())}
        is_aligned = not aligned.isdisjoint(granularities or ("segment",))
        headers["Steno-Timestamps"] = "aligned" if is_aligned else "model"
    return headers


def _words(transcript: Transcript) -> "list[schemas.Word]":
    """Return the words of all segments. Words without times are spread over their segment."""
    return [
        {"word": word.text, "start": word.start, "end": word.end}
        for segment in transcript.segments
        for word in align_words(segment).words
    ]


def _segments(transcript: Transcript) -> "list[schemas.Segment]":
    segments: list[schemas.Segment] = []
    for number, segment in enumerate(transcript.segments):
        segments.append(
            {"id": number, "start": segment.start, "end": segment.end, "text": segment.text}
        )
        if segment.speaker is not None:
            segments[-1]["speaker"] = segment.speaker
    return segments


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


def problem(error: StenoError, errors_page: str) -> Response:
    """Return an error as problem details (RFC 9457).

    `errors_page` is the URL of the page that explains the error codes.
    """
    status = HTTPStatus(error.status)
    body: schemas.Problem = {
        "type": f"{errors_page}#{error.code}",
        "title": status.phrase,
        "status": status,
        "detail": _utf8(error.detail),
        "code": error.code,
        "request_id": request_id(),
    }
    return ProblemResponse(body, status, headers=_error_headers(error))


def openai_error(error: StenoError) -> Response:
    """Return an error in the format of OpenAI's API.

    OpenAI's SDKs obey the header `x-should-retry`. It is `true` only if a retry can succeed
    and the recording cannot be billed twice.
    """
    headers = _error_headers(error)
    if error.status in RETRIED_STATUSES:
        should_retry = isinstance(error, StorageUnavailable) or (
            isinstance(error, UpstreamError) and error.safe_to_retry
        )
        headers["x-should-retry"] = "true" if should_retry else "false"
    return JSONResponse(openai_error_body(error), HTTPStatus(error.status), headers=headers)


def openai_error_body(error: StenoError) -> "schemas.OpenAIError":
    """Return the JSON body of an error in the format of OpenAI's API."""
    is_client_error = error.status < HTTPStatus.INTERNAL_SERVER_ERROR
    return {
        "error": {
            "message": _utf8(error.detail),
            "type": "invalid_request_error" if is_client_error else "server_error",
            "param": error.option if isinstance(error, InvalidOption) else None,
            "code": error.code,
        }
    }


def _utf8(text: str) -> str:
    """Replace lone surrogates with `?`. JSON can contain them, but UTF-8 cannot encode them."""
    return text.encode(errors="replace").decode()


def _error_headers(error: StenoError) -> dict[str, str]:
    headers = {"Location": address(error.job)} if error.job else {}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.allowed
    if (
        isinstance(error, UpstreamError | StorageUnavailable | NotReady | BudgetExhausted)
        and error.retry_after is not None
    ):
        headers["Retry-After"] = str(ceil(error.retry_after))
    return headers
