"""Generate recordings that reference files and URLs which the decoder must not open."""

import struct
from functools import partial

from tests.attacks.corpus import CorpusFile, valid_recording
from tests.attacks.extreme_headers import atom, chunk, element, matroska, replace_atom, track

_PLAYLISTS = {
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n",
    "HLS of playlists": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{}\n",
    "HLS with a key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{}"\n'
    "#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n",
    "HLS with a map": '#EXTM3U\n#EXT-X-MAP:URI="{}"\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n',
    "concat": "ffconcat version 1.0\nfile '{}'\n",
    "concat with options": "ffconcat version 1.0\noption safe 0\nfile '{}'\n"
    "stream\nexact_stream_id 1\n",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=audio 5004 RTP/AVP 0\na=control:{}\n",
    "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"'
    ' mediaPresentationDuration="PT3S" profiles="urn:mpeg:dash:profile:isoff-live:2011">'
    '<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1">'
    "<BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "DASH with an external entity": '<?xml version="1.0"?>'
    '<!DOCTYPE x [<!ENTITY e SYSTEM "{}">]><MPD>&e;</MPD>',
    "PLS": "[playlist]\nNumberOfEntries=1\nFile1={}\n",
    "ASX": '<asx version="3.0"><entry><ref href="{}"/></entry></asx>',
    "ASF reference": "[Reference]\nRef1={}\n",
    "SMIL": '<smil><body><audio src="{}"/></body></smil>',
    "RAM": "{}\n",
    "cue sheet": 'FILE "{}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    "XSPF": '<playlist version="1"><trackList><track><location>{}</location></track>'
    "</trackList></playlist>",
    "IMF": '<?xml version="1.0"?><CompositionPlaylist><Id>{}</Id></CompositionPlaylist>',
    "WebVTT": "WEBVTT\n\n00:00.000 --> 00:03.000\n{}\n",
    "VobSub": "# VobSub index file, v7\nid: en, index: 0\n"
    "timestamp: 00:00:00:000, filepos: 0\n{}\n",
}


def external_references(path: str, address: str) -> dict[str, list[CorpusFile]]:
    """Return recordings that reference the file `path` or the HTTP `address`.

    Each key is a kind of reference. Each value has one recording per notation of the target.
    """
    targets = (
        # A file in the folder of the recording: FFmpeg's scripts may open relative paths.
        path.rpartition("/")[2],
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
    embeddings = {
        "after an ID3 tag": _after_id3,
        "after a WAV magic number": _in_wave,
        "in an mp4": _in_mp4,
    }
    recordings = {
        name: [
            CorpusFile(f"{name} of {target}", partial(_playlist, text, target))
            for target in targets
        ]
        for name, text in _PLAYLISTS.items()
    }
    for position, embed in embeddings.items():
        recordings[f"HLS {position}"] = [
            CorpusFile(
                f"HLS {position} of {target}", partial(embed, _playlist(_PLAYLISTS["HLS"], target))
            )
            for target in targets
        ]
    for name, reference in _REFERENCES.items():
        recordings[name] = [
            CorpusFile(f"{name} to {target}", partial(reference, target.encode()))
            for target in targets
        ]
    return recordings


def _playlist(text: str, target: str) -> bytes:
    return text.replace("{}", target).encode()


def _after_id3(playlist: bytes) -> bytes:
    return b"ID3\x03\0\0\0\0\0\x0a" + bytes(10) + playlist


def _in_wave(playlist: bytes) -> bytes:
    return b"RIFF\xff\xff\xff\x7fWAVE" + playlist


def _in_mp4(playlist: bytes) -> bytes:
    return atom("free", playlist) + playlist


def _alias(target: bytes) -> bytes:
    """Return a Macintosh alias record with the volume, the file name and the full path."""
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


def _data_reference(kind: str, target: bytes) -> bytes:
    entry = atom(kind, bytes(4) + (_alias(target) if kind == "alis" else target + b"\0"))
    table = struct.pack(">II", 0, 1) + entry
    return replace_atom(
        valid_recording("mov"), ("moov", "trak", "mdia", "minf", "dinf", "dref"), table
    )


def _reference_movie(target: bytes) -> bytes:
    reference = atom(
        "rdrf", bytes(4) + b"url " + struct.pack(">I", len(target) + 1) + target + b"\0"
    )
    return atom("ftyp", b"qt  \0\0\2\0qt  ") + atom("moov", atom("rmra", atom("rmda", reference)))


def _linked_segments(target: bytes) -> bytes:
    links = (
        element(0x3E83BB, target)
        + element(0x3C83AB, target)
        + element(0x3EB923, target[:16].ljust(16))
    )
    chapter = element(
        0x1043A770, element(0x45B9, element(0xB6, element(0x6E67, target[:16].ljust(16))))
    )
    return matroska(track(), scale=links, extra=chapter)


def _attachment(target: bytes) -> bytes:
    file = element(
        0x61A7,
        element(0x466E, target),
        element(0x4660, b"application/x-mpegURL"),
        element(0x465C, target),
    )
    return matroska(track(), extra=element(0x1941A469, file))


def _subtitle_playlist(target: bytes) -> bytes:
    """Return an AVI with a subtitle track (GAB2) that embeds a playlist.

    FFmpeg opens such an embedded file to detect its format.
    """
    playlist = _playlist(_PLAYLISTS["HLS"], target.decode())
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
    subtitle = (
        b"GAB2\0"
        + struct.pack("<HI", 2, 4)
        + b"a\0b\0"
        + struct.pack("<HI", 4, len(playlist))
        + playlist
    )
    movie = chunk(b"LIST", b"movi" + chunk(b"00wb", bytes(32_000)) + chunk(b"01tx", subtitle))
    return chunk(b"RIFF", b"AVI " + header + movie)


def _external_index(target: bytes) -> bytes:
    index = (
        struct.pack("<HBBI4s", 4, 0, 0, 1, b"00wb")
        + bytes(12)
        + struct.pack("<QII", 1 << 62, 1 << 31, 1)
        + target
    )
    return valid_recording("avi").replace(
        b"strf", b"indx" + struct.pack("<I", len(index)) + index + b"strf", 1
    )


def _skeleton(target: bytes) -> bytes:
    packet = b"fisbone\0" + bytes(44) + b"Content-Location: " + target + b"\r\n"
    return (
        b"OggS\0\2"
        + bytes(12)
        + bytes(8)
        + bytes([1, len(packet) % 255])
        + packet
        + valid_recording("ogg")
    )


def _id3_references(target: bytes) -> bytes:
    """Return an MP3 whose ID3 frames reference a picture, the source file, and another tag."""
    frames = b""
    for name, content in (
        (b"APIC", b"\0-->\0\3\0" + target),
        (b"WOAF", target),
        (b"LINK", b"TIT2" + target + b"\0"),
        (b"GEOB", b"\0application/x-mpegURL\0a.m3u8\0\0#EXTM3U\n" + target),
    ):
        frames += name + struct.pack(">IH", len(content), 0) + content
    size = bytes(len(frames) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + frames + valid_recording("mp3")


def _script_command(target: bytes) -> bytes:
    """Return an ASF file with a script command that makes some players open a URL."""
    commands = (
        bytes(16) + struct.pack("<HH", 1, 1) + struct.pack("<H", 3) + "URL".encode("utf-16-le")
    )
    commands += struct.pack("<IHH", 0, 0, len(target)) + target.decode().encode("utf-16-le")
    guid = bytes.fromhex("301afb1e620bd011a39b00a0c90348f6")
    return (
        valid_recording("asf")[:30]
        + guid
        + struct.pack("<Q", 24 + len(commands))
        + commands
        + valid_recording("asf")[30:]
    )


_REFERENCES = {
    "a mov whose audio is at a URL": partial(_data_reference, "url "),
    "a mov whose audio is at an alias": partial(_data_reference, "alis"),
    "a mov whose audio is at a resource": partial(_data_reference, "rsrc"),
    "a reference movie": _reference_movie,
    "a matroska with linked segments": _linked_segments,
    "a matroska with an attached playlist": _attachment,
    "an avi with a playlist as subtitles": _subtitle_playlist,
    "an avi with an external index": _external_index,
    "an ogg whose Skeleton has a Content-Location": _skeleton,
    "an mp3 whose ID3 tag has URLs": _id3_references,
    "an asf with a script": _script_command,
}
