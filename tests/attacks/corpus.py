"""Generate a reproducible fuzzing corpus: truncated, mutated and polyglot recordings.

All random choices use fixed seeds.
"""

import random
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from tests.samples import KINDS, recording

_HEAD_BYTES = 512
_RUNS = (1, 3, 64, 1000)
# Names of chunks, atoms, pages and elements. Each has a size field next to it.
_TAGS = re.compile(
    rb"RIFF|WAVE|fmt |data|LIST|FORM|COMM|SSND|caff|desc|pakt|hdrl|strl|strh|strf|movi|idx1"
    rb"|OggS|OpusHead|OpusTags|fLaC|ID3|TIT2|ftyp|moov|mvhd|trak|tkhd|edts|elst|mdia|mdhd|minf"
    rb"|dinf|dref|stbl|stsd|mp4a|esds|stts|stsc|stsz|stco|mdat|moof|mfhd|traf|tfhd|tfdt|trun"
    rb"|mvex|trex|sidx"
    rb"|\x1aE\xdf\xa3|\x18S\x80g|\x15I\xa9f|\x16T\xaek|\xae|\xe1|\x63\xa2|\x1fC\xb6u|\xe7|\xa3|\x1cS\xbbk"
    rb"|\x75\xb2\x26\x30|\xa1\xdc\xab\x8c|\x91\x07\xdc\xb7|\x36\x26\xb2\x75"
)
_EXTREME_VALUES = (
    bytes(8),
    b"\xff" * 8,
    b"\x7f" + b"\xff" * 7,
    b"\x80" + bytes(7),
    b"\x00\x00\x00\x01" * 2,
    b"\x01" + bytes(7),
)
_MAGIC = {
    "webm": b"\x1aE\xdf\xa3",
    "ogg": b"OggS\0\x02",
    "wav": b"RIFF\xff\xff\xff\x7fWAVEfmt ",
    "rf64": b"RF64\xff\xff\xff\xffWAVEds64",
    "flac": b"fLaC\0\0\0\x22",
    "avi": b"RIFF\xff\xff\xff\x7fAVI LIST",
    "wave64": b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0",
    "amr": b"#!AMR\n",
    "amr-wb": b"#!AMR-WB\n",
    "caf": b"caff\0\x01\0\0desc",
    "aiff": b"FORM\x7f\xff\xff\xffAIFCCOMM",
    "asf": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
    "mpeg-ps": b"\0\0\x01\xba\x44\0\x04\0\x04\x01",
    "mpeg-ts": (b"\x47\x40\0\x10" + bytes(184)) * 3,
    "adif": b"ADIF",
    "mp4": b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2\0\0\x10\0moov",
    "mp3": b"\xff\xfb\x90\x64",
    "adts": b"\xff\xf1\x50\x80",
    "id3": b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
    "ac-3": b"\x0b\x77\xff\xff\x25\x40",
    "e-ac-3": b"\x0b\x77\x07\xff\x3f\x80",
    "wavpack": b"wvpk\xff\xff\x0f\0\x10\x04",
    "au": b".snd\0\0\0\x20\xff\xff\xff\xff\0\0\0\x03\xff\xff\xff\xff\0\0\xff\xff",
    "tta": b"TTA1\x01\0\xff\xff\x20\0\xff\xff\xff\xff\xff\xff\xff\xff",
}


@dataclass(frozen=True)
class CorpusFile:
    """A named recording whose content is generated on each access."""

    name: str
    make: Callable[[], bytes]

    @property
    def content(self) -> bytes:
        return self.make()


@cache
def valid_recording(kind: str) -> bytes:
    return recording(kind, seconds=1.0)


def truncations() -> list[CorpusFile]:
    """Return recordings of every kind, truncated after 0 to 63 bytes and after every KiB."""
    return [
        CorpusFile(f"{kind} truncated at {end}", partial(_truncate, kind, end))
        for kind in KINDS
        for end in (*range(64), *range(1024, len(valid_recording(kind)), 1024))
    ]


def mutations(count: int) -> list[CorpusFile]:
    """Return `count` random mutations for each kind of recording."""
    return [
        CorpusFile(f"{kind}, mutation {number}", partial(_mutate, kind, number))
        for kind in KINDS
        for number in range(count)
    ]


def polyglots() -> list[CorpusFile]:
    """Return files that mix two formats, and files that are not valid recordings."""
    others = {
        "an HTML page": b"<!doctype html><script>alert(1)</script>",
        "a zip": b"PK\x03\x04\x14\0\0\0\x08\0",
        "a PDF": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n",
        "a PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xff\xff\xff\xff\xff\xff\xff\x08\x06\0\0\0",
        "a JPEG": b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0",
        "an ELF program": b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0\x3e\0",
        "a gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
        "a script": b"#!/bin/sh\nrm -rf /\n",
        "a GIF": b"GIF89a\xff\xff\xff\xff\xf7\0\0",
        "a Flash file": b"FWS\x09\xff\xff\xff\x7f",
    }
    mixed = [
        CorpusFile(f"{name} {position} {kind}", partial(_join, other, kind, position))
        for name, other in others.items()
        for kind in ("wav", "mp3", "mp4", "webm")
        for position in ("before", "after", "inside")
    ]
    rng = random.Random(3)
    noise = [
        CorpusFile(
            f"noise after the magic number of {name}, {size} bytes",
            partial(_noise_after, magic, size, rng.random()),
        )
        for name, magic in _MAGIC.items()
        for size in (0, 10, 300, 5_000, 100_000)
    ]
    concatenated = [
        CorpusFile(f"{first} after {second}", partial(_concatenate, first, second))
        for first in ("wav", "mp3", "ogg")
        for second in KINDS
    ]
    no_audio = [
        CorpusFile("an empty file", lambda: b""),
        CorpusFile("a NUL byte", lambda: b"\0"),
        CorpusFile("1 MB of NUL bytes", lambda: bytes(1_000_000)),
        CorpusFile("1 MB of 0xFF bytes", lambda: b"\xff" * 1_000_000),
        CorpusFile("1 MB of noise", lambda: random.Random(4).randbytes(1_000_000)),
    ]
    return [*mixed, *noise, *concatenated, *no_audio]


def _truncate(kind: str, end: int) -> bytes:
    return valid_recording(kind)[:end]


def _mutate(kind: str, number: int) -> bytes:
    rng = random.Random(f"{kind} {number}")
    content = bytearray(valid_recording(kind))
    for _ in range(rng.choice((1, 1, 2, 5))):
        rng.choice((_flip, _flip, _splice, _resize, _resize, _overwrite))(content, rng)
    return bytes(content)


def _flip(content: bytearray, rng: random.Random) -> None:
    """Flip random bits, either in the first 512 bytes or in the whole file."""
    limit = min(rng.choice((_HEAD_BYTES, len(content))), len(content))
    for _ in range(rng.choice((1, 4, 30, limit // 10))):
        content[rng.randrange(limit)] ^= 1 << rng.randrange(8)


def _splice(content: bytearray, rng: random.Random) -> None:
    """Insert, remove or duplicate a run of bytes, or overwrite it with zeros."""
    length = rng.choice(_RUNS)
    at = rng.randrange(min(rng.choice((_HEAD_BYTES, len(content))), len(content)))
    run = bytes(content[at : at + length])
    content[at : at + length] = rng.choice(
        (rng.randbytes(length) + run, b"", bytes(len(run)), run + run)
    )
    content += bytes(max(1 - len(content), 0))


def _resize(content: bytearray, rng: random.Random) -> None:
    """Write an extreme value into a size field next to a tag."""
    tags = [*_TAGS.finditer(content)]
    if not tags:
        return _overwrite(content, rng)
    tag = rng.choice(tags[: rng.choice((8, len(tags)))])
    size = rng.choice((1, 2, 4, 4, 8))
    at = rng.choice((max(tag.start() - size, 0), tag.end(), tag.end() + 4))
    content[at : at + size] = rng.choice(_EXTREME_VALUES)[:size]
    return None


def _overwrite(content: bytearray, rng: random.Random) -> None:
    """Write an extreme number at a random position in the first 512 bytes."""
    at, size = rng.randrange(min(_HEAD_BYTES, len(content))), rng.choice((1, 2, 4, 8))
    content[at : at + size] = rng.choice(
        (*_EXTREME_VALUES, rng.randbytes(8), struct.pack("<Q", 1 << 62))
    )[:size]


def _join(other: bytes, kind: str, position: str) -> bytes:
    if position == "before":
        return other + valid_recording(kind)
    if position == "after":
        return valid_recording(kind) + other
    return valid_recording(kind)[:100] + other * 50 + valid_recording(kind)[100:]


def _noise_after(magic: bytes, size: int, seed: float) -> bytes:
    return magic + random.Random(seed).randbytes(size)


def _concatenate(first: str, second: str) -> bytes:
    return valid_recording(second) + valid_recording(first)
