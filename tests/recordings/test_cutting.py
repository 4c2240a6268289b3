"""Tests of cutting.py and decoder.py: a restricted process cuts recordings into parts."""

import contextlib
import hashlib
import os
import random
import signal
import struct
import threading
import time
from pathlib import Path

import av
import pytest

from handler.errors import (
    EmptyRecording,
    NoAudio,
    RecordingTooLarge,
    UnreadableRecording,
    UnsupportedMedia,
)
from handler.recordings import decoder
from handler.recordings.cutting import CutterStopped, Part, cut_into_parts
from handler.recordings.timeline import part_lengths
from tests.attacks.access_monitor import monitor_access
from tests.samples import DIRECT, long_recording, recording, silent_video, video

SHORT = {"part_seconds": 20.0, "search_seconds": 3.0}
DAY = 86_400.0
OTHER_KINDS = [
    "ogg",
    "flac",
    "wav",
    "mp4",
    "aac",
    "avi",
    "mpeg-ts",
    "mpeg-ps",
    "asf",
    "ac-3",
    "tta",
]


def cut(path, folder, longest=DAY, **options):
    folder.mkdir(exist_ok=True)
    with cut_into_parts(path, folder, longest, **options) as parts:
        return list(parts)


def samples(path):
    """Decode the whole file without cutting it. Return 16 kHz mono samples."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
        pieces = [
            piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)
        ]
        pieces += resampler.resample(None)
        return b"".join(bytes(piece.planes[0])[: piece.samples * 2] for piece in pieces)


def fingerprint(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def write_file(tmp_path):
    def write(content, name="recording"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("seconds", [1, 312, 313, 600, 3600, 43_200])
def test_all_parts_but_the_last_have_the_target_length_and_none_is_shorter_than_half(seconds):
    lengths = part_lengths(seconds, 312)
    assert sum(lengths) == pytest.approx(seconds)
    assert lengths == sorted(lengths, reverse=True)
    assert 312 >= max(lengths) < 2 * min(lengths)
    assert len(lengths) < 2 or lengths[-1] < lengths[0]


@pytest.mark.parametrize(
    "kind",
    [
        *("webm", "fragmented mp4", "mp3"),
        *(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in OTHER_KINDS),
    ],
)
def test_joined_parts_equal_the_uncut_decode_bit_for_bit(kind, write_file, tmp_path):
    path = write_file(long_recording(kind, 60))
    parts = cut(path, tmp_path / "parts", **SHORT)
    assert len(parts) == 3
    joined = b"".join(samples(part.path) for part in parts)
    assert fingerprint(joined) == fingerprint(samples(path))
    assert [part.start for part in parts] == [
        sum(p.samples for p in parts[:n]) for n in range(len(parts))
    ]
    assert {part.expected_parts for part in parts} == {3}
    assert parts[0].recording_seconds == pytest.approx(60, abs=1)
    for part in parts:
        assert part.seconds <= 26
        assert part.timeline[0][1] == pytest.approx(part.start / 16_000, abs=0.1)


@pytest.mark.parametrize(
    "kind",
    [
        *("mp4", "mov", "3gp", "mp3 with ID3", "aac", "amr", "avi", "caf", "aiff", "wave64", "mp2"),
        *("ac-3", "e-ac-3", "wavpack", "au", "tta"),
    ],
)
def test_every_identified_format_can_be_cut(kind, write_file, tmp_path):
    path = write_file(recording(kind))
    (part,) = cut(path, tmp_path / "parts")
    assert samples(part.path) == samples(path)


def test_the_audio_of_a_video_is_cut(write_file, tmp_path):
    (part,) = cut(write_file(video("mp4", "mpeg4", "aac")), tmp_path / "parts")
    assert part.seconds == pytest.approx(3, abs=0.1)


def test_a_cut_is_made_in_a_pause(write_file, tmp_path):
    parts = cut(write_file(long_recording("wav", 60)), tmp_path / "parts", **SHORT)
    for part in parts[1:]:
        first_100_ms = struct.unpack("<1600h", samples(part.path)[:3200])
        assert max(map(abs, first_100_ms)) < 300  # full scale is 32767


@pytest.mark.parametrize(("kind", "gap"), [("webm", 5.0), ("fragmented mp4", 7.5)])
def test_a_gap_in_the_timestamps_is_preserved(kind, gap, write_file, tmp_path):
    (part,) = cut(write_file(long_recording(kind, 20, gap=gap)), tmp_path / "parts")
    assert part.at(1) == pytest.approx(1, abs=0.1)
    assert part.at(part.seconds) == pytest.approx(20 + gap, abs=0.1)


def test_a_part_after_a_gap_has_the_later_time(write_file, tmp_path):
    parts = cut(write_file(long_recording("webm", 80, gap=300)), tmp_path / "parts", **SHORT)
    late = [part.at(0) - part.start / 16_000 for part in parts]
    assert late[0] == pytest.approx(0, abs=0.1)
    assert late[-1] == pytest.approx(300, abs=0.1)


@pytest.mark.parametrize("kind", ["ogg", "mpeg-ts", "mp3", "flac"])
def test_concatenated_recordings_have_their_total_length(kind, write_file, tmp_path):
    """The timestamps of each recording may start at zero or at another time."""
    path = write_file(recording(kind, seconds=8) * 4)
    (part,) = cut(path, tmp_path / "parts", longest=60)
    assert part.seconds == pytest.approx(32, abs=0.5)
    assert part.at(30) == pytest.approx(30, abs=0.1)
    with pytest.raises(RecordingTooLarge):
        cut(path, tmp_path / "more", longest=20)


def test_implausible_timestamps_are_ignored(write_file, tmp_path):
    (part,) = cut(
        write_file(long_recording("webm", 20, gap=30_000_000)), tmp_path / "parts", longest=100
    )
    assert part.at(part.seconds) == pytest.approx(20, abs=0.1)


def test_one_wrong_timestamp_does_not_shift_later_audio(write_file, tmp_path):
    whole = bytearray(long_recording("webm", 60))
    cluster = whole.index(b"\x1fC\xb6u", len(whole) // 2)
    time = whole.index(b"\xe7", cluster)  # the cluster's timestamp element
    whole[time + 2] ^= 0x40
    (part,) = cut(write_file(whole), tmp_path / "parts", longest=100)
    assert part.at(part.seconds) == pytest.approx(60, abs=0.2)


@pytest.mark.parametrize("kind", ["ogg", "webm", "mp3", "mp4", "mpeg-ts"])
def test_audio_after_damage_is_kept(kind, write_file, tmp_path):
    whole = bytearray(long_recording(kind, 60))
    middle = len(whole) // 2
    whole[middle : middle + 70_000] = random.Random(1).randbytes(70_000)
    parts = cut(write_file(whole), tmp_path / "parts", **SHORT)
    assert sum(part.seconds for part in parts) > 44


def test_a_part_can_be_split_in_two(write_file, tmp_path):
    path = write_file(long_recording("flac", 60))
    parts = cut(path, tmp_path / "parts", part_seconds=30, search_seconds=15)
    assert len(parts) == 2
    assert sum(part.seconds for part in parts) == pytest.approx(60, abs=0.01)
    assert all(part.seconds > 14 for part in parts)


def test_a_recording_over_the_limit_is_rejected_before_it_is_decoded(write_file, tmp_path):
    with pytest.raises(RecordingTooLarge, match="hours"):
        cut(write_file(long_recording("flac", 60)), tmp_path / "parts", longest=30)
    assert list((tmp_path / "parts").iterdir()) == []


def test_the_length_of_a_wav_is_that_of_its_data(write_file, tmp_path):
    whole = recording("wav")
    at = whole.find(b"data") + 4
    (part,) = cut(
        write_file(whole[:at] + b"\xf0\xff\xff\xff" + whole[at + 4 :]),
        tmp_path / "parts",
        longest=60,
    )
    assert part.seconds == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(
    ("content", "failure"),
    [
        (b"<html>", UnsupportedMedia),
        (b"", EmptyRecording),
        (recording("wav").partition(b"data")[0] + b"data\0\0\0\0", EmptyRecording),
        (b"\x1aE\xdf\xa3" + bytes(1000), UnreadableRecording),
        (b"\x1aE\xdf\xa3" + b"\xff" * 1000, UnreadableRecording),
    ],
    ids=["HTML", "empty", "header only", "WebM of zeros", "broken WebM"],
)
def test_an_unreadable_file_fails_with_a_reason(content, failure, write_file, tmp_path):
    with pytest.raises(failure) as error:
        cut(write_file(content), tmp_path / "parts")
    assert error.value.detail
    assert str(tmp_path) not in error.value.detail


def test_a_video_without_an_audio_track_is_rejected(write_file, tmp_path):
    with pytest.raises(NoAudio):
        cut(write_file(silent_video()), tmp_path / "parts")


@pytest.mark.parametrize("kind", [*DIRECT, "mp4"])
def test_a_truncated_recording_is_cut_as_far_as_possible(kind, write_file, tmp_path):
    whole = recording(kind)
    for share in (0.1, 0.5, 0.9):
        path = write_file(whole[: round(len(whole) * share)])
        if kind == "mp4":  # MP4 files have their index at the end
            with pytest.raises(UnreadableRecording):
                cut(path, tmp_path / "parts")
        elif share > 0.1:
            (part,) = cut(path, tmp_path / "parts")
            assert 0.3 * share <= part.seconds / 3 <= 1.05


def cutters():
    """Return the process ids of the decoders that this thread has started."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    return [
        child
        for child in children
        if b"handler.recordings.decoder" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def started_cutter(pipe):
    """Wait until the decoder opens the pipe. Return its process id and the pipe's write end."""
    writer = os.open(pipe, os.O_WRONLY)  # blocks until the decoder opens the pipe for reading
    (child,) = cutters()
    return child, writer


def test_the_decoder_process_has_no_credentials_and_limited_memory(monkeypatch, tmp_path):
    """By default, a child process inherits all environment variables, which /proc exposes."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    # The decoder sets its limits, opens this pipe instead of a recording, and blocks.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with cut_into_parts(pipe, tmp_path, DAY):
        child, writer = started_cutter(pipe)
        assert b"canary" not in Path(f"/proc/{child}/environ").read_bytes()
        # The soft limit is 60 s, and the hard limit is 601 s. The decoder raises the soft limit
        # after it has read the packets.
        assert limit(child, "Max cpu time").split()[3:5] == ["60", "601"]
        assert "1000000000" in limit(child, "Max address space")
        os.close(writer)
    assert cutters() == []  # leaving the block early stops the decoder


@pytest.mark.parametrize(
    ("number", "failure"), [(signal.SIGKILL, CutterStopped), (signal.SIGSEGV, UnreadableRecording)]
)
def test_a_crash_is_an_unreadable_recording_but_a_kill_is_not(number, failure, tmp_path):
    pipe = tmp_path / "waits"
    os.mkfifo(pipe)
    with cut_into_parts(pipe, tmp_path, DAY) as parts:
        child, writer = started_cutter(pipe)
        os.kill(int(child), number)
        with pytest.raises(failure):
            next(parts)
        os.close(writer)


def test_a_hanging_process_is_stopped_at_the_deadline(tmp_path):
    pipe = tmp_path / "waits"
    os.mkfifo(pipe)
    with (
        cut_into_parts(pipe, tmp_path, DAY, until=time.monotonic()) as parts,
        pytest.raises(CutterStopped),
    ):
        next(parts)
    assert cutters() == []


@pytest.mark.parametrize(
    ("whitelist", "opened"),
    [("none", ["file"]), ("format_whitelist", []), ("protocol_whitelist", [])],
)
def test_each_whitelist_alone_prevents_opening_another_file(
    whitelist, opened, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    options = {
        name: value
        for name, value in decoder._OPEN_OPTIONS["container_options"].items()
        if name == whitelist
    }
    script = tmp_path / "recording"
    script.write_text("ffconcat version 1.0\nfile 'secret.wav'\n")
    with monitor_access(tmp_path) as monitor, decoder.RecordingFile(str(script)) as file:
        with contextlib.suppress(av.FFmpegError):
            av.open(file, container_options=options)
        assert monitor.accesses() == opened


def limit(process, name):
    return next(
        line
        for line in Path(f"/proc/{process}/limits").read_text().splitlines()
        if line.startswith(name)
    )


def test_a_time_in_a_part_maps_to_the_recordings_timeline():
    part = Part(
        number=1,
        path=Path("x"),
        start=160_000,
        samples=48_000,
        timeline=((0, 10.0), (16_000, 20.0)),
    )
    assert (part.at(0), part.at(0.5), part.at(1), part.at(2.5)) == (10.0, 10.5, 20.0, 21.5)


def test_a_piece_of_a_part_has_the_times_of_the_recording():
    part = Part(
        number=1,
        path=Path("x"),
        start=160_000,
        samples=48_000,
        timeline=((0, 10.0), (16_000, 20.0)),
    )
    first, second = (
        Part(number=0, path=Path("x"), start=start, samples=24_000, timeline=((0, 0.0),))
        for start in (0, 24_000)
    )
    assert part.timeline_of(first) == ((0, 10.0), (16_000, 20.0))
    assert part.timeline_of(second) == ((0, 20.5),)


def test_the_number_of_channels_may_change(write_file, tmp_path):
    mono, stereo = recording("aac"), recording("aac", layout="stereo")
    (part,) = cut(write_file(mono + stereo), tmp_path / "parts")
    assert part.seconds == pytest.approx(6, abs=0.3)
