"""Whether a container holds anything but its header: a muted microphone and a double click give such files.

Each function takes a file that is that container. Where a file's structure is broken the answer is yes:
the upstream is the judge of what can still be read.
"""

from collections.abc import Iterator
from typing import BinaryIO

_MAX_STEPS = 10_000  # a header has dozens of elements; a file made of tiny ones must not hold the event loop


def in_webm(file: BinaryIO) -> bool:
    for step, element in enumerate(_ebml_elements(file)):
        if element in (_SIMPLE_BLOCK, _BLOCK_GROUP) or step == _MAX_STEPS:
            return True
    return False


def in_mp4(file: BinaryIO) -> bool:
    file.seek(0)
    for _ in range(_MAX_STEPS):
        if len(header := file.read(16)) < 8:
            return False
        size, kind, header_bytes = int.from_bytes(header[:4]), header[4:8], 8
        if size == 1 and len(header) == 16:
            size, header_bytes = int.from_bytes(header[8:]), 16
        if kind == b"mdat":
            if size > header_bytes or (size == 0 and len(header) > 8):
                return True
        elif size == 0:
            return False
        if size < header_bytes:
            return kind != b"mdat"
        file.seek(size - len(header), 1)
    return True


def in_ogg(file: BinaryIO) -> bool:
    """Header pages have position 0; any page of sound has another."""
    file.seek(0)
    for _ in range(_MAX_STEPS):
        if len(header := file.read(27)) < 27:
            return False
        if header[:4] != b"OggS" or header[6:14] != bytes(8):
            return True
        file.seek(sum(file.read(header[26])), 1)
    return True


def in_wav(file: BinaryIO) -> bool:
    """A recorder that streams leaves the data chunk's size at 0 or at its maximum: then the rest is data."""
    file.seek(12)
    for _ in range(_MAX_STEPS):
        if len(header := file.read(8)) < 8:
            return False
        if header[:4] == b"data":
            return len(file.read(1)) > 0
        size = int.from_bytes(header[4:], "little")
        file.seek(size + size % 2, 1)
    return True


def in_flac(file: BinaryIO) -> bool:
    file.seek(0)
    if file.read(4) != b"fLaC":  # behind an ID3 tag
        return True
    for _ in range(_MAX_STEPS):
        if len(header := file.read(4)) < 4:
            return False
        file.seek(int.from_bytes(header[1:]), 1)
        if header[0] & 0x80:  # the last block of metadata
            return len(file.read(1)) > 0
    return True


_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_SIMPLE_BLOCK, _BLOCK_GROUP = 0xA3, 0xA0


def _ebml_elements(file: BinaryIO) -> Iterator[int]:
    """The ids of the elements in file order, those inside the segment and its clusters too.

    https://www.rfc-editor.org/rfc/rfc8794: an id and a size, each with its length in its first byte's leading zeros.
    """
    file.seek(0)
    while (element := _vint(file, keep_marker=True)) is not None:
        size = _vint(file, keep_marker=False)
        if size is None:
            return
        yield element
        if element not in (_SEGMENT, _CLUSTER):
            file.seek(size, 1)


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
