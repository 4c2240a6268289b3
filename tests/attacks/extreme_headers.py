"""Recordings whose headers ask for more than any recording holds: hours, channels, tables, tags, depth, memory."""

import random
import struct
import zlib
from collections.abc import Callable, Iterator

from tests.attacks.hostile import Hostile, whole

MOST = (1 << 32) - 1
_NOISE = random.Random(5).randbytes(32_000)
_SAMPLES = ("moov", "trak", "mdia", "minf", "stbl")
_CODECS = {
    "ALAC": b"A_ALAC",
    "AAC": b"A_AAC",
    "Vorbis": b"A_VORBIS",
    "Opus": b"A_OPUS",
    "FLAC": b"A_FLAC",
    "MP3": b"A_MPEG/L3",
    "AC-3": b"A_AC3",
    "E-AC-3": b"A_EAC3",
    "DTS": b"A_DTS",
    "TrueHD": b"A_TRUEHD",
    "TTA": b"A_TTA1",
    "WavPack": b"A_WAVPACK4",
    "RealAudio": b"A_REAL/COOK",
    "RealAudio 28.8": b"A_REAL/28_8",
    "ATRAC": b"A_REAL/ATRC",
    "QuickTime": b"A_QUICKTIME/QDM2",
    "Windows": b"A_MS/ACM",
    "floats": b"A_PCM/FLOAT/IEEE",
    "one that nobody knows": b"A_NOBODY/KNOWS",
}


def bombs() -> list[Hostile]:
    making = (_waves, _mp4s, _fragments, _matroskas, _codecs, _tags, _oggs, _flacs, _others)
    return [Hostile(name, make) for family in making for name, make in family()]


_Made = Iterator[tuple[str, Callable[[], bytes]]]


# RIFF


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return (
        name
        + struct.pack("<I", len(content) if size is None else size)
        + content
        + bytes(len(content) % 2)
    )


def wave(*chunks: bytes) -> bytes:
    content = b"WAVE" + b"".join(chunks)
    return chunk(b"RIFF", content)


def _format(
    tag: int = 1,
    channels: int = 1,
    rate: int = 16_000,
    block: int = 2,
    bits: int = 16,
    more: bytes = b"",
) -> bytes:
    return chunk(
        b"fmt ",
        struct.pack("<HHIIHH", tag, channels, rate, rate * block % MOST, block, bits) + more,
    )


def _waves() -> _Made:
    data = chunk(b"data", _NOISE)
    wild = {
        "at 384 kHz": {"rate": 384_000},
        "at 4 GHz": {"rate": MOST},
        "at 0 Hz": {"rate": 0},
        "of 255 channels": {"channels": 255, "block": 510},
        "of 65535 channels": {"channels": 65535, "block": 65535},
        "of no channel": {"channels": 0},
        "of blocks of nothing": {"block": 0},
        "of 0 bits": {"bits": 0},
        "of 65535 bits": {"bits": 65535},
        "of the wildest format": {"channels": 65535, "rate": MOST, "block": 65535, "bits": 64},
    }
    for name, fields in wild.items():
        yield f"a wav {name}", lambda fields=fields: wave(_format(**fields), data)
    for tag in (
        0x02,
        0x03,
        0x11,
        0x31,
        0x55,
        0xFF,
        0x161,
        0x162,
        0x2000,
        0x2001,
        0x270,
        0x28E,
        0xF1AC,
        0xFFFE,
        0xFFFF,
    ):
        more = struct.pack("<H", 65535) + _NOISE[:4000]
        yield (
            f"a wav of format {tag:#x} with wild extradata",
            lambda tag=tag, more=more: wave(_format(tag, more=more), data),
        )
    yield (
        "a wav of a list of 3.8 GB",
        lambda: (
            b"RIFF\xff\xff\xff\xffWAVELIST\x00\x00\x80\xe2INFOISFT\xf4\xff\x7f\xe2" + bytes(96_000)
        ),
    )
    yield (
        "a wav of a million empty chunks",
        lambda: wave(_format(), chunk(b"junk", b"") * 1_000_000, data),
    )
    yield (
        "a wav of a hundred thousand names",
        lambda: wave(
            _format(),
            chunk(
                b"LIST",
                b"INFO" + b"".join(chunk(b"I%03d" % (n % 1000), b"x") for n in range(100_000)),
            ),
            data,
        ),
    )
    yield (
        "a wav of a hundred thousand cue points",
        lambda: wave(_format(), chunk(b"cue ", struct.pack("<I", MOST) + bytes(2_400_000)), data),
    )
    yield "a wav that claims 37 hours", lambda: wave(_format(), chunk(b"data", _NOISE, MOST))
    yield (
        "an RF64 of 2^63 bytes",
        lambda: (
            b"RF64\xff\xff\xff\xffWAVE"
            + chunk(b"ds64", struct.pack("<QQQI", 1 << 63, 1 << 63, 1 << 63, MOST))
            + _format()
            + chunk(b"data", _NOISE, MOST)
        ),
    )
    yield (
        "a wav in a wav in a wav",
        lambda: wave(_format(), chunk(b"data", wave(_format(), chunk(b"data", wave())))),
    )


# MP4


def atom(kind: str, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + kind.encode("latin-1") + body


def replaced(content: bytes, path: tuple[str, ...], new: bytes) -> bytes:
    """The atoms in `content` with the one at `path` another."""
    made, at = [], 0
    while at + 8 <= len(content):
        size, kind = (
            struct.unpack_from(">I", content, at)[0],
            content[at + 4 : at + 8].decode("latin-1"),
        )
        body = content[at + 8 : at + size]
        if kind == path[0]:
            body = replaced(body, path[1:], new) if path[1:] else new
        made.append(atom(kind, body))
        at += size
    return b"".join(made)


def _mp4s() -> _Made:
    tables = {
        "stsz": struct.pack(">III", 0, 1, MOST >> 1),
        "stts": struct.pack(">II", 0, 1) + struct.pack(">II", MOST, 0),
        "stsc": struct.pack(">II", 0, 1) + struct.pack(">III", 1, MOST >> 1, 1),
        "stco": struct.pack(">II", 0, MOST >> 3),
        "ctts": struct.pack(">II", 0, MOST >> 4),
        "stss": struct.pack(">II", 0, MOST >> 3),
        "stsd": struct.pack(">II", 0, MOST) + bytes(1000),
    }
    for table, content in tables.items():
        yield (
            f"an mp4 of endless {table}",
            lambda table=table, content=content: replaced(
                whole("mp4"), (*_SAMPLES, table), content
            ),
        )
    for samples in (1 << 20, 1 << 26, 1 << 29):
        yield (
            f"an mp4 of {samples} samples without a byte",
            lambda samples=samples: _with_samples(samples),
        )
    for scale in (0, 1, MOST):
        header = struct.pack(">IIIIII", 0, 0, 0, scale, MOST, 0)
        yield (
            f"an mp4 whose second has {scale} ticks",
            lambda header=header: replaced(whole("mp4"), ("moov", "trak", "mdia", "mdhd"), header),
        )
    far = struct.pack(">II", 1 << 24, 1) + struct.pack(">QqI", 1 << 62, 1 << 62, 65536)
    yield (
        "an mp4 whose edit begins at 2^62",
        lambda: replaced(whole("mp4"), ("moov", "trak", "edts", "elst"), far),
    )
    edits = struct.pack(">II", 0, 30_000) + struct.pack(">IiI", 1, 0, 65536) * 30_000
    yield (
        "an mp4 of 30,000 edits",
        lambda: replaced(whole("mp4"), ("moov", "trak", "edts", "elst"), edits),
    )
    yield (
        "an mp4 of moov in moov, 100,000 deep",
        lambda: atom("ftyp", b"isom\0\0\2\0isom") + _nested("moov", 100_000),
    )
    yield (
        "an mp4 of udta in meta in udta, 5,000 deep",
        lambda: (
            atom("ftyp", b"isom\0\0\2\0isom")
            + atom("moov", _nested("udta", 5_000))
            + whole("mp4")[28:]
        ),
    )
    yield (
        "an mp4 of a million empty atoms",
        lambda: atom("ftyp", b"isom\0\0\2\0isom") + atom("free") * 1_000_000,
    )
    track = _box(whole("mp4"), "moov", "trak")
    yield (
        "an mp4 of 2,000 tracks",
        lambda: replaced(
            whole("mp4"), ("moov",), _box(whole("mp4"), "moov") + atom("trak", track) * 2_000
        ),
    )
    inflated = atom("dcom", b"zlib") + atom(
        "cmvd", struct.pack(">I", MOST >> 2) + zlib.compress(bytes(50_000_000))
    )
    yield (
        "an mp4 whose header is a zip bomb",
        lambda: atom("ftyp", b"qt  \0\0\2\0qt  ") + atom("moov", atom("cmov", inflated)),
    )
    yield (
        "an mp4 with a cover of 2 GB",
        lambda: (
            whole("mp4")
            + atom(
                "moov",
                atom(
                    "udta",
                    atom(
                        "meta",
                        bytes(4),
                        atom("ilst", atom("covr", struct.pack(">I", MOST >> 1) + b"data")),
                    ),
                ),
            )
        ),
    )
    for name in (
        b"alac",
        b"xHE\0",
        b"Opus",
        b"ac-3",
        b"fLaC",
        b"QDM2",
        b"sowt",
        b"lpcm",
        b"enca",
        b"mha1",
        b"ulaw",
    ):
        yield (
            f"an mp4 of {name.decode()} with wild extradata",
            lambda name=name: (
                whole("mp4")
                .replace(b"mp4a", name, 1)
                .replace(b"esds", name.lower() if name == b"alac" else b"d" + name[:3], 1)
            ),
        )
    # An object type beyond 31 (USAC is 42), and a rate written out in full.
    for config in (b"\xf9\x50\xff\xff", b"\xff" * 4, b"\x17\x80\x00\x01", b"\x13\x00\x56\xe5"):
        yield (
            f"an mp4 of AAC configured as {config.hex()}",
            lambda config=config: _configured(config),
        )


def _nested(kind: str, deep: int) -> bytes:
    """Atoms one in another, each as large as it must be."""
    return b"".join(struct.pack(">I", 8 * (deep - level)) + kind.encode() for level in range(deep))


def _box(content: bytes, *path: str) -> bytes:
    at = 0
    while at + 8 <= len(content):
        size = struct.unpack_from(">I", content, at)[0]
        if content[at + 4 : at + 8].decode("latin-1") == path[0]:
            body = content[at + 8 : at + size]
            return _box(body, *path[1:]) if path[1:] else body
        at += size
    raise KeyError(path)


def _with_samples(samples: int) -> bytes:
    """Tables of one line each that say the same of so many samples."""
    made = replaced(whole("mp4"), (*_SAMPLES, "stsz"), struct.pack(">III", 0, 1, samples))
    made = replaced(made, (*_SAMPLES, "stts"), struct.pack(">IIII", 0, 1, samples, 1))
    return replaced(made, (*_SAMPLES, "stsc"), struct.pack(">IIIII", 0, 1, 1, samples, 1))


def _configured(config: bytes) -> bytes:
    at = whole("mp4").index(b"esds") + 4 + 4 + 3 + 5 + 4 + 13 + 5 + 4
    made = bytearray(whole("mp4"))
    made[at - 4 : at - 4 + len(config)] = config
    return bytes(made)


def _fragments() -> _Made:
    header = whole("fragmented mp4")[: whole("fragmented mp4").index(b"moof") - 4]
    for flags, samples in ((0, MOST), (0, 1 << 26), (0x100, 1 << 24), (0, 1 << 18)):
        run = atom("trun", struct.pack(">II", flags, samples))
        yield (
            f"a fragment of {samples} samples, flags {flags:#x}",
            lambda run=run: header + _fragment(run),
        )
    late = struct.pack(">IQ", 1 << 24, 1 << 62)
    yield (
        "a fragment at 2^62",
        lambda: whole("fragmented mp4").replace(*_swapped(whole("fragmented mp4"), b"tfdt", late)),
    )
    yield "a hundred thousand empty fragments", lambda: header + _fragment(b"") * 100_000


def _swapped(content: bytes, kind: bytes, new: bytes) -> tuple[bytes, bytes]:
    """A box as it stands, and as it is to stand: of the same length."""
    at = content.index(kind) - 4
    size = struct.unpack_from(">I", content, at)[0]
    return content[at : at + size], struct.pack(">I", size) + kind + (new + bytes(size))[: size - 8]


def _fragment(run: bytes) -> bytes:
    base = atom("tfhd", struct.pack(">IIII", 0x020018, 1, 1, 1))
    return atom("moof", atom("mfhd", bytes(8)), atom("traf", base, run)) + atom("mdat", bytes(64))


# Matroska


def element(identity: int, *content: bytes, size: int | None = None) -> bytes:
    body = b"".join(content)
    length = (1 << 56) | (len(body) if size is None else size)
    return identity.to_bytes((identity.bit_length() + 7) // 8) + length.to_bytes(8) + body


def track(
    codec: bytes = b"A_PCM/INT/LIT",
    rate: float = 16_000.0,
    channels: int = 1,
    number: int = 1,
    *more: bytes,
) -> bytes:
    sound = element(
        0xE1,
        element(0xB5, struct.pack(">d", rate)),
        element(0x9F, struct.pack(">I", channels)),
        element(0x6264, b"\x10"),
    )
    about = (
        element(0xD7, struct.pack(">I", number)),
        element(0x73C5, struct.pack(">I", number)),
        element(0x83, b"\2"),
    )
    return element(0xAE, *about, element(0x86, codec), sound, *more)


def cluster(time: int, *blocks: bytes) -> bytes:
    return element(0x1F43B675, element(0xE7, struct.pack(">Q", time)), *blocks)


def block(content: bytes, time: int = 0, flags: int = 0x80) -> bytes:
    return element(0xA3, b"\x81" + struct.pack(">hB", time, flags) + content)


def matroska(*tracks: bytes, clusters: bytes = b"", scale: bytes = b"", more: bytes = b"") -> bytes:
    head = element(0x1A45DFA3, element(0x4282, b"matroska"))
    return head + element(
        0x18538067,
        element(0x1549A966, scale),
        element(0x1654AE6B, *tracks),
        more,
        clusters or cluster(0, block(_NOISE)),
    )


def _matroskas() -> _Made:
    for rate in (0.0, 384_000.0, 1e300, float("inf"), float("nan"), -1.0, 1e-300):
        yield f"a matroska at {rate} Hz", lambda rate=rate: matroska(track(rate=rate))
    for channels in (0, 9, 255, 65535, MOST):
        yield (
            f"a matroska of {channels} channels",
            lambda channels=channels: matroska(track(channels=channels)),
        )
    for scale in (0, 1, 1 << 62, MOST):
        tick = element(0x2AD7B1, struct.pack(">Q", scale))
        yield f"a matroska of ticks of {scale} ns", lambda tick=tick: matroska(track(), scale=tick)
    length = element(0x4489, struct.pack(">d", 1e18))
    yield "a matroska that claims 30 million years", lambda: matroska(track(), scale=length)
    for moment in (1 << 62, (1 << 63) - 1, (1 << 64) - 1, 3_600_000 * 24 * 365):
        far = cluster(0, block(_NOISE)) + cluster(moment, block(_NOISE))
        yield (
            f"a matroska with a gap up to {moment} ms",
            lambda far=far: matroska(track(), clusters=far),
        )
        early = cluster(moment, block(_NOISE)) + cluster(0, block(_NOISE))
        yield (
            f"a matroska that begins at {moment} ms",
            lambda early=early: matroska(track(), clusters=early),
        )
    yield (
        "a matroska whose clock leaps with every block",
        lambda: matroska(track(), clusters=_leaping(3_000)),
    )
    yield (
        "a matroska of 200,000 blocks of one sample",
        lambda: matroska(track(), clusters=cluster(0, *[block(b"\1\2")] * 200_000)),
    )
    yield (
        "a matroska of 200,000 blocks of nothing",
        lambda: matroska(track(), clusters=cluster(0, *[block(b"")] * 200_000)),
    )
    yield (
        "a matroska of 3,000 tracks",
        lambda: matroska(*(track(number=number) for number in range(1, 3_001))),
    )
    yield "a matroska of a million voids", lambda: matroska(track(), more=b"\xec\x80" * 1_000_000)
    yield (
        "a matroska of tags in tags, 5,000 deep",
        lambda: matroska(track(), more=element(0x1254C367, element(0x7373, _deep(0x67C8, 5_000)))),
    )
    yield (
        "a matroska of segments in segments, 2,000 deep",
        lambda: element(0x1A45DFA3, element(0x4282, b"matroska")) + _deep(0x18538067, 2_000),
    )
    zipped = element(0x6D80, element(0x6240, element(0x5034, element(0x4254, b"\0"))))
    bomb = cluster(0, *[block(zlib.compress(bytes(50_000_000)))] * 20)
    yield (
        "a matroska of zip bombs",
        lambda: matroska(track(b"A_PCM/INT/LIT", 16_000.0, 1, 1, zipped), clusters=bomb),
    )
    stripped = element(
        0x6D80,
        element(0x6240, element(0x5034, element(0x4254, b"\3"), element(0x4255, bytes(4_000_000)))),
    )
    many = cluster(0, *[block(b"x")] * 2_000)
    yield (
        "a matroska that strips 4 MB off every block",
        lambda: matroska(track(b"A_PCM/INT/LIT", 16_000.0, 1, 1, stripped), clusters=many),
    )
    for flags in (0x02, 0x04, 0x06):
        laced = cluster(0, *[block(b"\xff" * 300 + _NOISE[:2_000], flags=flags)] * 50)
        yield (
            f"a matroska laced wildly, {flags}",
            lambda laced=laced: matroska(track(), clusters=laced),
        )
    delay = element(0x56AA, b"\xff" * 8) + element(0x56BB, b"\xff" * 8)
    yield (
        "a matroska with a delay of 584 years",
        lambda: matroska(track(b"A_OPUS", 48_000.0, 1, 1, delay)),
    )
    attached = element(
        0x1941A469,
        element(0x61A7, element(0x466E, b"../../etc/passwd"), element(0x465C, bytes(9_000_000))),
    )
    yield "a matroska with an attachment of 9 MB", lambda: matroska(track(), more=attached)
    yield (
        "a matroska of an element of 2^56 bytes",
        lambda: matroska(track(), more=element(0xEC, size=(1 << 56) - 2)),
    )


def _leaping(blocks: int) -> bytes:
    chance = random.Random(6)
    return b"".join(
        cluster(chance.randrange(1 << chance.randrange(1, 63)), block(_NOISE[:320]))
        for _ in range(blocks)
    )


def _deep(identity: int, deep: int) -> bytes:
    made, each = b"", len(element(identity))
    for level in range(deep):
        made += element(identity, size=each * (deep - level - 1))
    return made


def _codecs() -> _Made:
    for name, codec in _CODECS.items():
        for number, private in enumerate((b"", b"\xff" * 200, _NOISE[:36], _NOISE[:5_000])):
            extra = element(0x63A2, private)
            blocks = cluster(
                0, *(block(_NOISE[at : at + 700], at // 70) for at in range(0, 14_000, 700))
            )
            yield (
                f"{name} with wild extradata, {number}",
                lambda codec=codec, extra=extra, blocks=blocks: matroska(
                    track(codec, 48_000.0, 2, 1, extra), clusters=blocks
                ),
            )


# Tags


def _id3(*frames: bytes, size: int | None = None, version: int = 3) -> bytes:
    content = b"".join(frames)
    claimed = len(content) if size is None else size
    return (
        b"ID3"
        + bytes([version, 0, 0])
        + bytes(claimed >> shift & 0x7F for shift in (21, 14, 7, 0))
        + content
    )


def _frame(name: bytes, content: bytes, flags: int = 0, size: int | None = None) -> bytes:
    return name + struct.pack(">IH", len(content) if size is None else size, flags) + content


def _tags() -> _Made:
    yield "a tag that claims 256 MB", lambda: _id3(size=(1 << 28) - 1) + whole("mp3")
    yield (
        "a tag of a hundred thousand frames",
        lambda: _id3(_frame(b"TXXX", b"\0a\0b") * 100_000) + whole("mp3"),
    )
    yield (
        "a tag of a picture of 9 MB",
        lambda: _id3(_frame(b"APIC", b"\0image/png\0\3\0" + bytes(9_000_000))) + whole("mp3"),
    )
    packed = zlib.compress(b"\0" + b"x" * 50_000_000)
    for claimed in (50_000_001, MOST):
        yield (
            f"a tag of a zip bomb that claims {claimed} bytes",
            lambda claimed=claimed: (
                _id3(_frame(b"TIT2", struct.pack(">I", claimed) + packed, flags=0x80))
                + whole("mp3")
            ),
        )
    yield (
        "a tag of a frame of 4 GB",
        lambda: _id3(_frame(b"TIT2", b"\1\xff\xfe", size=MOST)) + whole("mp3"),
    )
    yield "a thousand tags", lambda: _id3(_frame(b"TIT2", b"\0x")) * 1_000 + whole("mp3")
    yield (
        "a tag of chapters by the thousand",
        lambda: (
            _id3(_frame(b"CHAP", b"c\0" + b"\xff" * 16 + _frame(b"TIT2", b"\0x")) * 20_000)
            + whole("mp3")
        ),
    )
    yield (
        "an mp3 of four billion frames",
        lambda: (
            b"\xff\xfb\x90\x64"
            + bytes(32)
            + b"Xing"
            + struct.pack(">III", 3, MOST, MOST)
            + bytes(400)
            + whole("mp3")
        ),
    )


# Ogg and FLAC


def page(
    content: bytes, position: int = 0, flags: int = 0, number: int = 0, serial: int = 1
) -> bytes:
    segments = bytes([255] * (len(content) // 255) + [len(content) % 255])[:255]
    head = (
        b"OggS\0"
        + struct.pack("<BqIIIB", flags, position, serial, number, 0, len(segments))
        + segments
        + content
    )
    checksum = 0
    for byte in head:
        checksum = (checksum << 8 & MOST) ^ _OGG[checksum >> 24 ^ byte]
    return head[:22] + struct.pack("<I", checksum) + head[26:]


def _remainder(byte: int) -> int:
    left = byte << 24
    for _ in range(8):
        left = left << 1 & MOST ^ (0x04C11DB7 if left & 0x80000000 else 0)
    return left


_OGG = [_remainder(byte) for byte in range(256)]
_OPUS = b"OpusHead\1"


def _oggs() -> _Made:
    head = page(_OPUS + struct.pack("<BHIhB", 1, 312, 48_000, 0, 0), flags=2)
    sound = page(b"\xf8\xff\xfe" * 20, 960 * 20, number=2)
    comments = {
        "a vendor of 4 GB": b"OpusTags" + struct.pack("<I", MOST),
        "four billion comments": b"OpusTags\0\0\0\0" + struct.pack("<I", MOST),
        "a comment of 4 GB": b"OpusTags\0\0\0\0" + struct.pack("<II", 1, MOST),
        "a picture in a comment": b"OpusTags\0\0\0\0"
        + struct.pack("<II", 1, 4000)
        + b"METADATA_BLOCK_PICTURE="
        + b"A" * 4000,
    }
    for name, comment in comments.items():
        yield f"an ogg of {name}", lambda comment=comment: head + page(comment, number=1) + sound
    yield "an ogg of 9 MB of comments", lambda: head + page(b"x" * 65_025, number=1) * 140 + sound
    for count, family in ((255, 255), (0, 0), (255, 0), (9, 1)):
        wild = page(
            _OPUS + struct.pack("<BHIhB", count, 65535, MOST, -32768, family) + bytes(300), flags=2
        )
        yield (
            f"an ogg of {count} channels in family {family}",
            lambda wild=wild: wild + page(b"OpusTags" + bytes(8), number=1) + sound,
        )
    for position in (1 << 62, (1 << 63) - 1, -2, 48_000 * 3600 * 24 * 365):
        late = page(b"\xf8\xff\xfe" * 20, position, number=2)
        yield (
            f"an ogg at position {position}",
            lambda late=late: head + page(b"OpusTags" + bytes(8), number=1) + late,
        )
    yield (
        "an ogg of 2,000 streams",
        lambda: b"".join(
            page(_OPUS + struct.pack("<BHIhB", 1, 312, 48_000, 0, 0), flags=2, serial=serial)
            for serial in range(2_000)
        ),
    )
    yield "an ogg of 200,000 empty pages", lambda: head + page(b"", number=1) * 200_000
    yield (
        "an ogg with a skeleton",
        lambda: page(b"fishead\0" + b"\xff" * 72, flags=2, serial=7) + whole("ogg"),
    )


def _flacs() -> _Made:
    sound = whole("flac")[whole("flac").index(b"\xff\xf8") :]
    for name, about in {
        "of blocks of 65535": b"\xff" * 4 + bytes(6) + b"\x0a\xc4\x42\xf0" + bytes(20),
        "of blocks of nothing": bytes(34),
        "of everything there is": b"\xff" * 34,
        "of 2^36 samples": b"\x10\0\x10\0"
        + bytes(6)
        + b"\x0b\xb8\x00\xff\xff\xff\xff\xff"
        + bytes(16),
    }.items():
        yield f"a flac {name}", lambda about=about: b"fLaC\x80\0\0\x22" + about + sound
    header = whole("flac")[4:42]
    for kind, name in (
        (3, "seek points"),
        (4, "comments"),
        (5, "cues"),
        (6, "a picture"),
        (126, "what nobody knows"),
    ):
        yield (
            f"a flac of 16 MB of {name}",
            lambda kind=kind: (
                b"fLaC\0"
                + header[1:]
                + bytes([kind | 0x80])
                + b"\xff\xff\xff"
                + b"\xff" * 0xFFFFFF
                + sound
            ),
        )
        yield (
            f"a flac that claims 16 MB of {name}",
            lambda kind=kind: (
                b"fLaC\0" + header[1:] + bytes([kind | 0x80]) + b"\xff\xff\xff" + sound
            ),
        )
    yield (
        "a flac of a million empty blocks",
        lambda: b"fLaC\0" + header[1:] + b"\x01\0\0\0" * 1_000_000 + sound,
    )


# Whatever else there is


def _others() -> _Made:
    for rate in (0.0, 1e308, float("inf"), float("nan"), -48_000.0):
        for packets in ((0, 0), (0, MOST), (MOST, 0), (MOST, MOST)):
            desc = struct.pack(">d4sIIIII", rate, b"lpcm", 0, *packets, 255, 16)
            yield (
                f"a caf at {rate} Hz in packets of {packets}",
                lambda desc=desc: (
                    b"caff\0\1\0\0desc"
                    + struct.pack(">Q", len(desc))
                    + desc
                    + b"data"
                    + b"\xff" * 8
                    + bytes(4)
                    + _NOISE
                ),
            )
    table = (
        b"pakt" + struct.pack(">QQQII", 24 + 1000, 1 << 62, 1 << 62, MOST, MOST) + b"\xff" * 1000
    )
    yield "a caf of 2^62 packets", lambda: whole("caf").replace(b"data", table + b"data", 1)
    for rate in (b"\x7f\xff" + b"\xff" * 8, bytes(10), b"\xff" * 10, b"\x40\x1e\x80" + bytes(7)):
        comm = struct.pack(">HIH", 65535, MOST, 65535) + rate
        yield (
            f"an aiff of 65535 channels at {rate.hex()} Hz",
            lambda comm=comm: (
                b"FORM\x7f\xff\xff\xffAIFFCOMM"
                + struct.pack(">I", len(comm))
                + comm
                + b"SSND\x7f\xff\xff\xff"
                + _NOISE
            ),
        )
    yield "an amr of silence for 14 hours", lambda: b"#!AMR\n" + b"\x7c" * (50 * 3600 * 14)
    yield "an amr of silence for an hour", lambda: b"#!AMR\n" + b"\x7c" * (50 * 3600)
    yield (
        "an avi of 4 billion streams",
        lambda: whole("avi").replace(
            *_header_of(whole("avi"), b"avih", 24, struct.pack("<I", MOST))
        ),
    )
    for at, value in ((20, 0), (24, 0), (24, MOST), (32, MOST), (44, MOST)):
        yield (
            f"an avi whose stream says {value} at {at}",
            lambda at=at, value=value: whole("avi").replace(
                *_header_of(whole("avi"), b"strh", at, struct.pack("<I", value))
            ),
        )
    yield (
        "an asf of 2^32 objects",
        lambda: whole("asf")[:24] + struct.pack("<I", MOST) + whole("asf")[28:],
    )
    yield "an asf of packets of nothing", lambda: _asf_packets(0)
    yield "an asf of packets of 4 GB", lambda: _asf_packets(MOST)
    yield "a transport stream of 1,000 programs", lambda: _programs() + whole("mpeg-ts")
    yield (
        "a transport stream of wild clocks",
        lambda: whole("mpeg-ts").replace(b"\xc0\0\0", b"\xc0\xff\xff"),
    )
    yield (
        "a program stream of 100,000 pack headers",
        lambda: whole("mpeg-ps")[:14] * 100_000 + whole("mpeg-ps"),
    )
    yield (
        "a wave64 of 2^63 bytes",
        lambda: whole("wave64")[:16] + b"\xff" * 7 + b"\x7f" + whole("wave64")[24:],
    )
    yield "an aac of 200,000 empty frames", lambda: b"\xff\xf1\x50\x80\0\xff\xfc" * 200_000
    yield "an mp3 of the slowest frames", lambda: (b"\xff\xe3\x18\xc4" + bytes(68)) * 20_000


def _header_of(content: bytes, name: bytes, at: int, value: bytes) -> tuple[bytes, bytes]:
    start = content.index(name) + 8
    old = content[start - 8 : start + at + len(value)]
    return old, old[: 8 + at] + value


def _asf_packets(size: int) -> bytes:
    about = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
    at = whole("asf").index(about) + 92
    return whole("asf")[:at] + struct.pack("<II", size, size) + whole("asf")[at + 8 :]


def _programs() -> bytes:
    """Tables of programs, of which none is there."""
    made = b""
    for first in range(0, 1_000, 40):
        entries = b"".join(
            struct.pack(">HH", number + 1, 0xE000 | (number % 8000 + 32))
            for number in range(first, first + 40)
        )
        section = struct.pack(">BHHBBB", 0, 0xB000 | (len(entries) + 9), 1, 0xC1, 0, 0) + entries
        made += (b"\x47\x40\0\x10\0" + section + _crc(section)).ljust(188, b"\xff")
    return made


def _crc(section: bytes) -> bytes:
    checksum = MOST
    for byte in section:
        checksum = (checksum << 8 & MOST) ^ _OGG[checksum >> 24 ^ byte]
    return struct.pack(">I", checksum)
