"""Detects MP3 and AAC files that consist of frames without a container."""

import re
from collections.abc import Callable
from typing import Literal

# One frame is not enough, because the two bytes at the start of a frame can occur in any file.
_REQUIRED_FRAMES = 3
_SEARCH_BYTES = 8 * 1024  # larger than any frame

_BITRATES = {  # kbit/s; each key is a tuple (is_mpeg_1, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLE_RATES = {  # Hz; the keys are the version bits of the header
    3: (44100, 48000, 32000),
    2: (22050, 24000, 16000),
    0: (11025, 12000, 8000),
}


def detect_framing(data: bytes) -> Literal["mp3", "adts"] | None:
    """Return the type of the frames in `data`, or None if no frames are found.

    The first complete frame may begin after the first byte, because a recorded broadcast can begin
    in the middle of a frame.
    """
    for match in re.finditer(rb"\xff[\xe0-\xff]", data[:_SEARCH_BYTES]):
        if _frames_follow(data, match.start(), _mp3_frame_bytes):
            return "mp3"
        if _frames_follow(data, match.start(), _adts_frame_bytes):
            return "adts"
    return None


def _frames_follow(data: bytes, start: int, frame_bytes: Callable[[bytes], int]) -> bool:
    position = start
    for _ in range(_REQUIRED_FRAMES):
        length = frame_bytes(data[position : position + 7])
        if not length:
            return False
        position += length
        if position >= len(data):
            # A file with fewer frames is valid only if its first frame begins at the first byte.
            return start == 0
    return True


def _mp3_frame_bytes(header: bytes) -> int:
    """Return the size of the MPEG audio frame with this header, or 0 if the header is invalid."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bitrate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return 0
    bits_per_second = _BITRATES[version == 3, layer][bitrate] * 1000
    if layer == 1:
        return (12 * bits_per_second // _SAMPLE_RATES[version][rate] + padding) * 4
    factor = 72 if layer == 3 and version != 3 else 144
    return factor * bits_per_second // _SAMPLE_RATES[version][rate] + padding


def _adts_frame_bytes(header: bytes) -> int:
    """Return the size of the AAC frame with this header, or 0 if the header is invalid."""
    if len(header) < 6 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return 0
    return (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
