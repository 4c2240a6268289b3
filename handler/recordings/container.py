"""Detects the container of a recording, and whether it is empty, from the bytes of the file.

File names and content types are ignored, because browsers and phones often send wrong ones.
"""

import re
from dataclasses import dataclass
from typing import BinaryIO

from handler.errors import EmptyRecording, UnsupportedMedia
from handler.recordings import contents
from handler.recordings.mpeg_frames import detect_framing

_MAX_ID3_TAGS = 4
_MAX_BROWSER_BYTES_PER_SECOND = 32_000  # the highest rate at which browsers record
# This many bytes are enough to find MPEG audio frames. Magic numbers need far fewer bytes.
_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class Container:
    """A container format, with the file extension and media type to send to the upstream.

    The upstream checks the extension before it reads the content: it rejects an Opus stream with
    the extension `.oga`, but accepts the same stream with `.ogg`. `direct` is true if the upstream
    accepts the container without conversion. `bytes_per_second` is the typical data rate of
    recorded speech in this container.
    """

    name: str
    extension: str
    media_type: str
    direct: bool = True
    bytes_per_second: int = 8_000

    @property
    def filename(self) -> str:
        return f"recording.{self.extension}"


WEBM = Container("WebM or Matroska", "webm", "audio/webm", bytes_per_second=4_000)
# An upstream may reject a phone recording with the extension `.mp4`, but accept the same bytes with
# the extension `.m4a`.
MP4 = Container("MP4 or QuickTime", "m4a", "audio/mp4")
OGG = Container("Ogg", "ogg", "audio/ogg", bytes_per_second=3_000)
WAV = Container("WAV", "wav", "audio/wav", bytes_per_second=32_000)
MP3 = Container("MP3", "mp3", "audio/mpeg")
FLAC = Container("FLAC", "flac", "audio/flac", bytes_per_second=16_000)
AAC = Container("AAC", "aac", "audio/aac", direct=False)
AMR = Container("AMR", "amr", "audio/amr", direct=False)
CAF = Container("Core Audio", "caf", "audio/x-caf", direct=False)
AIFF = Container("AIFF", "aiff", "audio/aiff", direct=False)
ASF = Container("Windows Media", "asf", "video/x-ms-asf", direct=False)
AVI = Container("AVI", "avi", "video/x-msvideo", direct=False)
MPEG_TS = Container("MPEG transport stream", "ts", "video/mp2t", direct=False)
MPEG_PS = Container("MPEG program stream", "mpg", "video/mpeg", direct=False)
WAVE64 = Container("Wave64", "w64", "audio/x-w64", direct=False)
AC3 = Container("AC-3", "ac3", "audio/ac3", direct=False)
WAVPACK = Container("WavPack", "wv", "audio/x-wavpack", direct=False)
AU = Container("Sun AU", "au", "audio/basic", direct=False)
TTA = Container("True Audio", "tta", "audio/x-tta", direct=False)

_MAGIC = (
    (re.compile(rb"\x1aE\xdf\xa3"), WEBM),
    (re.compile(rb"OggS"), OGG),
    (re.compile(rb"(RIFF|RF64|BW64)....WAVE", re.DOTALL), WAV),
    (re.compile(rb"fLaC"), FLAC),
    (re.compile(rb"RIFF....AVI ", re.DOTALL), AVI),
    (re.compile(rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb"), WAVE64),
    (re.compile(rb"#!AMR"), AMR),
    (re.compile(rb"caff\x00\x01"), CAF),
    (re.compile(rb"FORM....AIF[FC]", re.DOTALL), AIFF),
    (re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), ASF),
    (re.compile(rb"\x00\x00\x01\xba"), MPEG_PS),
    (re.compile(rb"\x47.{187}\x47.{187}\x47", re.DOTALL), MPEG_TS),
    (re.compile(rb".{4}\x47.{191}\x47.{191}\x47", re.DOTALL), MPEG_TS),
    (re.compile(rb"ADIF"), AAC),
    # See ATSC A/52, section 5.3.1 and annex E. The two bytes of the sync word can occur in any
    # file, so these patterns also check the version and, for AC-3, the frame size.
    (re.compile(rb"\x0b\x77..[\x00-\x25\x40-\x65\x80-\xa5][\x00-\x57]", re.DOTALL), AC3),
    (re.compile(rb"\x0b\x77...[\x58-\x87]", re.DOTALL), AC3),
    (re.compile(rb"wvpk"), WAVPACK),
    (re.compile(rb"\.snd"), AU),
    (re.compile(rb"TTA1"), TTA),
)
_BY_FRAMING = {"mp3": MP3, "adts": AAC}
_MEDIA_CHECKS = {
    WEBM: contents.webm_has_media,
    MP4: contents.mp4_has_media,
    OGG: contents.ogg_has_media,
    WAV: contents.wav_has_media,
    FLAC: contents.flac_has_media,
}
# An MP4 file can begin with any of these boxes. Only `mdat` can be so large that the first byte of
# its size is not zero. Still images also begin with `ftyp`, so `_IMAGE` excludes them.
_MP4_START = re.compile(rb"\0...(ftyp|styp|moov|moof|wide|free|skip|pnot|uuid)|....mdat", re.DOTALL)
_IMAGE = re.compile(rb"....ftyp(hei|hev|heif|mif1|msf1|avi[fs]|crx )", re.DOTALL)


def identify(file: BinaryIO) -> Container:
    """Return the container of the recording in `file`, and rewind the file to its beginning.

    Raises EmptyRecording if the file has no media data, and UnsupportedMedia if the container is
    not supported.
    """
    try:
        container = _detect(file)
        has_media = _MEDIA_CHECKS.get(container)
        if has_media and not has_media(file):
            raise EmptyRecording(
                f"The file has a {container.name} header but no recorded data. Record again."
            )
        return container
    finally:
        file.seek(0)


def looks_truncated(file: BinaryIO, seconds: float | None) -> bool:
    """Return whether `seconds`, the billed duration, is far too short for the size of the file.

    Only fragmented MP4 files without video are checked: for all other files, the result is False.
    Safari records such files if MediaRecorder is started without a timeslice, and the upstream
    sometimes transcribes only their first second. The file is rewound to its beginning.
    """
    head = _read(file, 0, _HEAD_BYTES)
    size = file.seek(0, 2)
    file.seek(0)
    is_fragmented = head[4:8] == b"ftyp" and b"mvex" in head
    if not is_fragmented or b"mp4a" not in head or b"vide" in head:
        return False
    return seconds is not None and seconds * _MAX_BROWSER_BYTES_PER_SECOND < size


def _detect(file: BinaryIO) -> Container:
    head = _read(file, 0, _HEAD_BYTES)
    if not head:
        raise EmptyRecording("The recording is empty (0 bytes). Record again.")
    for magic, container in _MAGIC:
        if magic.match(head):
            return container
    if _MP4_START.match(head) and not _IMAGE.match(head):
        return MP4
    if head.startswith(b"ID3"):
        return _detect_after_id3(file)
    if framing := detect_framing(head):
        return _BY_FRAMING[framing]
    raise UnsupportedMedia(_unsupported_detail(head))


def _detect_after_id3(file: BinaryIO) -> Container:
    """Return the container of a file that begins with one or more ID3 tags.

    ID3 tags are most common in MP3 files, but FLAC and AAC files can have them too.
    """
    position = 0
    for _ in range(_MAX_ID3_TAGS):
        audio = _read(file, position, _HEAD_BYTES)
        if not audio.startswith(b"ID3"):
            break
        position += _id3_bytes(audio)
    if not audio:
        raise EmptyRecording("The file has an ID3 tag but no recorded data. Record again.")
    by_magic = next((container for magic, container in _MAGIC if magic.match(audio)), None)
    return by_magic or _BY_FRAMING[detect_framing(audio) or "mp3"]


def _id3_bytes(head: bytes) -> int:
    size = sum(
        (byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False)
    )
    has_footer = len(head) > 5 and head[5] & 0x10
    return 10 + size + (10 if has_footer else 0)


def _read(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _unsupported_detail(head: bytes) -> str:
    if b"\x1fC\xb6u" in head:
        return (
            "The file is not the first chunk of a WebM recording, so it has no header."
            " Send all chunks from MediaRecorder as one file: new Blob(chunks)."
        )
    if not re.search(rb"[\x00-\x08\x0e-\x1f]", head):
        return (
            "The file is text (for example a web page, JSON or a playlist), not a recording."
            " Send an audio or video file. With curl, put `@` before the file name."
        )
    return (
        "The file is not in a supported audio or video container. Its name and content type are"
        " ignored. Send WebM, MP4, Ogg, WAV, MP3 or FLAC."
    )
