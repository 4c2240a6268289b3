"""Tests of container.py: the container format of a recording is identified from its bytes."""

import contextlib
from io import BytesIO
from tempfile import TemporaryFile

import pytest

from handler.errors import EmptyRecording, UnsupportedMedia
from handler.recordings.container import identify
from tests.samples import recording, video


@pytest.mark.parametrize(
    ("kind", "filename", "media_type"),
    [
        ("webm", "recording.webm", "audio/webm"),
        ("matroska", "recording.webm", "audio/webm"),
        ("mp4", "recording.m4a", "audio/mp4"),
        ("fragmented mp4", "recording.m4a", "audio/mp4"),
        ("mov", "recording.m4a", "audio/mp4"),
        ("3gp", "recording.m4a", "audio/mp4"),
        ("ogg", "recording.ogg", "audio/ogg"),
        ("wav", "recording.wav", "audio/wav"),
        ("mp3", "recording.mp3", "audio/mpeg"),
        ("mp3 with ID3", "recording.mp3", "audio/mpeg"),
        ("mp3 at 8 kHz", "recording.mp3", "audio/mpeg"),
        ("mp2", "recording.mp3", "audio/mpeg"),
        ("flac", "recording.flac", "audio/flac"),
    ],
)
def test_formats_that_the_upstream_accepts_have_their_canonical_name_and_type(
    kind, filename, media_type
):
    container = identify(BytesIO(recording(kind)))
    assert (container.filename, container.media_type, container.direct) == (
        filename,
        media_type,
        True,
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("aac", "AAC"),
        ("amr", "AMR"),
        ("caf", "Core Audio"),
        ("aiff", "AIFF"),
        ("asf", "Windows Media"),
        ("avi", "AVI"),
        ("mpeg-ts", "MPEG transport stream"),
        ("mpeg-ps", "MPEG program stream"),
        ("wave64", "Wave64"),
        ("ac-3", "AC-3"),
        ("e-ac-3", "AC-3"),
        ("wavpack", "WavPack"),
        ("au", "Sun AU"),
        ("tta", "True Audio"),
    ],
)
def test_formats_that_the_upstream_does_not_accept_are_identified(kind, name):
    container = identify(BytesIO(recording(kind)))
    assert (container.name, container.direct) == (name, False)


@pytest.mark.parametrize(
    ("muxer", "picture", "sound", "extension"),
    [
        ("mp4", "mpeg4", "aac", "m4a"),
        ("webm", "libvpx", "libopus", "webm"),
        ("mov", "mpeg4", "aac", "m4a"),
    ],
)
def test_a_video_is_a_recording(muxer, picture, sound, extension):
    assert identify(BytesIO(video(muxer, picture, sound))).extension == extension


def test_a_blu_ray_stream_is_an_mpeg_transport_stream():
    packets = recording("mpeg-ts")
    timed = b"".join(
        b"\0\0\0\0" + packets[start : start + 188] for start in range(0, len(packets), 188)
    )
    assert identify(BytesIO(timed)).name == "MPEG transport stream"


def test_an_mp3_that_begins_inside_a_frame_is_identified():
    assert identify(BytesIO(recording("mp3")[100:])).extension == "mp3"


def test_an_mp3_after_a_large_cover_picture_is_identified():
    tag = b"ID3\x03\0\0" + bytes([0, 0x10, 0, 0]) + bytes(0x40000)
    assert identify(BytesIO(tag + recording("mp3"))).extension == "mp3"


def test_flac_and_aac_may_follow_an_id3_tag():
    tag = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)
    assert identify(BytesIO(tag + recording("flac"))).extension == "flac"
    assert identify(BytesIO(tag + recording("aac"))).name == "AAC"
    assert identify(BytesIO(tag + tag + recording("flac"))).extension == "flac"
    assert identify(BytesIO(tag + recording("wav"))).extension == "wav"
    with_footer = b"ID3\x04\0\x10\0\0\0\x0a" + bytes(10) + b"3DI" + bytes(7)
    assert identify(BytesIO(with_footer + recording("flac"))).extension == "flac"


@pytest.mark.parametrize(
    "box", [b"moov", b"moof", b"mdat", b"wide", b"free", b"skip", b"styp", b"uuid"]
)
def test_an_mp4_may_begin_with_any_box(box):
    rest = recording("mp4")[28:]
    assert identify(BytesIO(b"\0\0\0\x10" + box + bytes(8) + rest)).extension == "m4a"


@pytest.mark.parametrize(
    "start",
    [
        b"\0\0\0\x08ftyp" + b"\0\0\0\x01free" + b"\xff" * 8,
        b"\x1aE\xdf\xa3\x80\x18S\x80g\x01\xff\xff\xff\xff\xff\xff\xff"
        + b"\xec\x01"
        + b"\xff" * 6
        + b"\xf0",
        b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\xff",
    ],
    ids=["mp4", "webm", "wav"],
)
def test_a_file_with_an_impossible_size_field_is_sent_to_the_upstream(start):
    with TemporaryFile() as file:  # BytesIO behaves differently when seeking beyond the end
        file.write(start + bytes(100))
        assert identify(file).direct


@pytest.mark.parametrize(("kind", "before"), [("webm", b"\x1fC\xb6u"), ("fragmented mp4", b"moof")])
def test_a_recording_with_damage_before_its_audio_is_not_empty(kind, before):
    whole = recording(kind)
    at = whole.find(before) - (4 if before == b"moof" else 0)
    assert identify(BytesIO(whole[:at] + bytes(16) + whole[at:])).direct


def test_a_later_chunk_of_a_media_recorder_is_rejected_with_the_remedy():
    whole = recording("webm")
    with pytest.raises(UnsupportedMedia, match="new Blob"):
        identify(BytesIO(whole[whole.find(b"\x1fC\xb6u") :]))


def test_the_file_position_is_reset():
    file = BytesIO(recording("webm"))
    identify(file)
    assert file.tell() == 0


@pytest.mark.parametrize(
    "content",
    [
        b"<!doctype html><title>502 Bad Gateway</title>",
        b'{"error": "no such recording"}',
        b"#EXTM3U\nhttp://169.254.169.254/latest/meta-data\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        b"\0\0\0\x1cftypavif\0\0\0\0" + bytes(100),
        b"PK\x03\x04" + bytes(100),
        b"%PDF-1.7\n",
        b"\xff\xfe<\0h\0t\0m\0l\0>\0",
        b"RIFF\x24\0\0\0WEBPVP8 " + bytes(100),
        b"\xff\xfb",
        b"\x0b\x77",
        b"\x0b\x77\0\0\x26\x40" + bytes(100),  # not a valid AC-3 frame size
        b"x",
        b"Get free money now, and other words in a text that is longer than that",
        bytes(100_000),
        b"\xff" * 100_000,
    ],
)
def test_anything_else_is_unsupported(content):
    with pytest.raises(UnsupportedMedia):
        identify(BytesIO(content))


def test_a_web_page_is_reported_as_text():
    with pytest.raises(UnsupportedMedia, match="text"):
        identify(BytesIO(b"  <html>"))


def header_only(kind):
    """Return the start of a recording, up to its audio data."""
    whole = recording(kind)
    ends = {
        "webm": whole.find(b"\x1fC\xb6u"),
        "fragmented mp4": whole.find(b"moof") - 4,
        "ogg": whole.find(b"OggS", whole.find(b"OpusTags")),
        "wav": whole.find(b"data") + 8,
        "flac": 4 + 38,
    }
    return whole[: ends[kind]]


@pytest.mark.parametrize("kind", ["webm", "fragmented mp4", "ogg", "wav"])
def test_a_header_without_audio_is_an_empty_recording(kind):
    with pytest.raises(EmptyRecording, match="no recorded data"):
        identify(BytesIO(header_only(kind)))


def test_a_flac_that_ends_after_its_metadata_is_empty():
    streaminfo = recording("flac")[8:42]
    with pytest.raises(EmptyRecording):
        identify(BytesIO(b"fLaC\x80\0\0\x22" + streaminfo))


def test_a_cluster_without_blocks_is_empty():
    with pytest.raises(EmptyRecording):
        identify(
            BytesIO(header_only("webm") + b"\x1fC\xb6u\x01\xff\xff\xff\xff\xff\xff\xff\xe7\x81\0")
        )


@pytest.mark.parametrize(
    "media", [b"\0\0\0\x08mdat", b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x10", b"\0\0\0\0mdat"]
)
def test_an_mp4_with_an_empty_media_box_is_empty(media):
    with pytest.raises(EmptyRecording):
        identify(BytesIO(header_only("fragmented mp4") + media))


def test_an_id3_tag_alone_is_empty():
    with pytest.raises(EmptyRecording):
        identify(BytesIO(b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)))


def test_an_empty_file_is_an_empty_recording():
    with pytest.raises(EmptyRecording):
        identify(BytesIO(b""))


@pytest.mark.parametrize("size", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_a_streamed_wav_without_a_size_is_not_empty(size):
    whole = recording("wav")
    at = whole.find(b"data") + 4
    assert identify(BytesIO(whole[:at] + size + whole[at + 4 :])).extension == "wav"


@pytest.mark.parametrize(
    "start",
    [
        b"\x1aE\xdf\xa3\x80\x18S\x80g\x01\xff\xff\xff\xff\xff\xff\xff" + b"\xec\x80" * 1_000_000,
        b"\0\0\0\x08ftyp" * 1_000_000,
        (b"OggS\0\0" + bytes(21)) * 500_000,
        b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 1_000_000,
        b"fLaC" + b"\x01\0\0\0" * 1_000_000,
    ],
    ids=["webm", "mp4", "ogg", "wav", "flac"],
)
def test_only_the_first_elements_of_a_file_are_read(start):
    reads = 0

    class Counted(BytesIO):
        def read(self, *size):
            nonlocal reads
            reads += 1
            return super().read(*size)

    identify(Counted(start))
    assert reads < 100_000


@pytest.mark.parametrize(
    "kind", ["webm", "fragmented mp4", "mp4", "ogg", "wav", "flac", "mp3 with ID3", "aac"]
)
def test_a_file_truncated_anywhere_is_identified_or_rejected(kind):
    whole = recording(kind, seconds=0.5)
    for end in range(0, min(len(whole), 3_000), 7):
        with contextlib.suppress(EmptyRecording, UnsupportedMedia):
            identify(BytesIO(whole[:end]))
