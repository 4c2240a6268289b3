"""Detects files that have a container header but no media data.

Recorders write such files if the microphone is muted, or if the recording is stopped immediately.
Each function returns whether a file in one container format has media data. For a damaged file, the
result is True, because the upstream may still be able to read it.
"""

from collections.abc import Iterator
from os import SEEK_CUR, SEEK_END
from typing import BinaryIO

# A header has a few dozen elements. With this limit, a file that consists of many tiny elements
# cannot block the event loop.
_MAX_STEPS = 10_000


def webm_has_media(file: BinaryIO) -> bool:
    return any(
        element in (_SIMPLE_BLOCK, _BLOCK_GROUP, _BROKEN) for element in _ebml_elements(file)
    )


def mp4_has_media(file: BinaryIO) -> bool:
    end = _size(file)
    for _ in range(_MAX_STEPS):
        start = file.tell()
        if len(header := file.read(16)) < 8:
            return len(header) > 0
        size, kind, header_bytes = int.from_bytes(header[:4]), header[4:8], 8
        if size == 1 and len(header) == 16:
            size, header_bytes = int.from_bytes(header[8:]), 16
        if kind == b"mdat" and size == 0:  # the box extends to the end of the file
            size = end - start
        if (kind == b"mdat" and size > header_bytes) or size < header_bytes or start + size > end:
            return True
        file.seek(start + size)
    return True


def ogg_has_media(file: BinaryIO) -> bool:
    """Return whether any page has a nonzero granule position. In header pages, it is 0."""
    end = _size(file)
    for _ in range(_MAX_STEPS):
        if len(header := file.read(27)) < 27:
            return len(header) > 0
        if header[:4] != b"OggS" or header[6:14] != bytes(8):
            return True
        if file.seek(sum(file.read(header[26])), SEEK_CUR) > end:
            return True
    return True


def wav_has_media(file: BinaryIO) -> bool:
    """Return whether any bytes follow the header of the `data` chunk.

    The size in that header is ignored: streaming recorders leave it at 0 or at the maximum.
    """
    end = _size(file)
    if not file.read(12).endswith(b"WAVE"):  # the file begins with an ID3 tag
        return True
    for _ in range(_MAX_STEPS):
        if len(header := file.read(8)) < 8:
            return len(header) > 0
        if header[:4] == b"data":
            return file.tell() < end
        size = int.from_bytes(header[4:], "little")
        if file.seek(size + size % 2, SEEK_CUR) > end:
            return True
    return True


def flac_has_media(file: BinaryIO) -> bool:
    end = _size(file)
    if file.read(4) != b"fLaC":  # the file begins with an ID3 tag
        return True
    for _ in range(_MAX_STEPS):
        if len(header := file.read(4)) < 4:
            return len(header) > 0
        position = file.seek(int.from_bytes(header[1:]), SEEK_CUR)
        if header[0] & 0x80 or position > end:  # this flag marks the last metadata block
            return position != end
    return True


def _size(file: BinaryIO) -> int:
    size = file.seek(0, SEEK_END)
    file.seek(0)
    return size


_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_SIMPLE_BLOCK, _BLOCK_GROUP = 0xA3, 0xA0
_BROKEN = -1


def _ebml_elements(file: BinaryIO) -> Iterator[int]:
    """Yield the ids of the elements in file order, including those inside segments and clusters.

    Yields _BROKEN as the last id if the file is damaged or has too many elements. An element begins
    with its id and its size (RFC 8794).
    """
    end = _size(file)
    for _ in range(_MAX_STEPS):
        if file.tell() == end:
            return
        element, size = _read_vint(file, keep_marker=True), _read_vint(file, keep_marker=False)
        if element is None or size is None:
            break
        yield element
        if element in (_SEGMENT, _CLUSTER):
            continue
        if file.tell() + size > end:
            break
        file.seek(size, SEEK_CUR)
    yield _BROKEN


def _read_vint(file: BinaryIO, *, keep_marker: bool) -> int | None:
    """Return the next variable-size integer (RFC 8794, section 4), or None if it is invalid."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) < length - 1:
        return None
    high_byte = first[0] if keep_marker else first[0] & (0xFF >> length)
    return high_byte << 8 * len(rest) | int.from_bytes(rest)
