"""Generate recordings whose headers declare extreme sizes, counts, rates or nesting depths."""

import random
import struct
import zlib
from collections.abc import Callable, Iterator

from tests.attacks.corpus import CorpusFile, valid_recording

UINT32_MAX = (1 << 32) - 1
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
    "an unknown codec": b"A_NOBODY/KNOWS",
}


def extreme_headers() -> list[CorpusFile]:
    """Return recordings in all formats. The content of a recording is generated when it is read."""
    generators = (
        _waves,
        _mp4s,
        _fragments,
        _matroskas,
        _codec_extradata,
        _tags,
        _oggs,
        _flacs,
        _others,
    )
    return [CorpusFile(name, make) for generator in generators for name, make in generator()]


_Cases = Iterator[tuple[str, Callable[[], bytes]]]


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
    extra: bytes = b"",
) -> bytes:
    return chunk(
        b"fmt ",
        struct.pack("<HHIIHH", tag, channels, rate, rate * block % UINT32_MAX, block, bits) + extra,
    )


def _waves() -> _Cases:
    data = chunk(b"data", _NOISE)
    extreme_formats = {
        "at 384 kHz": {"rate": 384_000},
        "at 4 GHz": {"rate": UINT32_MAX},
        "at 0 Hz": {"rate": 0},
        "with 255 channels": {"channels": 255, "block": 510},
        "with 65535 channels": {"channels": 65535, "block": 65535},
        "with no channels": {"channels": 0},
        "of empty blocks": {"block": 0},
        "of 0 bits": {"bits": 0},
        "of 65535 bits": {"bits": 65535},
        "with extreme values in every field": {
            "channels": 65535,
            "rate": UINT32_MAX,
            "block": 65535,
            "bits": 64,
        },
    }
    for name, fields in extreme_formats.items():
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
        extra = struct.pack("<H", 65535) + _NOISE[:4000]
        yield (
            f"a wav of format {tag:#x} with invalid extradata",
            lambda tag=tag, extra=extra: wave(_format(tag, extra=extra), data),
        )
    yield (
        "a wav with a LIST chunk of 3.8 GB",
        lambda: (
            b"RIFF\xff\xff\xff\xffWAVELIST\x00\x00\x80\xe2INFOISFT\xf4\xff\x7f\xe2" + bytes(96_000)
        ),
    )
    yield (
        "a wav with 1,000,000 empty chunks",
        lambda: wave(_format(), chunk(b"junk", b"") * 1_000_000, data),
    )
    yield (
        "a wav with 100,000 INFO tags",
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
        "a wav with 100,000 cue points",
        lambda: wave(
            _format(), chunk(b"cue ", struct.pack("<I", UINT32_MAX) + bytes(2_400_000)), data
        ),
    )
    yield (
        "a wav with a declared duration of 37 hours",
        lambda: wave(_format(), chunk(b"data", _NOISE, UINT32_MAX)),
    )
    yield (
        "an RF64 of 2^63 bytes",
        lambda: (
            b"RF64\xff\xff\xff\xffWAVE"
            + chunk(b"ds64", struct.pack("<QQQI", 1 << 63, 1 << 63, 1 << 63, UINT32_MAX))
            + _format()
            + chunk(b"data", _NOISE, UINT32_MAX)
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


def replace_atom(content: bytes, path: tuple[str, ...], new: bytes) -> bytes:
    """Return a copy of `content` in which `new` is the body of the atom at `path`."""
    result, at = [], 0
    while at + 8 <= len(content):
        size, kind = (
            struct.unpack_from(">I", content, at)[0],
            content[at + 4 : at + 8].decode("latin-1"),
        )
        body = content[at + 8 : at + size]
        if kind == path[0]:
            body = replace_atom(body, path[1:], new) if path[1:] else new
        result.append(atom(kind, body))
        at += size
    return b"".join(result)


def _mp4s() -> _Cases:
    tables = {
        "stsz": struct.pack(">III", 0, 1, UINT32_MAX >> 1),
        "stts": struct.pack(">II", 0, 1) + struct.pack(">II", UINT32_MAX, 0),
        "stsc": struct.pack(">II", 0, 1) + struct.pack(">III", 1, UINT32_MAX >> 1, 1),
        "stco": struct.pack(">II", 0, UINT32_MAX >> 3),
        "ctts": struct.pack(">II", 0, UINT32_MAX >> 4),
        "stss": struct.pack(">II", 0, UINT32_MAX >> 3),
        "stsd": struct.pack(">II", 0, UINT32_MAX) + bytes(1000),
    }
    for table, content in tables.items():
        yield (
            f"an mp4 with a huge {table} table",
            lambda table=table, content=content: replace_atom(
                valid_recording("mp4"), (*_SAMPLES, table), content
            ),
        )
    for samples in (1 << 20, 1 << 26, 1 << 29):
        yield (
            f"an mp4 of {samples} empty samples",
            lambda samples=samples: _with_samples(samples),
        )
    for scale in (0, 1, UINT32_MAX):
        header = struct.pack(">IIIIII", 0, 0, 0, scale, UINT32_MAX, 0)
        yield (
            f"an mp4 with a time scale of {scale}",
            lambda header=header: replace_atom(
                valid_recording("mp4"), ("moov", "trak", "mdia", "mdhd"), header
            ),
        )
    far = struct.pack(">II", 1 << 24, 1) + struct.pack(">QqI", 1 << 62, 1 << 62, 65536)
    yield (
        "an mp4 whose edit begins at 2^62",
        lambda: replace_atom(valid_recording("mp4"), ("moov", "trak", "edts", "elst"), far),
    )
    edits = struct.pack(">II", 0, 30_000) + struct.pack(">IiI", 1, 0, 65536) * 30_000
    yield (
        "an mp4 with 30,000 edits",
        lambda: replace_atom(valid_recording("mp4"), ("moov", "trak", "edts", "elst"), edits),
    )
    yield (
        "an mp4 of moov atoms nested 100,000 deep",
        lambda: atom("ftyp", b"isom\0\0\2\0isom") + _nested("moov", 100_000),
    )
    yield (
        "an mp4 of udta atoms nested 5,000 deep",
        lambda: (
            atom("ftyp", b"isom\0\0\2\0isom")
            + atom("moov", _nested("udta", 5_000))
            + valid_recording("mp4")[28:]
        ),
    )
    yield (
        "an mp4 with 1,000,000 empty atoms",
        lambda: atom("ftyp", b"isom\0\0\2\0isom") + atom("free") * 1_000_000,
    )
    track = _atom_body(valid_recording("mp4"), "moov", "trak")
    yield (
        "an mp4 with 2,000 tracks",
        lambda: replace_atom(
            valid_recording("mp4"),
            ("moov",),
            _atom_body(valid_recording("mp4"), "moov") + atom("trak", track) * 2_000,
        ),
    )
    inflated = atom("dcom", b"zlib") + atom(
        "cmvd", struct.pack(">I", UINT32_MAX >> 2) + zlib.compress(bytes(50_000_000))
    )
    yield (
        "an mp4 whose header is a decompression bomb",
        lambda: atom("ftyp", b"qt  \0\0\2\0qt  ") + atom("moov", atom("cmov", inflated)),
    )
    yield (
        "an mp4 with cover art of 2 GB",
        lambda: (
            valid_recording("mp4")
            + atom(
                "moov",
                atom(
                    "udta",
                    atom(
                        "meta",
                        bytes(4),
                        atom("ilst", atom("covr", struct.pack(">I", UINT32_MAX >> 1) + b"data")),
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
            f"an mp4 of {name.decode()} with invalid extradata",
            lambda name=name: (
                valid_recording("mp4")
                .replace(b"mp4a", name, 1)
                .replace(b"esds", name.lower() if name == b"alac" else b"d" + name[:3], 1)
            ),
        )
    # Values of AudioSpecificConfig, for example with an extended object type (32 or higher; USAC is
    # 42) or an explicit sample rate.
    for config in (b"\xf9\x50\xff\xff", b"\xff" * 4, b"\x17\x80\x00\x01", b"\x13\x00\x56\xe5"):
        yield (
            f"an mp4 of AAC configured as {config.hex()}",
            lambda config=config: _with_aac_config(config),
        )


def _nested(kind: str, depth: int) -> bytes:
    """Return `depth` nested MP4 atoms of this kind. Each atom has the correct size."""
    return b"".join(
        struct.pack(">I", 8 * (depth - level)) + kind.encode() for level in range(depth)
    )


def _atom_body(content: bytes, *path: str) -> bytes:
    at = 0
    while at + 8 <= len(content):
        size = struct.unpack_from(">I", content, at)[0]
        if content[at + 4 : at + 8].decode("latin-1") == path[0]:
            body = content[at + 8 : at + size]
            return _atom_body(body, *path[1:]) if path[1:] else body
        at += size
    raise KeyError(path)


def _with_samples(samples: int) -> bytes:
    """Return an MP4 file with this number of samples. Each table has one entry for all of them."""
    result = replace_atom(
        valid_recording("mp4"), (*_SAMPLES, "stsz"), struct.pack(">III", 0, 1, samples)
    )
    result = replace_atom(result, (*_SAMPLES, "stts"), struct.pack(">IIII", 0, 1, samples, 1))
    return replace_atom(result, (*_SAMPLES, "stsc"), struct.pack(">IIIII", 0, 1, 1, samples, 1))


def _with_aac_config(config: bytes) -> bytes:
    at = valid_recording("mp4").index(b"esds") + 4 + 4 + 3 + 5 + 4 + 13 + 5 + 4
    result = bytearray(valid_recording("mp4"))
    result[at - 4 : at - 4 + len(config)] = config
    return bytes(result)


def _fragments() -> _Cases:
    header = valid_recording("fragmented mp4")[
        : valid_recording("fragmented mp4").index(b"moof") - 4
    ]
    for flags, samples in ((0, UINT32_MAX), (0, 1 << 26), (0x100, 1 << 24), (0, 1 << 18)):
        run = atom("trun", struct.pack(">II", flags, samples))
        yield (
            f"a fragment of {samples} samples, flags {flags:#x}",
            lambda run=run: header + _fragment(run),
        )
    late = struct.pack(">IQ", 1 << 24, 1 << 62)
    yield (
        "a fragment at 2^62",
        lambda: valid_recording("fragmented mp4").replace(
            *_box_replacement(valid_recording("fragmented mp4"), b"tfdt", late)
        ),
    )
    yield "100,000 empty fragments", lambda: header + _fragment(b"") * 100_000


def _box_replacement(content: bytes, kind: bytes, new: bytes) -> tuple[bytes, bytes]:
    """Return the first box of this kind, and a replacement that has the same length."""
    at = content.index(kind) - 4
    size = struct.unpack_from(">I", content, at)[0]
    return content[at : at + size], struct.pack(">I", size) + kind + (new + bytes(size))[: size - 8]


def _fragment(run: bytes) -> bytes:
    base = atom("tfhd", struct.pack(">IIII", 0x020018, 1, 1, 1))
    return atom("moof", atom("mfhd", bytes(8)), atom("traf", base, run)) + atom("mdat", bytes(64))


# Matroska


def element(element_id: int, *content: bytes, size: int | None = None) -> bytes:
    body = b"".join(content)
    length = (1 << 56) | (len(body) if size is None else size)
    return element_id.to_bytes((element_id.bit_length() + 7) // 8) + length.to_bytes(8) + body


def track(
    codec: bytes = b"A_PCM/INT/LIT",
    rate: float = 16_000.0,
    channels: int = 1,
    number: int = 1,
    *extra: bytes,
) -> bytes:
    sound = element(
        0xE1,
        element(0xB5, struct.pack(">d", rate)),
        element(0x9F, struct.pack(">I", channels)),
        element(0x6264, b"\x10"),
    )
    header = (
        element(0xD7, struct.pack(">I", number)),
        element(0x73C5, struct.pack(">I", number)),
        element(0x83, b"\2"),
    )
    return element(0xAE, *header, element(0x86, codec), sound, *extra)


def cluster(time: int, *blocks: bytes) -> bytes:
    return element(0x1F43B675, element(0xE7, struct.pack(">Q", time)), *blocks)


def block(content: bytes, time: int = 0, flags: int = 0x80) -> bytes:
    return element(0xA3, b"\x81" + struct.pack(">hB", time, flags) + content)


def matroska(
    *tracks: bytes, clusters: bytes = b"", scale: bytes = b"", extra: bytes = b""
) -> bytes:
    head = element(0x1A45DFA3, element(0x4282, b"matroska"))
    return head + element(
        0x18538067,
        element(0x1549A966, scale),
        element(0x1654AE6B, *tracks),
        extra,
        clusters or cluster(0, block(_NOISE)),
    )


def _matroskas() -> _Cases:
    for rate in (0.0, 384_000.0, 1e300, float("inf"), float("nan"), -1.0, 1e-300):
        yield f"a matroska at {rate} Hz", lambda rate=rate: matroska(track(rate=rate))
    for channels in (0, 9, 255, 65535, UINT32_MAX):
        yield (
            f"a matroska of {channels} channels",
            lambda channels=channels: matroska(track(channels=channels)),
        )
    for scale in (0, 1, 1 << 62, UINT32_MAX):
        tick = element(0x2AD7B1, struct.pack(">Q", scale))
        yield (
            f"a matroska with a timestamp scale of {scale} ns",
            lambda tick=tick: matroska(track(), scale=tick),
        )
    length = element(0x4489, struct.pack(">d", 1e18))
    yield (
        "a matroska with a declared duration of 30 million years",
        lambda: matroska(track(), scale=length),
    )
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
        "a matroska with random timestamps",
        lambda: matroska(track(), clusters=_random_timestamps(3_000)),
    )
    yield (
        "a matroska with 200,000 blocks of one sample",
        lambda: matroska(track(), clusters=cluster(0, *[block(b"\1\2")] * 200_000)),
    )
    yield (
        "a matroska with 200,000 empty blocks",
        lambda: matroska(track(), clusters=cluster(0, *[block(b"")] * 200_000)),
    )
    yield (
        "a matroska with 3,000 tracks",
        lambda: matroska(*(track(number=number) for number in range(1, 3_001))),
    )
    yield (
        "a matroska with 1,000,000 Void elements",
        lambda: matroska(track(), extra=b"\xec\x80" * 1_000_000),
    )
    yield (
        "a matroska with tags nested 5,000 deep",
        lambda: matroska(
            track(), extra=element(0x1254C367, element(0x7373, _nested_elements(0x67C8, 5_000)))
        ),
    )
    yield (
        "a matroska with segments nested 2,000 deep",
        lambda: (
            element(0x1A45DFA3, element(0x4282, b"matroska")) + _nested_elements(0x18538067, 2_000)
        ),
    )
    zipped = element(0x6D80, element(0x6240, element(0x5034, element(0x4254, b"\0"))))
    bomb = cluster(0, *[block(zlib.compress(bytes(50_000_000)))] * 20)
    yield (
        "a matroska of decompression bombs",
        lambda: matroska(track(b"A_PCM/INT/LIT", 16_000.0, 1, 1, zipped), clusters=bomb),
    )
    stripped = element(
        0x6D80,
        element(0x6240, element(0x5034, element(0x4254, b"\3"), element(0x4255, bytes(4_000_000)))),
    )
    small_blocks = cluster(0, *[block(b"x")] * 2_000)
    yield (
        "a matroska whose header stripping adds 4 MB to every block",
        lambda: matroska(track(b"A_PCM/INT/LIT", 16_000.0, 1, 1, stripped), clusters=small_blocks),
    )
    for flags in (0x02, 0x04, 0x06):
        laced = cluster(0, *[block(b"\xff" * 300 + _NOISE[:2_000], flags=flags)] * 50)
        yield (
            f"a matroska with invalid lacing, flags {flags}",
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
    yield "a matroska with an attachment of 9 MB", lambda: matroska(track(), extra=attached)
    yield (
        "a matroska with an element of 2^56 bytes",
        lambda: matroska(track(), extra=element(0xEC, size=(1 << 56) - 2)),
    )


def _random_timestamps(blocks: int) -> bytes:
    rng = random.Random(6)
    return b"".join(
        cluster(rng.randrange(1 << rng.randrange(1, 63)), block(_NOISE[:320]))
        for _ in range(blocks)
    )


def _nested_elements(element_id: int, depth: int) -> bytes:
    result, overhead = b"", len(element(element_id))
    for level in range(depth):
        result += element(element_id, size=overhead * (depth - level - 1))
    return result


def _codec_extradata() -> _Cases:
    for name, codec in _CODECS.items():
        for number, private in enumerate((b"", b"\xff" * 200, _NOISE[:36], _NOISE[:5_000])):
            extra = element(0x63A2, private)
            blocks = cluster(
                0, *(block(_NOISE[at : at + 700], at // 70) for at in range(0, 14_000, 700))
            )
            yield (
                f"{name} with invalid extradata, {number}",
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


def _tags() -> _Cases:
    yield (
        "an ID3 tag with a declared size of 256 MB",
        lambda: _id3(size=(1 << 28) - 1) + valid_recording("mp3"),
    )
    yield (
        "an ID3 tag with 100,000 frames",
        lambda: _id3(_frame(b"TXXX", b"\0a\0b") * 100_000) + valid_recording("mp3"),
    )
    yield (
        "an ID3 tag with a picture of 9 MB",
        lambda: (
            _id3(_frame(b"APIC", b"\0image/png\0\3\0" + bytes(9_000_000))) + valid_recording("mp3")
        ),
    )
    packed = zlib.compress(b"\0" + b"x" * 50_000_000)
    for claimed in (50_000_001, UINT32_MAX):
        yield (
            f"an ID3 tag with a decompression bomb of {claimed} declared bytes",
            lambda claimed=claimed: (
                _id3(_frame(b"TIT2", struct.pack(">I", claimed) + packed, flags=0x80))
                + valid_recording("mp3")
            ),
        )
    yield (
        "an ID3 tag with a frame of 4 GB",
        lambda: _id3(_frame(b"TIT2", b"\1\xff\xfe", size=UINT32_MAX)) + valid_recording("mp3"),
    )
    yield "1,000 ID3 tags", lambda: _id3(_frame(b"TIT2", b"\0x")) * 1_000 + valid_recording("mp3")
    yield (
        "an ID3 tag with 20,000 chapters",
        lambda: (
            _id3(_frame(b"CHAP", b"c\0" + b"\xff" * 16 + _frame(b"TIT2", b"\0x")) * 20_000)
            + valid_recording("mp3")
        ),
    )
    yield (
        "an mp3 with a declared count of 4 billion frames",
        lambda: (
            b"\xff\xfb\x90\x64"
            + bytes(32)
            + b"Xing"
            + struct.pack(">III", 3, UINT32_MAX, UINT32_MAX)
            + bytes(400)
            + valid_recording("mp3")
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
        checksum = (checksum << 8 & UINT32_MAX) ^ _CRC_TABLE[checksum >> 24 ^ byte]
    return head[:22] + struct.pack("<I", checksum) + head[26:]


def _crc_entry(byte: int) -> int:
    remainder = byte << 24
    for _ in range(8):
        remainder = remainder << 1 & UINT32_MAX ^ (0x04C11DB7 if remainder & 0x80000000 else 0)
    return remainder


_CRC_TABLE = [_crc_entry(byte) for byte in range(256)]
_OPUS_HEAD = b"OpusHead\1"


def _oggs() -> _Cases:
    head = page(_OPUS_HEAD + struct.pack("<BHIhB", 1, 312, 48_000, 0, 0), flags=2)
    sound = page(b"\xf8\xff\xfe" * 20, 960 * 20, number=2)
    comments = {
        "a vendor of 4 GB": b"OpusTags" + struct.pack("<I", UINT32_MAX),
        "4 billion comments": b"OpusTags\0\0\0\0" + struct.pack("<I", UINT32_MAX),
        "a comment of 4 GB": b"OpusTags\0\0\0\0" + struct.pack("<II", 1, UINT32_MAX),
        "a picture in a comment": b"OpusTags\0\0\0\0"
        + struct.pack("<II", 1, 4000)
        + b"METADATA_BLOCK_PICTURE="
        + b"A" * 4000,
    }
    for name, comment in comments.items():
        yield f"an ogg with {name}", lambda comment=comment: head + page(comment, number=1) + sound
    yield "an ogg with 9 MB of comments", lambda: head + page(b"x" * 65_025, number=1) * 140 + sound
    for count, family in ((255, 255), (0, 0), (255, 0), (9, 1)):
        first_page = page(
            _OPUS_HEAD
            + struct.pack("<BHIhB", count, 65535, UINT32_MAX, -32768, family)
            + bytes(300),
            flags=2,
        )
        yield (
            f"an ogg of {count} channels, mapping family {family}",
            lambda first_page=first_page: (
                first_page + page(b"OpusTags" + bytes(8), number=1) + sound
            ),
        )
    for position in (1 << 62, (1 << 63) - 1, -2, 48_000 * 3600 * 24 * 365):
        late = page(b"\xf8\xff\xfe" * 20, position, number=2)
        yield (
            f"an ogg at position {position}",
            lambda late=late: head + page(b"OpusTags" + bytes(8), number=1) + late,
        )
    yield (
        "an ogg with 2,000 streams",
        lambda: b"".join(
            page(_OPUS_HEAD + struct.pack("<BHIhB", 1, 312, 48_000, 0, 0), flags=2, serial=serial)
            for serial in range(2_000)
        ),
    )
    yield "an ogg with 200,000 empty pages", lambda: head + page(b"", number=1) * 200_000
    yield (
        "an ogg with an invalid Skeleton header",
        lambda: page(b"fishead\0" + b"\xff" * 72, flags=2, serial=7) + valid_recording("ogg"),
    )


def _flacs() -> _Cases:
    sound = valid_recording("flac")[valid_recording("flac").index(b"\xff\xf8") :]
    for name, header in {
        "of blocks of 65535": b"\xff" * 4 + bytes(6) + b"\x0a\xc4\x42\xf0" + bytes(20),
        "of empty blocks": bytes(34),
        "with extreme values in every field": b"\xff" * 34,
        "of 2^36 samples": b"\x10\0\x10\0"
        + bytes(6)
        + b"\x0b\xb8\x00\xff\xff\xff\xff\xff"
        + bytes(16),
    }.items():
        yield f"a flac {name}", lambda header=header: b"fLaC\x80\0\0\x22" + header + sound
    header = valid_recording("flac")[4:42]
    for kind, name in (
        (3, "seek points"),
        (4, "comments"),
        (5, "cues"),
        (6, "a picture"),
        (126, "an unknown block type"),
    ):
        yield (
            f"a flac with 16 MB of {name}",
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
            f"a truncated flac with a declared size of 16 MB of {name}",
            lambda kind=kind: (
                b"fLaC\0" + header[1:] + bytes([kind | 0x80]) + b"\xff\xff\xff" + sound
            ),
        )
    yield (
        "a flac with 1,000,000 empty metadata blocks",
        lambda: b"fLaC\0" + header[1:] + b"\x01\0\0\0" * 1_000_000 + sound,
    )


# Other formats


def _others() -> _Cases:
    for rate in (0.0, 1e308, float("inf"), float("nan"), -48_000.0):
        for packets in ((0, 0), (0, UINT32_MAX), (UINT32_MAX, 0), (UINT32_MAX, UINT32_MAX)):
            desc = struct.pack(">d4sIIIII", rate, b"lpcm", 0, *packets, 255, 16)
            yield (
                f"a caf at {rate} Hz, bytes and frames a packet {packets}",
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
        b"pakt"
        + struct.pack(">QQQII", 24 + 1000, 1 << 62, 1 << 62, UINT32_MAX, UINT32_MAX)
        + b"\xff" * 1000
    )
    yield (
        "a caf of 2^62 packets",
        lambda: valid_recording("caf").replace(b"data", table + b"data", 1),
    )
    for rate in (b"\x7f\xff" + b"\xff" * 8, bytes(10), b"\xff" * 10, b"\x40\x1e\x80" + bytes(7)):
        comm = struct.pack(">HIH", 65535, UINT32_MAX, 65535) + rate
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
    yield "an amr of 14 hours of silence", lambda: b"#!AMR\n" + b"\x7c" * (50 * 3600 * 14)
    yield "an amr of 1 hour of silence", lambda: b"#!AMR\n" + b"\x7c" * (50 * 3600)
    yield (
        "an avi with 4 billion streams",
        lambda: valid_recording("avi").replace(
            *_field_replacement(valid_recording("avi"), b"avih", 24, struct.pack("<I", UINT32_MAX))
        ),
    )
    for at, value in ((20, 0), (24, 0), (24, UINT32_MAX), (32, UINT32_MAX), (44, UINT32_MAX)):
        yield (
            f"an avi whose stream header has {value} at offset {at}",
            lambda at=at, value=value: valid_recording("avi").replace(
                *_field_replacement(valid_recording("avi"), b"strh", at, struct.pack("<I", value))
            ),
        )
    yield (
        "an asf with 2^32 objects",
        lambda: (
            valid_recording("asf")[:24]
            + struct.pack("<I", UINT32_MAX)
            + valid_recording("asf")[28:]
        ),
    )
    yield "an asf of empty packets", lambda: _asf_packets(0)
    yield "an asf of packets of 4 GB", lambda: _asf_packets(UINT32_MAX)
    yield (
        "a transport stream with 1,000 programs",
        lambda: _missing_programs() + valid_recording("mpeg-ts"),
    )
    yield (
        "a transport stream with invalid PES headers",
        lambda: valid_recording("mpeg-ts").replace(b"\xc0\0\0", b"\xc0\xff\xff"),
    )
    yield (
        "a program stream with 100,000 pack headers",
        lambda: valid_recording("mpeg-ps")[:14] * 100_000 + valid_recording("mpeg-ps"),
    )
    yield (
        "a wave64 of 2^63 bytes",
        lambda: (
            valid_recording("wave64")[:16] + b"\xff" * 7 + b"\x7f" + valid_recording("wave64")[24:]
        ),
    )
    yield "an aac with 200,000 empty frames", lambda: b"\xff\xf1\x50\x80\0\xff\xfc" * 200_000
    yield (
        "an mp3 of frames with the lowest rate",
        lambda: (b"\xff\xe3\x18\xc4" + bytes(68)) * 20_000,
    )


def _field_replacement(content: bytes, name: bytes, at: int, value: bytes) -> tuple[bytes, bytes]:
    start = content.index(name) + 8
    old = content[start - 8 : start + at + len(value)]
    return old, old[: 8 + at] + value


def _asf_packets(size: int) -> bytes:
    header = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
    at = valid_recording("asf").index(header) + 92
    return (
        valid_recording("asf")[:at]
        + struct.pack("<II", size, size)
        + valid_recording("asf")[at + 8 :]
    )


def _missing_programs() -> bytes:
    """Return MPEG-TS tables that list 1,000 programs, none of which exists."""
    result = b""
    for first in range(0, 1_000, 40):
        entries = b"".join(
            struct.pack(">HH", number + 1, 0xE000 | (number % 8000 + 32))
            for number in range(first, first + 40)
        )
        section = struct.pack(">BHHBBB", 0, 0xB000 | (len(entries) + 9), 1, 0xC1, 0, 0) + entries
        result += (b"\x47\x40\0\x10\0" + section + _crc(section)).ljust(188, b"\xff")
    return result


def _crc(section: bytes) -> bytes:
    checksum = UINT32_MAX
    for byte in section:
        checksum = (checksum << 8 & UINT32_MAX) ^ _CRC_TABLE[checksum >> 24 ^ byte]
    return struct.pack(">I", checksum)
