"""cutting.py and decoder.py: any recording, cut into clean parts by a process that can do no harm."""

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
from handler.recordings.cutting import CutterStopped, Part, parts_of
from handler.recordings.decoder import lengths_of
from tests.attacks.canaries import canaries
from tests.samples import DIRECT, long_recording, recording, silent_video, video

SHORT = {"part_seconds": 20.0, "search_seconds": 3.0}
DAY = 86_400.0


def cut(path, folder, longest=DAY, **how):
    folder.mkdir(exist_ok=True)
    with parts_of(path, folder, longest, **how) as parts:
        return list(parts)


def samples(path):
    """The whole file as 16 kHz mono, decoded and resampled without a cut."""
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
def written(tmp_path):
    def write(content, name="recording"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("seconds", [1, 312, 313, 600, 3600, 43_200])
def test_the_parts_are_as_long_as_they_may_be_but_for_the_last_and_none_is_half_as_long(seconds):
    lengths = lengths_of(seconds, 312)
    assert sum(lengths) == pytest.approx(seconds)
    assert lengths == sorted(lengths, reverse=True)
    assert 312 >= max(lengths) < 2 * min(lengths)
    assert len(lengths) < 2 or lengths[-1] < lengths[0]


@pytest.mark.parametrize(
    "kind", [*DIRECT, "mp4", "aac", "avi", "mpeg-ts", "mpeg-ps", "asf", "ac-3", "tta"]
)
def test_joined_parts_equal_the_uncut_decode_bit_for_bit(kind, written, tmp_path):
    path = written(long_recording(kind, 60))
    parts = cut(path, tmp_path / "parts", **SHORT)
    assert len(parts) == 3
    joined = b"".join(samples(part.path) for part in parts)
    assert fingerprint(joined) == fingerprint(samples(path))
    assert [part.start for part in parts] == [
        sum(p.samples for p in parts[:n]) for n in range(len(parts))
    ]
    assert {part.of for part in parts} == {3}
    assert parts[0].whole == pytest.approx(60, abs=1)
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
def test_everything_that_is_recognised_can_be_cut(kind, written, tmp_path):
    path = written(recording(kind))
    (part,) = cut(path, tmp_path / "parts")
    assert samples(part.path) == samples(path)


def test_a_video_gives_its_sound(written, tmp_path):
    (part,) = cut(written(video("mp4", "mpeg4", "aac")), tmp_path / "parts")
    assert part.seconds == pytest.approx(3, abs=0.1)


def test_a_cut_is_made_in_a_pause(written, tmp_path):
    parts = cut(written(long_recording("wav", 60)), tmp_path / "parts", **SHORT)
    for part in parts[1:]:
        beginning = struct.unpack("<1600h", samples(part.path)[:3200])
        assert max(map(abs, beginning)) < 300  # a tenth of a second of a 16 bit recording


@pytest.mark.parametrize(("kind", "gap"), [("webm", 5.0), ("fragmented mp4", 7.5)])
def test_a_gap_in_the_recorders_clock_is_kept(kind, gap, written, tmp_path):
    (part,) = cut(written(long_recording(kind, 20, gap=gap)), tmp_path / "parts")
    assert part.at(1) == pytest.approx(1, abs=0.1)
    assert part.at(part.seconds) == pytest.approx(20 + gap, abs=0.1)


def test_a_part_behind_a_gap_knows_of_it(written, tmp_path):
    parts = cut(written(long_recording("webm", 80, gap=300)), tmp_path / "parts", **SHORT)
    late = [part.at(0) - part.start / 16_000 for part in parts]
    assert late[0] == pytest.approx(0, abs=0.1)
    assert late[-1] == pytest.approx(300, abs=0.1)


@pytest.mark.parametrize("kind", ["ogg", "mpeg-ts", "mp3", "flac"])
def test_recordings_put_one_behind_another_are_as_long_as_all_of_them(kind, written, tmp_path):
    """The clock of each begins at zero, and may begin anywhere."""
    path = written(recording(kind, seconds=8) * 4)
    (part,) = cut(path, tmp_path / "parts", longest=60)
    assert part.seconds == pytest.approx(32, abs=0.5)
    assert part.at(30) == pytest.approx(30, abs=0.1)
    with pytest.raises(RecordingTooLarge):
        cut(path, tmp_path / "more", longest=20)


def test_a_clock_that_says_years_is_not_believed(written, tmp_path):
    (part,) = cut(
        written(long_recording("webm", 20, gap=30_000_000)), tmp_path / "parts", longest=100
    )
    assert part.at(part.seconds) == pytest.approx(20, abs=0.1)


def test_a_wild_moment_of_the_clock_moves_nothing_behind_it(written, tmp_path):
    whole = bytearray(long_recording("webm", 60))
    cluster = whole.index(b"\x1fC\xb6u", len(whole) // 2)
    time = whole.index(b"\xe7", cluster)  # the cluster's own time in milliseconds, behind its size
    whole[time + 2] ^= 0x40
    (part,) = cut(written(whole), tmp_path / "parts", longest=100)
    assert part.at(part.seconds) == pytest.approx(60, abs=0.2)


@pytest.mark.parametrize("kind", ["ogg", "webm", "mp3", "mp4", "mpeg-ts"])
def test_what_lies_behind_damage_is_kept(kind, written, tmp_path):
    whole = bytearray(long_recording(kind, 60))
    middle = len(whole) // 2
    whole[middle : middle + 70_000] = random.Random(1).randbytes(70_000)
    parts = cut(written(whole), tmp_path / "parts", **SHORT)
    assert sum(part.seconds for part in parts) > 44


def test_a_part_can_be_halved(written, tmp_path):
    path = written(long_recording("flac", 60))
    parts = cut(path, tmp_path / "parts", part_seconds=30, search_seconds=15)
    assert len(parts) == 2
    assert sum(part.seconds for part in parts) == pytest.approx(60, abs=0.01)
    assert all(part.seconds > 14 for part in parts)


def test_what_is_longer_than_the_limit_is_refused_before_it_is_decoded(written, tmp_path):
    with pytest.raises(RecordingTooLarge, match="hours"):
        cut(written(long_recording("flac", 60)), tmp_path / "parts", longest=30)
    assert list((tmp_path / "parts").iterdir()) == []


def test_a_wav_whose_header_claims_hours_is_as_long_as_its_bytes(written, tmp_path):
    whole = recording("wav")
    at = whole.find(b"data") + 4
    (part,) = cut(
        written(whole[:at] + b"\xf0\xff\xff\xff" + whole[at + 4 :]), tmp_path / "parts", longest=60
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
    ids=["a page", "nothing", "a header", "a webm of zeros", "a broken webm"],
)
def test_what_cannot_be_read_fails_with_a_reason(content, failure, written, tmp_path):
    with pytest.raises(failure) as error:
        cut(written(content), tmp_path / "parts")
    assert error.value.detail
    assert str(tmp_path) not in error.value.detail


def test_pictures_without_sound_are_no_audio(written, tmp_path):
    with pytest.raises(NoAudio):
        cut(written(silent_video()), tmp_path / "parts")


@pytest.mark.parametrize("kind", [*DIRECT, "mp4"])
def test_a_recording_cut_anywhere_gives_what_it_has_or_a_reason(kind, written, tmp_path):
    whole = recording(kind)
    for share in (0.1, 0.5, 0.9):
        path = written(whole[: round(len(whole) * share)])
        if kind == "mp4":  # what its bytes mean stood at its end
            with pytest.raises(UnreadableRecording):
                cut(path, tmp_path / "parts")
        elif share > 0.1:
            (part,) = cut(path, tmp_path / "parts")
            assert 0.3 * share <= part.seconds / 3 <= 1.05


def cutters():
    """The processes of this thread's that cut."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    return [
        child
        for child in children
        if b"handler.recordings.decoder" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def started_cutter(waits):
    """The process that cuts, once it opens the named pipe `waits`, and a descriptor that keeps the pipe open."""
    writer = os.open(waits, os.O_WRONLY)  # blocks until the process opens it for reading
    (child,) = cutters()
    return child, writer


def test_the_process_that_opens_a_strangers_file_has_no_credentials_and_little_memory(
    monkeypatch, tmp_path
):
    """It would inherit them in its environment, which the system shows."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    waits = (
        tmp_path / "waits"
    )  # a recording that nobody writes: the process limits itself, opens it and waits
    os.mkfifo(waits)
    with parts_of(waits, tmp_path, DAY):
        child, writer = started_cutter(waits)
        assert b"canary" not in Path(f"/proc/{child}/environ").read_bytes()
        assert limit(child, "Max cpu time").split()[3:5] == [
            "60",
            "601",
        ]  # 601: once the packets were looked through
        assert "1000000000" in limit(child, "Max address space")
        os.close(writer)
    assert cutters() == []  # whoever leaves early leaves no process behind


@pytest.mark.parametrize(
    ("number", "failure"), [(signal.SIGKILL, CutterStopped), (signal.SIGSEGV, UnreadableRecording)]
)
def test_a_crash_is_the_recordings_fault_and_being_killed_by_the_system_is_not(
    number, failure, tmp_path
):
    waits = tmp_path / "waits"
    os.mkfifo(waits)
    with parts_of(waits, tmp_path, DAY) as parts:
        child, writer = started_cutter(waits)
        os.kill(int(child), number)
        with pytest.raises(failure):
            next(parts)
        os.close(writer)


def test_a_process_that_hangs_is_ended_in_time_and_that_is_not_the_recordings_fault(tmp_path):
    waits = tmp_path / "waits"
    os.mkfifo(waits)
    with (
        parts_of(waits, tmp_path, DAY, until=time.monotonic()) as parts,
        pytest.raises(CutterStopped),
    ):
        next(parts)
    assert cutters() == []


@pytest.mark.parametrize(
    ("whitelist", "opened"),
    [("none", ["file"]), ("format_whitelist", []), ("protocol_whitelist", [])],
)
def test_each_whitelist_alone_keeps_a_script_from_opening_another_file(
    whitelist, opened, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    given = {
        name: value
        for name, value in decoder._OPENING["container_options"].items()
        if name == whitelist
    }
    script = tmp_path / "recording"
    script.write_text("ffconcat version 1.0\nfile 'secret.wav'\n")
    with canaries(tmp_path) as canary, decoder.Recording(str(script)) as file:
        with contextlib.suppress(av.FFmpegError):
            av.open(file, container_options=given)
        assert canary.knocks() == opened


def limit(process, name):
    return next(
        line
        for line in Path(f"/proc/{process}/limits").read_text().splitlines()
        if line.startswith(name)
    )


def test_a_moment_of_a_part_is_found_on_the_recordings_timeline():
    part = Part(
        number=1,
        path=Path("x"),
        start=160_000,
        samples=48_000,
        timeline=((0, 10.0), (16_000, 20.0)),
    )
    assert (part.at(0), part.at(0.5), part.at(1), part.at(2.5)) == (10.0, 10.5, 20.0, 21.5)


def test_a_piece_of_a_part_has_the_recordings_times():
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


def test_a_recorder_may_change_its_channels_on_the_way(written, tmp_path):
    mono, stereo = recording("aac"), recording("aac", layout="stereo")
    (part,) = cut(written(mono + stereo), tmp_path / "parts")
    assert part.seconds == pytest.approx(6, abs=0.3)
