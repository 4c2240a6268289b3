"""Parse a multipart request while it arrives.

Fields are kept in memory. The recording is written to a temporary file.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from handler.errors import InvalidRequest, RecordingTooLarge

_MAX_PARTS = 1_100  # enough for 1,000 keywords and all other fields
# The limit for all fields together. The largest fields are voice samples: 10 seconds for each of
# up to four known speakers.
_MAX_FIELDS_BYTES = 6_000_000
_FRAMING_BYTES = 1024 * 1024  # for the boundaries and headers of the parts
_MAX_DIGITS = 18  # `int` raises ValueError for thousands of digits


@dataclass
class Form:
    """A parsed form: the recording and the text fields.

    `recording` is an open temporary file without a name, so nothing is left in /tmp even if the
    process is killed.
    """

    recording: BinaryIO
    fields: dict[str, list[str]] = field(default_factory=dict)


@asynccontextmanager
async def receive_form(request: Request, max_bytes: int) -> AsyncIterator[Form]:
    """Parse the form of a request. The temporary file is deleted when the `with` block ends.

    Raises RecordingTooLarge if the recording has more than `max_bytes` bytes, and
    InvalidRequest if the form is not valid.
    """
    boundary = _boundary(request)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (
        len(length) > _MAX_DIGITS or int(length) > _max_form_bytes(max_bytes)
    ):
        raise _too_large(max_bytes)
    with TemporaryFile(prefix="steno-") as file:
        form = Form(file)
        await _parse_body(form, request, boundary, max_bytes)
        yield form


async def _parse_body(form: Form, request: Request, boundary: bytes, max_bytes: int) -> None:
    reader = _Reader(form, max_bytes)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.begin_part,
                "on_header_field": reader.append_header_name,
                "on_header_value": reader.append_header_value,
                "on_header_end": reader.end_header,
                "on_headers_finished": reader.end_headers,
                "on_part_data": reader.append_data,
                "on_part_end": reader.end_part,
                "on_end": reader.end,
            },
        )
        remaining_bytes = _max_form_bytes(max_bytes)
        async for chunk in request.stream():
            remaining_bytes -= len(chunk)
            if remaining_bytes < 0:  # also counts bytes before and after the form
                raise _too_large(max_bytes)
            parser.write(chunk)
    except FormParserError as error:
        raise InvalidRequest(f"The body is not a valid multipart form: {error}.") from None
    reader.finish()


class _Reader:
    """Callbacks for the multipart parser, which fill the form and enforce its limits."""

    def __init__(self, form: Form, max_bytes: int) -> None:
        self._form = form
        self._max_bytes = max_bytes
        self._parts = 0
        self._recordings = 0
        self._recording_bytes = 0
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
                f"The form has more than {_MAX_PARTS:,} parts. Send fewer `keywords`."
            )
        self._disposition = b""
        self._text.clear()

    def append_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def append_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def end_headers(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        if b"name" not in parameters:
            raise InvalidRequest(
                "A part of the form has no name. Set `name` in its `Content-Disposition` header."
            )
        self._name = parameters[b"name"].decode("utf-8", "replace")
        if self._name == "file":
            self._recordings += 1
            if self._recordings > 1:
                raise InvalidRequest(
                    "The form has more than one `file`. Send one recording per request."
                )
        elif b"filename" in parameters:
            raise InvalidRequest(
                f"The recording must be in the field `file`, not `{self._name[:100]}`."
            )

    def append_data(self, data: bytes, start: int, end: int) -> None:
        content = memoryview(data)[start:end]
        if self._name == "file":
            self._recording_bytes += len(content)
            if self._recording_bytes > self._max_bytes:
                raise _too_large(self._max_bytes)
            # Do not use a thread: a write to the page cache is faster than a thread switch.
            self._form.recording.write(content)
        else:
            self._field_bytes += len(content)
            if self._field_bytes > _MAX_FIELDS_BYTES:
                raise InvalidRequest(
                    "The fields other than `file` are longer than"
                    f" {_MAX_FIELDS_BYTES:,} bytes in total. Shorten them."
                )
            self._text += content

    def end_part(self) -> None:
        if self._name == "file":
            return
        try:
            self._form.fields.setdefault(self._name, []).append(self._text.decode())
        except UnicodeDecodeError:
            raise InvalidRequest(f"The field `{self._name[:100]}` is not valid UTF-8.") from None

    def end(self) -> None:
        self._ended = True

    def finish(self) -> None:
        if not self._ended:
            raise InvalidRequest(
                "The form is incomplete, because its final boundary is missing. Send it again."
            )
        if not self._recordings:
            raise InvalidRequest("The form has no `file` field. Send the recording in this field.")
        self._form.recording.seek(0)


def _max_form_bytes(max_recording_bytes: int) -> int:
    return max_recording_bytes + _MAX_FIELDS_BYTES + _FRAMING_BYTES


def _boundary(request: Request) -> bytes:
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise InvalidRequest(
            "The request is not `multipart/form-data`. Send a form with the recording in `file`."
        )
    if not parameters.get(b"boundary"):
        raise InvalidRequest(
            "The `Content-Type` header has no boundary. Let your HTTP client set this header."
        )
    return parameters[b"boundary"]


def _too_large(max_bytes: int) -> RecordingTooLarge:
    return RecordingTooLarge(
        f"The recording is larger than {max_bytes:,} bytes, the limit for one request."
        " Upload it instead (POST /api/uploads), or send a smaller one."
    )
