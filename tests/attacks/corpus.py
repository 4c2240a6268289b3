"""Recordings that nobody should have to open: every kind, broken in every way, the same way each time."""

import random
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from tests.samples import KINDS, recording

_HEAD_BYTES = 512
_RUNS = (1, 3, 64, 1000)
# What stands beside a size: the chunks, atoms, pages and elements of all containers.
_TAGS = re.compile(
    rb"RIFF|WAVE|fmt |data|LIST|FORM|COMM|SSND|caff|desc|pakt|hdrl|strl|strh|strf|movi|idx1|OggS|OpusHead|OpusTags"
    rb"|fLaC|ID3|TIT2|ftyp|moov|mvhd|trak|tkhd|edts|elst|mdia|mdhd|minf|dinf|dref|stbl|stsd|mp4a|esds|stts|stsc|stsz"
    rb"|stco|mdat|moof|mfhd|traf|tfhd|tfdt|trun|mvex|trex|sidx"
    rb"|\x1aE\xdf\xa3|\x18S\x80g|\x15I\xa9f|\x16T\xaek|\xae|\xe1|\x63\xa2|\x1fC\xb6u|\xe7|\xa3|\x1cS\xbbk"
    rb"|\x75\xb2\x26\x30|\xa1\xdc\xab\x8c|\x91\x07\xdc\xb7|\x36\x26\xb2\x75"
)
_WILD = (
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
class Hostile:
    """A recording, made only when it is looked at."""

    name: str
    make: Callable[[], bytes]

    @property
    def content(self) -> bytes:
        return self.make()


@cache
def whole(kind: str) -> bytes:
    return recording(kind, seconds=1.0)


def truncations() -> list[Hostile]:
    """Every kind, ended at every byte of its first 64 and at every kilobyte."""
    return [
        Hostile(f"{kind} ended at {end}", partial(_ended, kind, end))
        for kind in KINDS
        for end in (*range(64), *range(1024, len(whole(kind)), 1024))
    ]


def damages(times: int) -> list[Hostile]:
    """Every kind, broken at random, each so many times."""
    return [
        Hostile(f"{kind} damaged, {number}", partial(_damaged, kind, number))
        for kind in KINDS
        for number in range(times)
    ]


def polyglots() -> list[Hostile]:
    """Files that are a recording to one reader and something else to another, or nothing to anybody."""
    others = {
        "a page": b"<!doctype html><script>alert(1)</script>",
        "a zip": b"PK\x03\x04\x14\0\0\0\x08\0",
        "a PDF": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n",
        "a PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xff\xff\xff\xff\xff\xff\xff\x08\x06\0\0\0",
        "a JPEG": b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0",
        "a program": b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0\x3e\0",
        "a gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
        "a script": b"#!/bin/sh\nrm -rf /\n",
        "a GIF": b"GIF89a\xff\xff\xff\xff\xf7\0\0",
        "a Flash": b"FWS\x09\xff\xff\xff\x7f",
    }
    mixed = [
        Hostile(f"{name} {where} {kind}", partial(_joined, other, kind, where))
        for name, other in others.items()
        for kind in ("wav", "mp3", "mp4", "webm")
        for where in ("before", "behind", "inside")
    ]
    chance = random.Random(3)
    behind = [
        Hostile(
            f"noise behind the magic of {name}, {size} bytes",
            partial(_behind, magic, size, chance.random()),
        )
        for name, magic in _MAGIC.items()
        for size in (0, 10, 300, 5_000, 100_000)
    ]
    two = [
        Hostile(f"{first} behind {second}", partial(_one_behind_another, first, second))
        for first in ("wav", "mp3", "ogg")
        for second in KINDS
    ]
    nothing = [
        Hostile("nothing", lambda: b""),
        Hostile("a NUL", lambda: b"\0"),
        Hostile("a megabyte of NULs", lambda: bytes(1_000_000)),
        Hostile("a megabyte of ones", lambda: b"\xff" * 1_000_000),
        Hostile("a megabyte of noise", lambda: random.Random(4).randbytes(1_000_000)),
    ]
    return [*mixed, *behind, *two, *nothing]


def _ended(kind: str, end: int) -> bytes:
    return whole(kind)[:end]


def _damaged(kind: str, number: int) -> bytes:
    chance = random.Random(f"{kind} {number}")
    broken = bytearray(whole(kind))
    for _ in range(chance.choice((1, 1, 2, 5))):
        chance.choice((_flip, _flip, _splice, _resize, _resize, _overwrite))(broken, chance)
    return bytes(broken)


def _flip(broken: bytearray, chance: random.Random) -> None:
    """Bits, few or many, in the header or anywhere."""
    reach = min(chance.choice((_HEAD_BYTES, len(broken))), len(broken))
    for _ in range(chance.choice((1, 4, 30, reach // 10))):
        broken[chance.randrange(reach)] ^= 1 << chance.randrange(8)


def _splice(broken: bytearray, chance: random.Random) -> None:
    """A run put in, taken out, zeroed or said twice."""
    length = chance.choice(_RUNS)
    at = chance.randrange(min(chance.choice((_HEAD_BYTES, len(broken))), len(broken)))
    run = bytes(broken[at : at + length])
    broken[at : at + length] = chance.choice(
        (chance.randbytes(length) + run, b"", bytes(len(run)), run + run)
    )
    broken += bytes(max(1 - len(broken), 0))


def _resize(broken: bytearray, chance: random.Random) -> None:
    """The sizes around a tag: none, the most, negative, one."""
    tags = [*_TAGS.finditer(broken)]
    if not tags:
        return _overwrite(broken, chance)
    tag = chance.choice(tags[: chance.choice((8, len(tags)))])
    size = chance.choice((1, 2, 4, 4, 8))
    at = chance.choice((max(tag.start() - size, 0), tag.end(), tag.end() + 4))
    broken[at : at + size] = chance.choice(_WILD)[:size]
    return None


def _overwrite(broken: bytearray, chance: random.Random) -> None:
    """A wild number somewhere in the header."""
    at, size = chance.randrange(min(_HEAD_BYTES, len(broken))), chance.choice((1, 2, 4, 8))
    broken[at : at + size] = chance.choice(
        (*_WILD, chance.randbytes(8), struct.pack("<Q", 1 << 62))
    )[:size]


def _joined(other: bytes, kind: str, where: str) -> bytes:
    if where == "before":
        return other + whole(kind)
    if where == "behind":
        return whole(kind) + other
    return whole(kind)[:100] + other * 50 + whole(kind)[100:]


def _behind(magic: bytes, size: int, seed: float) -> bytes:
    return magic + random.Random(seed).randbytes(size)


def _one_behind_another(first: str, second: str) -> bytes:
    return whole(second) + whole(first)
