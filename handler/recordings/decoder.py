"""The program that cuts a recording into clean parts: the only module that knows PyAV.

`cutting.py` starts it as a process of its own, without credentials and with little memory, because it opens
files that strangers made. It says what it does on its standard output, a JSON object a line:

    {"part": {"number": 0, "path": ..., "start": 0, "samples": 4800000, "of": 12, "whole": 3600.0,
              "timeline": [[0, 0.0]], "speech": [[0.42, 3.18, 12], [3.5, 4.02, 2]]}}
    {"done": {"seconds": 3600.0}}
    {"failed": {"code": "no_audio", "detail": ...}}
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from itertools import accumulate, chain, count, repeat
from math import inf
from pathlib import Path
from typing import Any, BinaryIO

import av

from handler.errors import StenoError
from handler.recordings.container import identify
from handler.recordings.speech_activity import SAMPLE_RATE, Loudness, quietest

_SAMPLE_BYTES = 2
_MEMORY_BYTES = 1_000_000_000  # a 96 KB wav can make FFmpeg ask for 2 GB
_CPU_SECONDS = 600  # twelve hours take two minutes, ...
_LOOK_SECONDS = 60  # ... and to look through their packets ten seconds
_MOST_CPU_SECONDS = (
    _CPU_SECONDS + 1
)  # at the limit itself the process is told by a signal of its own

# Without these lists a playlist inside an upload opens other files and hosts. The recording itself is read
# through Python, so that no protocol is needed at all.
_FORMATS = "wav,w64,mp3,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,ogg,flac,aac,aiff,caf,amr,asf,avi,mpegts,mpeg"
_FORMATS += ",ac3,eac3,wv,au,tta"
_OPENING: dict[str, Any] = {
    "container_options": {"format_whitelist": _FORMATS, "protocol_whitelist": ""}
}
if int(av.__version__.partition(".")[0]) < 19:  # later releases read any tag
    _OPENING["metadata_errors"] = "ignore"
# What comes out of broken files beside FFmpeg's own errors.
_BROKEN = (av.FFmpegError, UnicodeDecodeError, IndexError, ValueError)

_MOST_DAMAGES = 1000
# A third faster to write than with order 4, and three and a half per cent larger.
_FLAC_OPTIONS = {"frame_size": "2304", "max_prediction_order": "2", "max_partition_order": "3"}
_CHUNK_SAMPLES = 48_000
_SLACK_SECONDS = 60.0  # what decoders may add to what packets say
_LOOK_FRAMES = 50
_LAST, _LESS = (
    8,
    0.93,
)  # an hour is heard a seventh sooner, and none of its parts is shorter than half of the longest
_GAP_SECONDS = (
    0.1  # the timeline's steps are rounded to milliseconds, and recorders are late by some
)


class Failure(Exception):
    """Ends the cutting; `code` is the contract's word for why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Recording(FileIO):
    """The file as FFmpeg reads it, which a broken header sends to places before the file's beginning."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except OSError:
            return -1


class Flac:
    """A FLAC file of 16 kHz mono samples in the making."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.samples = 0
        self._container = av.open(str(path), "w", format="flac")
        self._stream = self._container.add_stream(
            "flac", rate=SAMPLE_RATE, layout="mono", options=_FLAC_OPTIONS
        )

    def write(self, samples: bytes) -> None:
        if not samples:
            return
        frame = av.AudioFrame(format="s16", layout="mono", samples=len(samples) // _SAMPLE_BYTES)
        frame.sample_rate = SAMPLE_RATE
        frame.planes[0].update(samples)
        self._container.mux(self._stream.encode(frame))
        self.samples += frame.samples

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


class Timeline:
    """When each sample was heard: recorders leave gaps that the samples alone do not show."""

    def __init__(self, zero: float, longest: float) -> None:
        self._zero = zero
        self._longest = longest
        self._decoded = 0.0  # seconds of sound so far
        self._frames = self._pts = self._step = 0
        self.anchors: list[tuple[int, float]] = []  # (sample, seconds), each true up to the next

    def follow(self, frame: Any) -> None:
        pts = frame.pts
        if pts is not None:
            step, self._pts = pts - self._pts, pts
            # Where the clock goes on as ever, a look now and then will do, and costs less.
            if step != self._step or self._frames % _LOOK_FRAMES == 0:
                self._step = step
                self._look(frame.time)
            self._frames += 1
        self._decoded += frame.samples / frame.sample_rate

    def _look(self, time: float) -> None:
        # Of recordings put one behind another each begins at zero again.
        time = max(time - self._zero, self._decoded)
        if time > self._longest:  # no gap of a recorder's, but damage, or malice
            return
        sample, anchored = self.anchors[-1] if self.anchors else (0, inf)
        if abs(anchored + self._decoded - sample / SAMPLE_RATE - time) > _GAP_SECONDS:
            self.anchors.append((round(self._decoded * SAMPLE_RATE), time))

    def of(self, start: int, samples: int) -> list[tuple[int, float]]:
        """The anchors of a part that begins at the sample `start`, counted from that sample."""
        anchors = self.anchors or [(0, 0.0)]
        first = max((anchor for anchor in anchors if anchor[0] <= start), default=anchors[0])
        inside = [
            (sample - start, time) for sample, time in anchors if start < sample < start + samples
        ]
        return [(0, first[1] + (start - first[0]) / SAMPLE_RATE), *inside]


class Cutter:
    """Takes samples as they are decoded and writes them into parts, cut where it is quiet."""

    def __init__(
        self, folder: Path, lengths: Sequence[float], search_seconds: float, timeline: Timeline
    ) -> None:
        self._folder = folder
        # They are counted from the beginning, so that early cuts do not add up to a long last part.
        self._marks = accumulate(chain(lengths, repeat(max(lengths))))
        self._search = round(search_seconds * SAMPLE_RATE)
        self._timeline = timeline
        self._number = 0
        self._start = 0
        self._held = bytearray()  # the samples among which the next cut may be
        self._begin()

    def feed(self, samples: bytes) -> Iterator[dict[str, Any]]:
        """Yields a part whenever one is whole."""
        self._held += samples
        first = round(self._mark * SAMPLE_RATE) - self._search - self._start
        if self._part.samples < first:
            self._write(min(first - self._part.samples, len(self._held) // _SAMPLE_BYTES))
        if len(self._held) >= 2 * self._search * _SAMPLE_BYTES:
            self._write(quietest(self._held))
            yield self._finish()
            self._begin()

    def end(self) -> Iterator[dict[str, Any]]:
        self._write(len(self._held) // _SAMPLE_BYTES)
        if self._part.samples:
            yield self._finish()
        else:
            self._part.path.unlink(missing_ok=True)

    def _begin(self) -> None:
        self._mark = next(self._marks)
        self._part = Flac(self._folder / f"{self._number:04}.flac")
        self._loudness = Loudness()

    def _write(self, samples: int) -> None:
        written = bytes(self._held[: samples * _SAMPLE_BYTES])
        del self._held[: samples * _SAMPLE_BYTES]
        self._part.write(written)
        self._loudness.add(written)

    def _finish(self) -> dict[str, Any]:
        self._part.close()
        samples = self._part.samples
        told = {
            "number": self._number,
            "path": str(self._part.path),
            "start": self._start,
            "samples": samples,
            "timeline": self._timeline.of(self._start, samples),
            "speech": self._loudness.intervals(),
        }
        self._number += 1
        self._start += samples
        return told


def seconds_of(recording: BinaryIO, longest: float) -> float:
    """How long the sound lasts by its packets, for headers lie; ends early on what is longer than `longest`."""
    with _opened(recording) as (container, stream):
        base, zero = stream.time_base, _zero(container)
        most = longest / base
        sound = last = 0
        for packet in _packets(container, stream):
            if packet.duration:
                sound += packet.duration
                if sound > most:
                    raise _too_long(longest)
            elif packet.pts:
                last = max(last, packet.pts)
        # Clocks jump; they are believed only where packets do not say how long they last.
        return float(sound * base) or max(float(last * base) - zero, 0.0)


def lengths_of(seconds: float, most: float) -> list[float]:
    """How long the parts of so many seconds are to be, at `most`: alike, but the last ones ever shorter.

    While those are cut, the speech service hears the others: so all end at about the same time.
    """
    for parts in count(max(int(seconds / most), 1)):
        alike = max(parts - _LAST, 1)
        shares = [1.0] * alike + [_LESS**number for number in range(1, parts - alike + 1)]
        if seconds <= most * sum(shares):
            return [seconds * share / sum(shares) for share in shares]
    raise AssertionError("with parts enough, none is too long")


def _too_long(longest: float) -> Failure:
    return Failure("recording_too_large", f"The recording is longer than {longest / 3600:g} hours.")


def cut(
    recording: BinaryIO, folder: Path, longest: float, part_seconds: float, search_seconds: float
) -> Iterator[dict[str, Any]]:
    """Yields what is said on standard output, part by part, as soon as each is written.

    The parts are about `part_seconds` long, the last ones less; a pause is looked for `search_seconds` from each mark.
    """
    seconds = seconds_of(recording, longest)
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _MOST_CPU_SECONDS))
    known = seconds > search_seconds  # else the packets do not tell
    lengths = lengths_of(seconds, part_seconds + search_seconds) if known else [part_seconds]
    recording.seek(0)
    with _opened(recording) as (container, stream):
        timeline = Timeline(_zero(container), longest)
        cutter = Cutter(folder, lengths, search_seconds, timeline)
        decoder = Decoder(timeline)
        heard = 0
        for samples in decoder.decode(container, stream):
            heard += len(samples) // _SAMPLE_BYTES
            if heard > (longest + _SLACK_SECONDS) * SAMPLE_RATE:
                raise _too_long(longest)
            for part in cutter.feed(samples):
                yield {"part": {**part, "of": len(lengths), "whole": seconds}}
        for part in cutter.end():
            yield {"part": {**part, "of": len(lengths), "whole": seconds}}
    if not heard and decoder.skipped:
        raise Failure("unreadable_recording", "No packet of the recording could be decoded.")
    if not heard:
        raise Failure("empty_recording", "There is no sound in the recording.")
    yield {"done": {"seconds": heard / SAMPLE_RATE}}


class Decoder:
    """Decodes a track to 16 kHz mono; a packet that cannot be decoded is counted and left out."""

    def __init__(self, timeline: Timeline) -> None:
        self.skipped = 0
        self._timeline = timeline
        self._decoded = av.AudioFifo()
        self._resampler = _resampler()

    def decode(self, container: Any, stream: Any) -> Iterator[bytes]:
        """Yields samples, some seconds at a time: frames of 20 ms each would cost as much to pass on as to decode."""
        for packet in _packets(container, stream):
            try:
                frames = packet.decode()
            except _BROKEN:
                self.skipped += 1
                continue
            for frame in frames:
                self._timeline.follow(frame)
                frame.pts = (
                    None  # the timeline has it; here, what comes next follows what came before
                )
                try:
                    self._decoded.write(frame)
                except ValueError:  # a recorder may change its channels or its rate on the way
                    yield from self._flushed()
                    self._decoded, self._resampler = av.AudioFifo(), _resampler()
                    self._decoded.write(frame)
            if self._decoded.samples >= _CHUNK_SAMPLES:
                yield self._resampled(self._decoded.read())
        yield from self._flushed()

    def _flushed(self) -> Iterator[bytes]:
        if rest := self._decoded.read():
            yield self._resampled(rest)
        yield self._resampled(None)

    def _resampled(self, frame: Any) -> bytes:
        try:
            pieces = self._resampler.resample(frame)
        except _BROKEN:
            detail = "The recording has channels or a rate that cannot be read. Export it with one or two channels."
            raise Failure("unreadable_recording", detail) from None
        return b"".join(
            memoryview(piece.planes[0])[: piece.samples * _SAMPLE_BYTES] for piece in pieces
        )


def _resampler() -> Any:
    return av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)


@contextmanager
def _opened(recording: BinaryIO) -> Iterator[tuple[Any, Any]]:
    """The container and its best audio track; Failure where there is none."""
    try:
        container = av.open(recording, "r", **_OPENING)
    except _BROKEN as error:
        reason = getattr(error, "strerror", None) or "its structure is broken"
        detail = f"The recording cannot be opened ({reason}): it is damaged, or was cut short. Record or export it again."
        raise Failure("unreadable_recording", detail) from None
    with container:
        stream = container.streams.best("audio")
        if stream is None:
            raise Failure("no_audio", "The recording has no sound track.")
        yield container, stream


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """The track's packets; behind damage the next are looked for, as long as some come."""
    for _ in range(_MOST_DAMAGES):
        with suppress(*_BROKEN):
            yield from container.demux(stream)
            return


def _zero(container: Any) -> float:
    return (container.start_time or 0) / av.time_base


def main() -> None:
    recording, folder, *seconds = sys.argv[1:]
    longest, part_seconds, search_seconds = map(float, seconds)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the parent, which ends this process or is gone
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_LOOK_SECONDS, _MOST_CPU_SECONDS))
    try:
        with Recording(recording) as file:
            for said in _cut_or_why_not(file, Path(folder), longest, part_seconds, search_seconds):
                _say(said)
    except BrokenPipeError:  # nobody listens any more
        os._exit(1)
    except MemoryError:
        detail = "The recording asks for more memory than any real one needs."
        _say({"failed": {"code": "unreadable_recording", "detail": detail}})


def _cut_or_why_not(recording: BinaryIO, *how: Any) -> Iterator[dict[str, Any]]:
    try:
        yield from cut(recording, *how)
    except Failure as failure:
        code, detail = failure.code, failure.detail
        if code == "unreadable_recording":
            try:  # a page, a picture or nothing at all is better told by its bytes than by FFmpeg
                identify(recording)
            except StenoError as error:
                code, detail = error.code, error.detail
        yield {"failed": {"code": code, "detail": detail}}


def _say(said: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
