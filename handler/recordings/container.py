"""What a recording is, told by its bytes: the container, and whether anything was recorded at all.

Labels (names, content types) are not looked at: browsers and phones send any of them with any bytes.
"""

import re
from dataclasses import dataclass
from typing import BinaryIO

from handler.errors import EmptyRecording, UnsupportedMedia
from handler.recordings import contents
from handler.recordings.mpeg_frames import framing

_MAX_TAGS = 4
_LIVE_BYTES_PER_SECOND = 32_000  # the most that browsers record
_HEAD_BYTES = 64 * 1024  # frames are looked for in it; every magic number is far shorter


@dataclass(frozen=True)
class Container:
    """A container under its canonical extension and type.

    `direct` says that the upstream takes it as it is. The upstream looks at the name's extension before it
    looks at the bytes: the same Opus stream fails as `.oga` and passes as `.ogg`. `bytes_per_second` is what
    recordings of speech usually have.
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
# Phones' `.mp4` have been refused where the same bytes as `.m4a` passed.
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
    # ATSC A/52, 5.3.1 and annex E: the first two bytes occur in any file, so the frame size of AC-3
    # and the version of AC-3 and E-AC-3 have to be valid as well.
    (re.compile(rb"\x0b\x77..[\x00-\x25\x40-\x65\x80-\xa5][\x00-\x57]", re.DOTALL), AC3),
    (re.compile(rb"\x0b\x77...[\x58-\x87]", re.DOTALL), AC3),
    (re.compile(rb"wvpk"), WAVPACK),
    (re.compile(rb"\.snd"), AU),
    (re.compile(rb"TTA1"), TTA),
)
_FRAMED = {"mp3": MP3, "adts": AAC}
_HOLDS_MEDIA = {
    WEBM: contents.in_webm,
    MP4: contents.in_mp4,
    OGG: contents.in_ogg,
    WAV: contents.in_wav,
    FLAC: contents.in_flac,
}
# A file may begin with any of these boxes; still images share `ftyp` with recordings. Only media may be so long
# that its size does not begin with a zero.
_MP4_START = re.compile(rb"\0...(ftyp|styp|moov|moof|wide|free|skip|pnot|uuid)|....mdat", re.DOTALL)
_IMAGE = re.compile(rb"....ftyp(hei|hev|heif|mif1|msf1|avi[fs]|crx )", re.DOTALL)


def identify(file: BinaryIO) -> Container:
    """The container of the recording in `file`, which is left at its beginning.

    EmptyRecording where nothing was recorded; UnsupportedMedia where the bytes are no container we know.
    """
    try:
        container = _container(file)
        holds_media = _HOLDS_MEDIA.get(container)
        if holds_media and not holds_media(file):
            raise EmptyRecording(
                f"This {container.name} file has a header and nothing recorded after it."
            )
        return container
    finally:
        file.seek(0)


def looks_truncated(file: BinaryIO, seconds: float | None) -> bool:
    """Whether `seconds` are far less than such a recording lasts, where that can be told by its size.

    Of what Safari records without time slices, a fragmented MP4 of sound alone, the speech service has been seen to
    hear the first second only.
    """
    head = _read(file, 0, _HEAD_BYTES)
    size = file.seek(0, 2)
    file.seek(0)
    live = head[4:8] == b"ftyp" and b"mvex" in head and b"mp4a" in head and b"vide" not in head
    return live and seconds is not None and seconds * _LIVE_BYTES_PER_SECOND < size


def _container(file: BinaryIO) -> Container:
    head = _read(file, 0, _HEAD_BYTES)
    if not head:
        raise EmptyRecording("The recording has no bytes: nothing was recorded.")
    for magic, container in _MAGIC:
        if magic.match(head):
            return container
    if _MP4_START.match(head) and not _IMAGE.match(head):
        return MP4
    if head.startswith(b"ID3"):
        return _after_tags(file)
    if framed := framing(head):
        return _FRAMED[framed]
    raise UnsupportedMedia(_what_it_looks_like(head))


def _after_tags(file: BinaryIO) -> Container:
    """ID3 tags, one or more, stand before MP3, and also before FLAC and AAC."""
    position = 0
    for _ in range(_MAX_TAGS):
        audio = _read(file, position, _HEAD_BYTES)
        if not audio.startswith(b"ID3"):
            break
        position += _tag_bytes(audio)
    if not audio:
        raise EmptyRecording("This file has an ID3 tag and nothing recorded after it.")
    magic = next((container for magic, container in _MAGIC if magic.match(audio)), None)
    return magic or _FRAMED[framing(audio) or "mp3"]


def _tag_bytes(head: bytes) -> int:
    size = sum(
        (byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False)
    )
    has_footer = len(head) > 5 and head[5] & 0x10
    return 10 + size + (10 if has_footer else 0)


def _read(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _what_it_looks_like(head: bytes) -> str:
    if b"\x1fC\xb6u" in head:
        return (
            "This is a later piece of a WebM recording, without its beginning."
            " Send all of MediaRecorder's chunks as one: new Blob(chunks)."
        )
    if not re.search(rb"[\x00-\x08\x0e-\x1f]", head):
        return "The file is text (a web page, JSON, a playlist, or a name without curl's `@`), not a recording."
    return (
        "The bytes are no audio or video container that Steno knows, whatever the file's name or type says."
        " Send WebM, MP4, Ogg, WAV, MP3 or FLAC."
    )
