"""A multipart request, taken as it arrives: its fields in memory, its recording straight into a temp file."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import TemporaryFile
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from handler.errors import InvalidRequest, RecordingTooLarge

_MAX_PARTS = 64
_MAX_FIELD_BYTES = 64 * 1024
_FRAME_BYTES = 64 * 1024  # what a form's own headers and fields may add to a recording of the greatest size


class Form:
    """`recording` is an open temp file without a name: whatever happens to the process, nothing stays in /tmp."""

    def __init__(self, recording: BinaryIO, max_bytes: int) -> None:
        self.recording = recording
        self.fields: dict[str, list[str]] = {}
        self._max_bytes = max_bytes
        self._recordings = 0
        self._recorded_bytes = 0
        self._parts = 0
        self._ended = False
        self._header = bytearray()
        self._header_value = bytearray()
        self._disposition = b""
        self._name = ""
        self._text = bytearray()

    def parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._take_header_name,
                "on_header_value": self._take_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._take_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise InvalidRequest(f"The form has more than {_MAX_PARTS} parts.")
        self._disposition = b""
        self._text.clear()

    def _take_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header.clear()
        self._header_value.clear()

    def _end_headers(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        if b"name" not in parameters:
            raise InvalidRequest("A part of the form has no name.")
        self._name = parameters[b"name"].decode("utf-8", "replace")
        if self._name == "file":
            self._recordings += 1
            if self._recordings > 1:
                raise InvalidRequest("The form has more than one `file`; send one recording a request.")
        elif b"filename" in parameters:
            raise InvalidRequest(f"The recording belongs in the field `file`, not `{self._name}`.")

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        piece = memoryview(data)[start:end]
        if self._name == "file":
            self._recorded_bytes += len(piece)
            if self._recorded_bytes > self._max_bytes:
                raise _too_large(self._max_bytes)
            # Into the page cache, which takes less time than a way to another thread and back would.
            self.recording.write(piece)
        else:
            self._text += piece
            if len(self._text) > _MAX_FIELD_BYTES:
                raise InvalidRequest(f"The field `{self._name}` is longer than {_MAX_FIELD_BYTES:,} bytes.")

    def _end_part(self) -> None:
        if self._name == "file":
            return
        try:
            self.fields.setdefault(self._name, []).append(self._text.decode())
        except UnicodeDecodeError:
            raise InvalidRequest(f"The field `{self._name}` is not UTF-8.") from None

    def _end(self) -> None:
        self._ended = True

    def finish(self) -> None:
        if not self._ended:
            raise InvalidRequest("The form stops before its last boundary; a part of the recording is missing.")
        if not self._recordings:
            raise InvalidRequest("The form has no `file`; the recording belongs there.")
        self.recording.seek(0)


@asynccontextmanager
async def received_form(request: Request, max_bytes: int) -> AsyncIterator[Form]:
    """The request's form, its recording at most `max_bytes` long; the temp file is gone at the end."""
    boundary = _boundary(request)
    claimed = request.headers.get("content-length", "")
    if claimed.isdecimal() and int(claimed) > max_bytes + _FRAME_BYTES:
        raise _too_large(max_bytes)
    with TemporaryFile(prefix="steno-") as file:
        form = Form(file, max_bytes)
        await _read(request, form, boundary)
        yield form


async def _read(request: Request, form: Form, boundary: bytes) -> None:
    try:
        parser = form.parser(boundary)
        async for chunk in request.stream():
            parser.write(chunk)
    except FormParserError as error:
        raise InvalidRequest(f"The body is no well-formed multipart form: {error}.") from None
    form.finish()


def _boundary(request: Request) -> bytes:
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise InvalidRequest("Send the recording as `multipart/form-data`, in the field `file`.")
    if not parameters.get(b"boundary"):
        raise InvalidRequest("The Content-Type of the form names no boundary. Let your HTTP client set that header.")
    return parameters[b"boundary"]


def _too_large(max_bytes: int) -> RecordingTooLarge:
    return RecordingTooLarge(f"The recording is larger than {max_bytes:,} bytes, the most that one request takes.")
