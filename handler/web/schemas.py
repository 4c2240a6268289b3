"""The JSON bodies of all responses. The type checker and `/openapi.json` use them.

At run time, this module is imported only when `/openapi.json` is requested.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, WithJsonSchema, with_config
from typing_extensions import TypedDict  # pydantic requires this one before Python 3.12

_STATUSES = ("awaiting_upload", "queued", "processing", "completed", "failed")
Date = Annotated[str, WithJsonSchema({"type": "string", "format": "date"})]
Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Status = Annotated[str, WithJsonSchema({"type": "string", "enum": list(_STATUSES)})]
Identity = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
StartTime = Annotated[
    float, Field(description="Start time in seconds, from the beginning of the recording.")
]
EndTime = Annotated[
    float, Field(description="End time in seconds, from the beginning of the recording.")
]


class Problem(TypedDict):
    """An error as problem details (RFC 9457)."""

    type: Annotated[str, Field(description="URL of the explanation of `code`, on this server.")]
    title: Annotated[str, Field(description="Name of the HTTP status.")]
    status: Annotated[int, Field(description="HTTP status code.")]
    detail: Annotated[str, Field(description="Description of the problem and how to solve it.")]
    code: Annotated[str, Field(description="Stable error code, for use in programs.")]
    request_id: Annotated[
        str, Field(description="Id of the request. The server log also contains this id.")
    ]


class OpenAIErrorDetail(TypedDict):
    """The error inside an OpenAI error body."""

    message: Annotated[str, Field(description="Description of the problem and how to solve it.")]
    type: Annotated[
        Literal["invalid_request_error", "server_error"],
        Field(
            description="`invalid_request_error` for 4xx statuses, `server_error` for 5xx statuses."
        ),
    ]
    param: Annotated[str | None, Field(description="Name of the invalid form field, or null.")]
    code: Annotated[str, Field(description="Stable error code, for use in programs.")]


class OpenAIError(TypedDict):
    """An error in the format of OpenAI's API."""

    error: Annotated[OpenAIErrorDetail, Field(description="Details of the error.")]


class Health(TypedDict):
    """Health of the server."""

    status: Annotated[Literal["ok"], Field(description="Always `ok`.")]
    model: Annotated[str, Field(description="Name of the model that the server uses by default.")]
    shutdown_date: NotRequired[
        Annotated[Date, Field(description="Date on which OpenAI shuts down the configured model.")]
    ]
    warning: NotRequired[
        Annotated[str, Field(description="Warning about the model, for the owner of the server.")]
    ]


class Config(TypedDict):
    """Limits and settings of the server."""

    direct_max_bytes: Annotated[
        int, Field(description="Maximum size of a recording in one request, in bytes.")
    ]
    upload_max_bytes: Annotated[
        int | None,
        Field(
            description="Maximum size of an uploaded recording, in bytes."
            " Null if the server has no bucket."
        ),
    ]
    model: Annotated[str, Field(description="Name of the model that the server uses by default.")]
    auth: Annotated[
        Literal["token", "jwt", "open"],
        Field(
            description="How callers authenticate: `token`, `jwt` or `open` (no authentication)."
        ),
    ]


class Model(TypedDict):
    """A model that a request can choose."""

    id: Annotated[str, Field(description="Name of the model.")]
    object: Annotated[Literal["model"], Field(description="Always `model`.")]
    created: Annotated[int, Field(description="Always 0. Present only for compatibility.")]
    owned_by: Annotated[
        str, Field(description="`openai` if the upstream is OpenAI, otherwise `upstream`.")
    ]
    shutdown_date: Annotated[
        Date | None,
        Field(description="Date on which OpenAI shuts down the model. Null if no date is set."),
    ]


class Models(TypedDict):
    """The models that a request can choose, in the format of OpenAI's API."""

    object: Annotated[Literal["list"], Field(description="Always `list`.")]
    data: Annotated[list[Model], Field(description="The models.")]


class UploadForm(TypedDict):
    """A presigned form. POST it to `url`, with all `fields` before the recording in `file`."""

    url: Annotated[str, Field(description="URL to which the form is posted.")]
    fields: Annotated[dict[str, str], Field(description="Form fields to send before `file`.")]


class Awaited(TypedDict):
    """A job whose recording has not been uploaded yet."""

    id: Annotated[Identity, Field(description="Id of the job.")]
    status: Annotated[Literal["awaiting_upload"], Field(description="Always `awaiting_upload`.")]
    upload: Annotated[UploadForm, Field(description="Form for uploading the recording.")]
    expires_at: Annotated[Time, Field(description="Time at which the form expires.")]


class Progress(TypedDict):
    """Progress of a job, measured in parts of its recording."""

    done: Annotated[Count, Field(description="Number of transcribed parts.")]
    total: Annotated[
        Count | None,
        Field(
            description="Total number of parts."
            " Null at first, then an estimate until all parts are cut."
        ),
    ]


class Failure(TypedDict):
    """The error that caused a job to fail."""

    code: Annotated[str, Field(description="Stable error code, for use in programs.")]
    detail: Annotated[str, Field(description="Description of the problem and how to solve it.")]


class Job(TypedDict):
    """Status of a job."""

    id: Annotated[Identity, Field(description="Id of the job.")]
    status: Annotated[Status, Field(description="Status of the job.")]
    filename: Annotated[str, Field(description="File name of the recording.")]
    created_at: Annotated[Time, Field(description="Time at which the job was created.")]
    progress: Annotated[
        Progress, Field(description="Progress of the job, measured in parts of its recording.")
    ]
    duration: Annotated[
        Seconds | None,
        Field(description="Duration of the recording in seconds. Null until it is known."),
    ]
    model: Annotated[
        str | None,
        Field(
            description="Name of the model that transcribed the recording. Null until it is known."
        ),
    ]
    seconds_paid: Annotated[
        Seconds, Field(description="Seconds of audio that were billed, or may have been billed.")
    ]
    no_speech: Annotated[
        bool | None,
        Field(
            description="Whether the recording contains no speech. Null until the job is completed."
        ),
    ]
    transcript: Annotated[
        str,
        Field(description="Transcript as plain text. Incomplete until the job is completed."),
    ]
    error: Annotated[
        Failure | None,
        Field(description="The error that caused the job to fail. Null if the job has not failed."),
    ]


class Transcript(TypedDict):
    """Response for `response_format=json`."""

    transcript: Annotated[str, Field(description="Transcript as plain text.")]


class Segment(TypedDict):
    """A passage of the transcript, with its timestamps."""

    id: Annotated[Count, Field(description="Index of the segment, starting at 0.")]
    start: StartTime
    end: EndTime
    text: Annotated[str, Field(description="Text of the segment.")]
    speaker: NotRequired[
        Annotated[str, Field(description="Label of the speaker, if the model identifies speakers.")]
    ]


class Word(TypedDict):
    """A word of the transcript, with its timestamps."""

    word: Annotated[str, Field(description="The word, with its punctuation.")]
    start: StartTime
    end: EndTime


class VerboseTranscript(TypedDict):
    """Response for `response_format=verbose_json`."""

    transcript: Annotated[str, Field(description="Transcript as plain text.")]
    language: Annotated[
        str | None, Field(description="Language of the recording. Null if it is not known.")
    ]
    duration: Annotated[
        Seconds | None,
        Field(description="Duration of the recording in seconds. Null if it is not known."),
    ]
    segments: Annotated[
        list[Segment], Field(description="Segments of the transcript, in chronological order.")
    ]
    words: NotRequired[
        Annotated[
            list[Word],
            Field(
                description="Words of the transcript, in chronological order."
                " Present if `timestamp_granularities` contains `word`."
            ),
        ]
    ]
    no_speech: Annotated[bool, Field(description="Whether the transcript is empty.")]
    model: Annotated[str, Field(description="Name of the model that transcribed the recording.")]


@with_config(ConfigDict(extra="allow"))
class OpenAITranscript(TypedDict):
    """Response in the format of OpenAI's API. Other fields depend on the format and model."""

    text: Annotated[str, Field(description="Transcript as plain text.")]


ALL: tuple[Any, ...] = (
    *(Problem, OpenAIError, Health, Config, Models, Awaited, Job),
    *(Transcript, VerboseTranscript, OpenAITranscript),
)
