"""Recordings that point elsewhere: playlists, scripts and references to files and addresses that nobody may open."""

import struct
from functools import partial

from tests.attacks.bombs import atom, chunk, element, matroska, replaced, track
from tests.attacks.hostile import Hostile, whole

_LISTS = {
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n",
    "HLS of playlists": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{}\n",
    "HLS with a key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{}"\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n',
    "HLS with a map": '#EXTM3U\n#EXT-X-MAP:URI="{}"\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n',
    "concat": "ffconcat version 1.0\nfile '{}'\n",
    "concat with options": "ffconcat version 1.0\noption safe 0\nfile '{}'\nstream\nexact_stream_id 1\n",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\na=control:{}\n",
    "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"'
    ' mediaPresentationDuration="PT3S" profiles="urn:mpeg:dash:profile:isoff-live:2011"><Period><AdaptationSet'
    ' mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet>'
    "</Period></MPD>",
    "DASH of entities": '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "{}">]><MPD>&e;</MPD>',
    "PLS": "[playlist]\nNumberOfEntries=1\nFile1={}\n",
    "ASX": '<asx version="3.0"><entry><ref href="{}"/></entry></asx>',
    "ASF reference": "[Reference]\nRef1={}\n",
    "SMIL": '<smil><body><audio src="{}"/></body></smil>',
    "RAM": "{}\n",
    "cue sheet": 'FILE "{}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    "XSPF": '<playlist version="1"><trackList><track><location>{}</location></track></trackList></playlist>',
    "IMF": '<?xml version="1.0"?><CompositionPlaylist><Id>{}</Id></CompositionPlaylist>',
    "WebVTT": "WEBVTT\n\n00:00.000 --> 00:03.000\n{}\n",
    "VobSub": "# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 0\n{}\n",
}


def lures(path: str, address: str) -> dict[str, list[Hostile]]:
    """What points at the file `path` and at the HTTP `address`, by how it does so."""
    targets = (
        path.rpartition("/")[
            2
        ],  # beside the recording: scripts open what is there, where they may open no whole path
        address,
        path,
        f"file:{path}",
        f"concat:{path}|{address}",
        f"subfile,,start,0,end,0,,:{path}",
        f"data:text/plain,{address}",
        f"crypto+{address}",
        f"cache:{address}",
        f"async:file:{path}",
        address.replace("http:", "tcp:"),
        address.replace("http:", "rtmp:"),
        f"../../../../../../../..{path}",
        f"hls+{address}",
    )
    behind = {"behind a tag": _tagged, "behind the magic of a wav": _in_wave, "in an mp4": _in_mp4}
    found = {
        name: [Hostile(f"{name} of {target}", partial(_listed, text, target)) for target in targets]
        for name, text in _LISTS.items()
    }
    for where, hide in behind.items():
        found[f"HLS {where}"] = [
            Hostile(f"HLS {where} of {target}", partial(hide, _listed(_LISTS["HLS"], target)))
            for target in targets
        ]
    for name, refer in _REFERRING.items():
        found[name] = [
            Hostile(f"{name} to {target}", partial(refer, target.encode())) for target in targets
        ]
    return found


def _listed(text: str, target: str) -> bytes:
    return text.replace("{}", target).encode()


def _tagged(playlist: bytes) -> bytes:
    return b"ID3\x03\0\0\0\0\0\x0a" + bytes(10) + playlist


def _in_wave(playlist: bytes) -> bytes:
    return b"RIFF\xff\xff\xff\x7fWAVE" + playlist


def _in_mp4(playlist: bytes) -> bytes:
    return atom("free", playlist) + playlist


def _alias(target: bytes) -> bytes:
    """A Macintosh alias record: the volume, the file's name, and its whole path."""
    name = target[-60:]
    record = (
        bytes(10)
        + b"\1/"
        + bytes(26)
        + bytes(12)
        + bytes([len(name)])
        + name.ljust(63, b"\0")
        + bytes(16)
    )
    paths = b"".join(
        struct.pack(">hH", kind, len(target)) + target + bytes(len(target) % 2)
        for kind in (2, 18, 19)
    )
    return record + struct.pack(">HH", 1, 1) + bytes(16) + paths + struct.pack(">hH", -1, 0)


def _referred(kind: str, target: bytes) -> bytes:
    entry = atom(kind, bytes(4) + (_alias(target) if kind == "alis" else target + b"\0"))
    table = struct.pack(">II", 0, 1) + entry
    return replaced(whole("mov"), ("moov", "trak", "mdia", "minf", "dinf", "dref"), table)


def _reference_movie(target: bytes) -> bytes:
    reference = atom(
        "rdrf", bytes(4) + b"url " + struct.pack(">I", len(target) + 1) + target + b"\0"
    )
    return atom("ftyp", b"qt  \0\0\2\0qt  ") + atom("moov", atom("rmra", atom("rmda", reference)))


def _linked(target: bytes) -> bytes:
    links = (
        element(0x3E83BB, target)
        + element(0x3C83AB, target)
        + element(0x3EB923, target[:16].ljust(16))
    )
    chapter = element(
        0x1043A770, element(0x45B9, element(0xB6, element(0x6E67, target[:16].ljust(16))))
    )
    return matroska(track(), scale=links, more=chapter)


def _attached(target: bytes) -> bytes:
    file = element(
        0x61A7,
        element(0x466E, target),
        element(0x4660, b"application/x-mpegURL"),
        element(0x465C, target),
    )
    return matroska(track(), more=element(0x1941A469, file))


def _subtitled(target: bytes) -> bytes:
    """An AVI with a track of subtitles that is a file of its own, which FFmpeg opens to look what it is."""
    playlist = _listed(_LISTS["HLS"], target.decode())
    sound = struct.pack(
        "<4s4sIHHIIIIIIII", b"auds", bytes(4), 0, 0, 0, 0, 1, 16_000, 0, 100, 0, 0, 2
    ) + bytes(8)
    text = struct.pack(
        "<4s4sIHHIIIIIIII", b"txts", bytes(4), 0, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0
    ) + bytes(8)
    streams = chunk(
        b"LIST",
        b"strl"
        + chunk(b"strh", sound)
        + chunk(b"strf", struct.pack("<HHIIHHH", 1, 1, 16_000, 32_000, 2, 16, 0)),
    ) + chunk(b"LIST", b"strl" + chunk(b"strh", text) + chunk(b"strf", b""))
    header = chunk(
        b"LIST", b"hdrl" + chunk(b"avih", struct.pack("<14I", *[0] * 6, 2, *[0] * 7)) + streams
    )
    inner = (
        b"GAB2\0"
        + struct.pack("<HI", 2, 4)
        + b"a\0b\0"
        + struct.pack("<HI", 4, len(playlist))
        + playlist
    )
    movie = chunk(b"LIST", b"movi" + chunk(b"00wb", bytes(32_000)) + chunk(b"01tx", inner))
    return chunk(b"RIFF", b"AVI " + header + movie)


def _indexed_elsewhere(target: bytes) -> bytes:
    index = (
        struct.pack("<HBBI4s", 4, 0, 0, 1, b"00wb")
        + bytes(12)
        + struct.pack("<QII", 1 << 62, 1 << 31, 1)
        + target
    )
    return whole("avi").replace(
        b"strf", b"indx" + struct.pack("<I", len(index)) + index + b"strf", 1
    )


def _skeleton(target: bytes) -> bytes:
    about = b"fisbone\0" + bytes(44) + b"Content-Location: " + target + b"\r\n"
    return b"OggS\0\2" + bytes(12) + bytes(8) + bytes([1, len(about) % 255]) + about + whole("ogg")


def _named_in_tag(target: bytes) -> bytes:
    """ID3's own pointers: to a picture elsewhere, to the recording's source, and to another file's tag."""
    frames = b""
    for name, content in (
        (b"APIC", b"\0-->\0\3\0" + target),
        (b"WOAF", target),
        (b"LINK", b"TIT2" + target + b"\0"),
        (b"GEOB", b"\0application/x-mpegURL\0a.m3u8\0\0#EXTM3U\n" + target),
    ):
        frames += name + struct.pack(">IH", len(content), 0) + content
    size = bytes(len(frames) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + frames + whole("mp3")


def _scripted(target: bytes) -> bytes:
    """ASF's script commands, that have had players open addresses."""
    commands = (
        bytes(16) + struct.pack("<HH", 1, 1) + struct.pack("<H", 3) + "URL".encode("utf-16-le")
    )
    commands += struct.pack("<IHH", 0, 0, len(target)) + target.decode().encode("utf-16-le")
    guid = bytes.fromhex("301afb1e620bd011a39b00a0c90348f6")
    return (
        whole("asf")[:30]
        + guid
        + struct.pack("<Q", 24 + len(commands))
        + commands
        + whole("asf")[30:]
    )


_REFERRING = {
    "a mov whose sound is at a url": partial(_referred, "url "),
    "a mov whose sound is at an alias": partial(_referred, "alis"),
    "a mov whose sound is at a resource": partial(_referred, "rsrc"),
    "a reference movie": _reference_movie,
    "a matroska with linked segments": _linked,
    "a matroska with an attached playlist": _attached,
    "an avi with a playlist for subtitles": _subtitled,
    "an avi whose index is elsewhere": _indexed_elsewhere,
    "an ogg whose skeleton points": _skeleton,
    "a tag that points": _named_in_tag,
    "an asf with a script": _scripted,
}
