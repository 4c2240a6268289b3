"""A multipart request, taken as it arrives: its fields in memory, its recording straight into a temp file."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from handler.errors import InvalidRequest, RecordingTooLarge

_MAX_PARTS = 1_100  # a thousand keywords, and what else there is
# All fields together: the largest are samples of up to four known speakers, of ten seconds each.
_MAX_FIELDS_BYTES = 6_000_000
_FRAME_BYTES = 1024 * 1024  # what the form's own headers may add
_MOST_DIGITS = 18  # Python takes no number of any length


@dataclass
class Form:
    """`recording` is an open temp file without a name: whatever happens to the process, nothing stays in /tmp."""

    recording: BinaryIO
    fields: dict[str, list[str]] = field(default_factory=dict)


@asynccontextmanager
async def received_form(request: Request, max_bytes: int) -> AsyncIterator[Form]:
    """The request's form, its recording at most `max_bytes` long; the temp file is gone at the end."""
    boundary = _boundary(request)
    claimed = request.headers.get("content-length", "")
    if claimed.isdecimal() and (
        len(claimed) > _MOST_DIGITS or int(claimed) > _most_bytes(max_bytes)
    ):
        raise _too_large(max_bytes)
    with TemporaryFile(prefix="steno-") as file:
        form = Form(file)
        await _fill(form, request, boundary, max_bytes)
        yield form


async def _fill(form: Form, request: Request, boundary: bytes, max_bytes: int) -> None:
    reader = _Reader(form, max_bytes)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.begin_part,
                "on_header_field": reader.take_header_name,
                "on_header_value": reader.take_header_value,
                "on_header_end": reader.end_header,
                "on_headers_finished": reader.end_headers,
                "on_part_data": reader.take_data,
                "on_part_end": reader.end_part,
                "on_end": reader.end,
            },
        )
        left = _most_bytes(max_bytes)
        async for chunk in request.stream():
            left -= len(chunk)
            if left < 0:  # before the form, or after it
                raise _too_large(max_bytes)
            parser.write(chunk)
    except FormParserError as error:
        raise InvalidRequest(f"The body is no well-formed multipart form: {error}.") from None
    reader.finish()


class _Reader:
    """The parser's callbacks: puts what arrives where it belongs, and refuses what does not fit."""

    def __init__(self, form: Form, max_bytes: int) -> None:
        self._form = form
        self._max_bytes = max_bytes
        self._parts = 0
        self._recordings = 0
        self._recorded_bytes = 0
        self._field_bytes = 0
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._disposition = b""
        self._name = ""
        self._text = bytearray()
        self._ended = False

    def begin_part(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise InvalidRequest(
                f"The form has more than {_MAX_PARTS:,} parts; send fewer `keywords`."
            )
        self._disposition = b""
        self._text.clear()

    def take_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def end_headers(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        if b"name" not in parameters:
            raise InvalidRequest("A part of the form has no name.")
        self._name = parameters[b"name"].decode("utf-8", "replace")
        if self._name == "file":
            self._recordings += 1
            if self._recordings > 1:
                raise InvalidRequest(
                    "The form has more than one `file`; send one recording a request."
                )
        elif b"filename" in parameters:
            raise InvalidRequest(
                f"The recording belongs in the field `file`, not `{self._name[:100]}`."
            )

    def take_data(self, data: bytes, start: int, end: int) -> None:
        piece = memoryview(data)[start:end]
        if self._name == "file":
            self._recorded_bytes += len(piece)
            if self._recorded_bytes > self._max_bytes:
                raise _too_large(self._max_bytes)
            # Into the page cache, which takes less time than a way to another thread and back would.
            self._form.recording.write(piece)
        else:
            self._field_bytes += len(piece)
            if self._field_bytes > _MAX_FIELDS_BYTES:
                raise InvalidRequest(
                    f"The fields beside `file` are longer than {_MAX_FIELDS_BYTES:,} bytes."
                )
            self._text += piece

    def end_part(self) -> None:
        if self._name == "file":
            return
        try:
            self._form.fields.setdefault(self._name, []).append(self._text.decode())
        except UnicodeDecodeError:
            raise InvalidRequest(f"The field `{self._name[:100]}` is not UTF-8.") from None

    def end(self) -> None:
        self._ended = True

    def finish(self) -> None:
        if not self._ended:
            raise InvalidRequest(
                "The form stops before its last boundary; a part of the recording is missing."
            )
        if not self._recordings:
            raise InvalidRequest("The form has no `file`; the recording belongs there.")
        self._form.recording.seek(0)


def _most_bytes(max_bytes: int) -> int:
    """Of the whole form, with the greatest recording and all there may be beside it."""
    return max_bytes + _MAX_FIELDS_BYTES + _FRAME_BYTES


def _boundary(request: Request) -> bytes:
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise InvalidRequest("Send the recording as `multipart/form-data`, in the field `file`.")
    if not parameters.get(b"boundary"):
        raise InvalidRequest(
            "The Content-Type of the form names no boundary. Let your HTTP client set that header."
        )
    return parameters[b"boundary"]


def _too_large(max_bytes: int) -> RecordingTooLarge:
    return RecordingTooLarge(
        f"The recording is larger than {max_bytes:,} bytes, the most that one request takes. Send a shorter one."
        " Larger ones go by /api/uploads, where the server has a bucket."
    )
