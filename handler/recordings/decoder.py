"""The program that decodes a recording and cuts it into parts. Only this module uses PyAV.

`cutting.py` starts it as a child process, without credentials and with limited memory, because
uploaded files are not trusted. It writes its progress to standard output, one JSON object per line:

    {"part": {"number": 0, "path": ..., "start": 0, "samples": 4800000, "expected_parts": 12,
              "recording_seconds": 3600.0, "timeline": [[0, 0.0]],
              "speech": [[0.42, 3.18, 12], [3.5, 4.02, 2]]}}
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
from itertools import accumulate, chain, repeat
from pathlib import Path
from typing import Any, BinaryIO

import av

from handler.errors import StenoError
from handler.recordings.container import identify
from handler.recordings.speech_activity import SAMPLE_RATE, SpeechDetector, find_quietest_sample
from handler.recordings.timeline import TimelineBuilder, part_lengths

_SAMPLE_BYTES = 2
_MEMORY_BYTES = 1_000_000_000  # a WAV file of 96 KB can make FFmpeg allocate 2 GB
_CPU_SECONDS = 600  # 12 hours of audio are decoded in about 2 minutes
_SCAN_CPU_SECONDS = 60  # 12 hours of audio are scanned in about 10 seconds
# This hard limit must be higher than the two soft limits above. A process that reaches a soft limit
# is killed with SIGXCPU, and the parent process then reports the recording as unreadable. A process
# that reaches the hard limit is killed with SIGKILL, and the recording is then not reported as
# unreadable.
_MAX_CPU_SECONDS = _CPU_SECONDS + 1

# Without these allowlists, an uploaded playlist could make FFmpeg open other files and URLs. No
# protocol is needed, because FFmpeg reads the recording through a Python file object.
_FORMATS = (
    "wav,w64,mp3,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,ogg,flac,aac,aiff,caf,amr,asf,avi,mpegts"
    ",mpeg,ac3,eac3,wv,au,tta"
)
_OPEN_OPTIONS: dict[str, Any] = {
    "container_options": {"format_whitelist": _FORMATS, "protocol_whitelist": ""}
}
if int(av.__version__.partition(".")[0]) < 19:  # later releases ignore invalid metadata anyway
    _OPEN_OPTIONS["metadata_errors"] = "ignore"
# For damaged files, PyAV raises not only FFmpeg's errors, but also these Python exceptions.
_DECODE_ERRORS = (av.FFmpegError, UnicodeDecodeError, IndexError, ValueError)

_MAX_DEMUX_ERRORS = 1000
# With these options, encoding is a third faster than with a prediction order of 4, but the files
# are 3.5 % larger.
_FLAC_OPTIONS = {"frame_size": "2304", "max_prediction_order": "2", "max_partition_order": "3"}
_CHUNK_SAMPLES = 48_000
_DURATION_TOLERANCE_SECONDS = 60.0  # decoders can return more audio than packets indicate


class CutError(Exception):
    """The recording cannot be cut. `code` is the error code of the HTTP API."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class RecordingFile(FileIO):
    """A file whose `seek` returns -1 for an invalid position instead of raising OSError.

    A damaged header can make FFmpeg seek to a position before the beginning of the file.
    """

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except OSError:
            return -1


class FlacWriter:
    """Writes 16-bit samples to a FLAC file (16 kHz, mono)."""

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


class Cutter:
    """Writes decoded samples to FLAC files, one file per part.

    `lengths` contains the target length of each part, in seconds. Each cut is made in a pause, at
    most `search_seconds` before or after the target time.
    """

    def __init__(
        self,
        folder: Path,
        lengths: Sequence[float],
        search_seconds: float,
        timeline: TimelineBuilder,
    ) -> None:
        self._folder = folder
        # Target times are relative to the beginning of the recording, not to the previous cut.
        # Otherwise, many early cuts would make the last part too long.
        self._targets = accumulate(chain(lengths, repeat(max(lengths))))
        self._search_samples = round(search_seconds * SAMPLE_RATE)
        self._timeline = timeline
        self._number = 0
        self._start = 0
        self._pending = bytearray()  # samples that may belong to the next part
        self._begin_part()

    def feed(self, samples: bytes) -> Iterator[dict[str, Any]]:
        """Add 16-bit samples. If a part is now complete, yield the message for it."""
        self._pending += samples
        search_start = round(self._target * SAMPLE_RATE) - self._search_samples - self._start
        missing = search_start - self._part.samples
        if missing > 0:
            self._write(min(missing, len(self._pending) // _SAMPLE_BYTES))
        if len(self._pending) >= 2 * self._search_samples * _SAMPLE_BYTES:
            self._write(find_quietest_sample(self._pending))
            yield self._finish_part()
            self._begin_part()

    def finish(self) -> Iterator[dict[str, Any]]:
        """Write the remaining samples. Yield the message about the last part if it is not empty."""
        self._write(len(self._pending) // _SAMPLE_BYTES)
        if self._part.samples:
            yield self._finish_part()
        else:
            self._part.path.unlink(missing_ok=True)

    def _begin_part(self) -> None:
        self._target = next(self._targets)
        self._part = FlacWriter(self._folder / f"{self._number:04}.flac")
        self._speech = SpeechDetector()

    def _write(self, samples: int) -> None:
        written = bytes(self._pending[: samples * _SAMPLE_BYTES])
        del self._pending[: samples * _SAMPLE_BYTES]
        self._part.write(written)
        self._speech.add(written)

    def _finish_part(self) -> dict[str, Any]:
        self._part.close()
        samples = self._part.samples
        message = {
            "number": self._number,
            "path": str(self._part.path),
            "start": self._start,
            "samples": samples,
            "timeline": self._timeline.part_timeline(self._start, samples),
            "speech": self._speech.intervals(),
        }
        self._number += 1
        self._start += samples
        return message


def measure_seconds(recording: BinaryIO, max_seconds: float) -> float:
    """Return the duration of the audio in seconds, or 0 if it is unknown.

    The packets are scanned, because the duration in a header can be wrong. Raises CutError as soon
    as the duration exceeds `max_seconds`.
    """
    with _open_audio(recording) as (container, stream):
        time_base, start_seconds = stream.time_base, _start_seconds(container)
        max_duration = max_seconds / time_base
        duration = last_pts = 0
        for packet in _read_packets(container, stream):
            if packet.duration:
                duration += packet.duration
                if duration > max_duration:
                    raise _too_long(max_seconds)
            elif packet.pts:
                last_pts = max(last_pts, packet.pts)
        # Timestamps can jump, so they are used only if no packet has a duration.
        return float(duration * time_base) or max(float(last_pts * time_base) - start_seconds, 0.0)


def _too_long(max_seconds: float) -> CutError:
    hours = max_seconds / 3600
    detail = f"The recording is longer than {hours:g} hours. Split it into shorter recordings."
    return CutError("recording_too_large", detail)


def cut(
    recording: BinaryIO,
    folder: Path,
    max_seconds: float,
    part_seconds: float,
    search_seconds: float,
) -> Iterator[dict[str, Any]]:
    """Cut a recording into FLAC files in `folder`, and yield the messages for standard output.

    The message about a part is yielded as soon as its file has been written. Parts are about
    `part_seconds` long, and the last ones are shorter. Each cut is at most `search_seconds` before
    or after the target time.
    Raises CutError if the recording cannot be decoded or is longer than `max_seconds`.
    """
    seconds = measure_seconds(recording, max_seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _MAX_CPU_SECONDS))
    lengths = [part_seconds]
    if seconds > search_seconds:  # a smaller value can mean that the duration is unknown
        lengths = part_lengths(seconds, part_seconds + search_seconds)
    totals = {"expected_parts": len(lengths), "recording_seconds": seconds}
    recording.seek(0)
    with _open_audio(recording) as (container, stream):
        timeline = TimelineBuilder(_start_seconds(container), max_seconds)
        cutter = Cutter(folder, lengths, search_seconds, timeline)
        decoder = Decoder(timeline)
        decoded_samples = 0
        for samples in decoder.decode(container, stream):
            decoded_samples += len(samples) // _SAMPLE_BYTES
            if decoded_samples > (max_seconds + _DURATION_TOLERANCE_SECONDS) * SAMPLE_RATE:
                raise _too_long(max_seconds)
            for part in cutter.feed(samples):
                yield {"part": {**part, **totals}}
        for part in cutter.finish():
            yield {"part": {**part, **totals}}
    if not decoded_samples and decoder.skipped:
        detail = "No packet of the recording could be decoded. Record or export it again."
        raise CutError("unreadable_recording", detail)
    if not decoded_samples:
        raise CutError("empty_recording", "The recording contains no audio samples. Record again.")
    yield {"done": {"seconds": decoded_samples / SAMPLE_RATE}}


class Decoder:
    """Decodes an audio track to 16-bit samples at 16 kHz mono.

    Packets that cannot be decoded are skipped. `skipped` is the number of these packets.
    """

    def __init__(self, timeline: TimelineBuilder) -> None:
        self.skipped = 0
        self._timeline = timeline
        self._decoded = av.AudioFifo()
        self._resampler = _create_resampler()

    def decode(self, container: Any, stream: Any) -> Iterator[bytes]:
        """Yield the samples in chunks of many frames.

        Yielding each 20 ms frame separately would take as much time as decoding the frame.
        """
        for packet in _read_packets(container, stream):
            try:
                frames = packet.decode()
            except _DECODE_ERRORS:
                self.skipped += 1
                continue
            for frame in frames:
                self._timeline.add(frame)
                # The timestamp is now stored in the timeline. The FIFO would reject a frame after a
                # gap if the frame still had its timestamp.
                frame.pts = None
                try:
                    self._decoded.write(frame)
                except ValueError:  # the channels or the sample rate have changed
                    yield from self._flush()
                    self._decoded, self._resampler = av.AudioFifo(), _create_resampler()
                    self._decoded.write(frame)
            if self._decoded.samples >= _CHUNK_SAMPLES:
                yield self._resample(self._decoded.read())
        yield from self._flush()

    def _flush(self) -> Iterator[bytes]:
        if rest := self._decoded.read():
            yield self._resample(rest)
        yield self._resample(None)

    def _resample(self, frame: Any) -> bytes:
        try:
            frames = self._resampler.resample(frame)
        except _DECODE_ERRORS:
            detail = (
                "The channel layout or sample rate of the recording is not supported."
                " Export it with one or two channels."
            )
            raise CutError("unreadable_recording", detail) from None
        return b"".join(
            memoryview(frame.planes[0])[: frame.samples * _SAMPLE_BYTES] for frame in frames
        )


def _create_resampler() -> Any:
    return av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)


@contextmanager
def _open_audio(recording: BinaryIO) -> Iterator[tuple[Any, Any]]:
    """Yield the container and its best audio stream.

    Raises CutError if the file cannot be opened or has no audio.
    """
    try:
        container = av.open(recording, "r", **_OPEN_OPTIONS)
    except _DECODE_ERRORS as error:
        reason = getattr(error, "strerror", None) or "invalid structure"
        detail = (
            f"The recording cannot be opened ({reason}). It is damaged or incomplete."
            " Record or export it again."
        )
        raise CutError("unreadable_recording", detail) from None
    with container:
        stream = container.streams.best("audio")
        if stream is None:
            detail = "The recording has no audio track. Send a recording with sound."
            raise CutError("no_audio", detail)
        yield container, stream


def _read_packets(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the packets of `stream`. Reading continues after damaged packets."""
    for _ in range(_MAX_DEMUX_ERRORS):
        with suppress(*_DECODE_ERRORS):
            yield from container.demux(stream)
            return


def _start_seconds(container: Any) -> float:
    return (container.start_time or 0) / av.time_base


def main() -> None:
    recording, folder, *seconds = sys.argv[1:]
    max_seconds, part_seconds, search_seconds = map(float, seconds)
    # The parent process handles Ctrl-C, and kills this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_SCAN_CPU_SECONDS, _MAX_CPU_SECONDS))
    options = (Path(folder), max_seconds, part_seconds, search_seconds)
    try:
        with RecordingFile(recording) as file:
            for message in _cut_and_report_errors(file, *options):
                _write_message(message)
    except BrokenPipeError:  # the parent process has closed the pipe or exited
        os._exit(1)
    except MemoryError:
        detail = (
            f"Decoding the recording requires more than {_MEMORY_BYTES / 1e9:g} GB of memory."
            " Export it again, for example as MP3 or FLAC."
        )
        _write_message({"failed": {"code": "unreadable_recording", "detail": detail}})


def _cut_and_report_errors(recording: BinaryIO, *options: Any) -> Iterator[dict[str, Any]]:
    """Yield the messages of `cut`. If `cut` raises CutError, yield a "failed" message."""
    try:
        yield from cut(recording, *options)
    except CutError as cut_error:
        code, detail = cut_error.code, cut_error.detail
        if code == "unreadable_recording":
            # For empty files, text files and images, this message is more helpful than FFmpeg's.
            try:
                identify(recording)
            except StenoError as error:
                code, detail = error.code, error.detail
        yield {"failed": {"code": code, "detail": detail}}


def _write_message(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
