"""The JSON of every answer: for the type checker, and for /openapi.json; no other request reads this."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, WithJsonSchema, with_config
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

_STATUSES = ("awaiting_upload", "queued", "processing", "completed", "failed")
Date = Annotated[str, WithJsonSchema({"type": "string", "format": "date"})]
Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Status = Annotated[str, WithJsonSchema({"type": "string", "enum": list(_STATUSES)})]
Identity = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class Problem(TypedDict):
    """An error, as RFC 9457 has it; `code` is one of the words in the README's table."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


class OpenAIErrorDetail(TypedDict):
    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str


class OpenAIError(TypedDict):
    """An error in OpenAI's shape; its `code` is that of the problem."""

    error: OpenAIErrorDetail


class Health(TypedDict):
    """`model` is the one that answers today."""

    status: Literal["ok"]
    model: str
    shutdown_date: NotRequired[Date]
    warning: NotRequired[str]


class Config(TypedDict):
    """`upload_max_bytes` is null where there are no uploads."""

    direct_max_bytes: int
    upload_max_bytes: int | None
    model: str
    auth: Literal["token", "jwt", "open"]


class Model(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    shutdown_date: Date | None


class Models(TypedDict):
    object: Literal["list"]
    data: list[Model]


class UploadForm(TypedDict):
    """A presigned POST: all `fields`, and then `file`, to `url`."""

    url: str
    fields: dict[str, str]


class Awaited(TypedDict):
    """A job that awaits its recording."""

    id: Identity
    status: Literal["awaiting_upload"]
    upload: UploadForm
    expires_at: Time


class Progress(TypedDict):
    """Parts of the recording; `total` is null until it is cut."""

    done: Count
    total: Count | None


class Failure(TypedDict):
    code: str
    detail: str


class Job(TypedDict):
    """How a job stands; `transcript` is plain text, and while it is not finished the text so far."""

    id: Identity
    status: Status
    filename: str
    created_at: Time
    progress: Progress
    duration: Seconds | None
    model: str | None
    seconds_paid: Seconds
    no_speech: bool | None
    transcript: str
    error: Failure | None


class Transcript(TypedDict):
    transcript: str


class Segment(TypedDict):
    """`start` and `end` in seconds from the recording's beginning."""

    id: Count
    start: float
    end: float
    text: str
    speaker: NotRequired[str]


class VerboseTranscript(TypedDict):
    """The answer to `response_format=verbose_json`; `duration` in seconds."""

    transcript: str
    language: str | None
    duration: Seconds | None
    segments: list[Segment]
    no_speech: bool
    model: str


@with_config(ConfigDict(extra="allow"))
class OpenAITranscript(TypedDict):
    """OpenAI's own body: with `text`, whatever the format and the model add."""

    text: str


ALL: tuple[Any, ...] = (
    *(Problem, OpenAIError, Health, Config, Models, Awaited, Job),
    *(Transcript, VerboseTranscript, OpenAITranscript),
)
