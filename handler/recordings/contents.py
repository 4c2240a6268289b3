"""Whether a container holds anything but its header: a muted microphone and a double click give such files.

Each function takes a file that is that container. Where a file's structure is broken the answer is yes:
the upstream is the judge of what can still be read.
"""

from collections.abc import Iterator
from os import SEEK_CUR, SEEK_END
from typing import BinaryIO

_MAX_STEPS = (
    10_000  # a header has dozens of elements; a file made of tiny ones must not hold the event loop
)


def in_webm(file: BinaryIO) -> bool:
    return any(
        element in (_SIMPLE_BLOCK, _BLOCK_GROUP, _BROKEN) for element in _ebml_elements(file)
    )


def in_mp4(file: BinaryIO) -> bool:
    end = _size(file)
    for _ in range(_MAX_STEPS):
        start = file.tell()
        if len(header := file.read(16)) < 8:
            return len(header) > 0
        size, kind, header_bytes = int.from_bytes(header[:4]), header[4:8], 8
        if size == 1 and len(header) == 16:
            size, header_bytes = int.from_bytes(header[8:]), 16
        if kind == b"mdat" and size == 0:  # up to the end
            size = end - start
        if (kind == b"mdat" and size > header_bytes) or size < header_bytes or start + size > end:
            return True
        file.seek(start + size)
    return True


def in_ogg(file: BinaryIO) -> bool:
    """Header pages have position 0; any page of sound has another."""
    end = _size(file)
    for _ in range(_MAX_STEPS):
        if len(header := file.read(27)) < 27:
            return len(header) > 0
        if header[:4] != b"OggS" or header[6:14] != bytes(8):
            return True
        if file.seek(sum(file.read(header[26])), SEEK_CUR) > end:
            return True
    return True


def in_wav(file: BinaryIO) -> bool:
    """A recorder that streams leaves the data chunk's size at 0 or at its maximum: then the rest is data."""
    end = _size(file)
    if not file.read(12).endswith(b"WAVE"):  # behind an ID3 tag
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


def in_flac(file: BinaryIO) -> bool:
    end = _size(file)
    if file.read(4) != b"fLaC":  # behind an ID3 tag
        return True
    for _ in range(_MAX_STEPS):
        if len(header := file.read(4)) < 4:
            return len(header) > 0
        at = file.seek(int.from_bytes(header[1:]), SEEK_CUR)
        if header[0] & 0x80 or at > end:  # the last block of metadata
            return at != end
    return True


def _size(file: BinaryIO) -> int:
    size = file.seek(0, SEEK_END)
    file.seek(0)
    return size


_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_SIMPLE_BLOCK, _BLOCK_GROUP = 0xA3, 0xA0
_BROKEN = -1


def _ebml_elements(file: BinaryIO) -> Iterator[int]:
    """The ids of the elements in file order, those inside the segment and its clusters too; _BROKEN ends them early.

    https://www.rfc-editor.org/rfc/rfc8794: an id and a size, each with its length in its first byte's leading zeros.
    """
    end = _size(file)
    for _ in range(_MAX_STEPS):
        if file.tell() == end:
            return
        element, size = _vint(file, keep_marker=True), _vint(file, keep_marker=False)
        if element is None or size is None:
            break
        yield element
        if element in (_SEGMENT, _CLUSTER):
            continue
        if file.tell() + size > end:
            break
        file.seek(size, SEEK_CUR)
    yield _BROKEN


def _vint(file: BinaryIO, *, keep_marker: bool) -> int | None:
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) < length - 1:
        return None
    start = first[0] if keep_marker else first[0] & (0xFF >> length)
    return start << 8 * len(rest) | int.from_bytes(rest)
