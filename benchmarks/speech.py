"""Create long recordings from the offline engine's speech samples, with gaps of varying length."""

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import av
from moonshine_voice.utils import get_assets_path

SOURCES = ("two_cities.wav", "beckett.wav", "endgame_nagg_nell.wav")
_RATE = 48_000
_PIECE_SECONDS = 600  # encoded once, then repeated; a multiple of each codec's frame length


@dataclass(frozen=True)
class Kind:
    """A kind of recording.

    A `live` recording is written as a stream, as recorders do, so its header does not contain its
    duration. If `pictures` is true, the recording also has a video track.
    """

    muxer: str
    codec: str
    live: bool = False
    pictures: bool = False
    options: dict[str, str] = field(default_factory=dict, hash=False)


KINDS = {
    "mp3": Kind("mp3", "libmp3lame"),
    "m4a": Kind("mp4", "aac"),
    "webm": Kind("webm", "libopus"),
    "live webm": Kind("webm", "libopus", live=True),
    "fragmented mp4": Kind(
        "mp4",
        "aac",
        live=True,
        options={"movflags": "cmaf", "brand": "iso5", "frag_duration": "1000000"},
    ),
    "mp4 video": Kind("mp4", "aac", pictures=True),
    "ogg": Kind("ogg", "libopus"),
    "flac": Kind("flac", "flac"),
    "wav": Kind("wav", "pcm_s16le"),
}


def encode_speech(
    name: str, seconds: float, folder: Path, piece_seconds: int = _PIECE_SECONDS
) -> Path:
    """Write a recording of about `seconds` seconds to `folder`, and return its path.

    `name` is a key of KINDS. The recording repeats a piece of speech that lasts `piece_seconds`.
    """
    kind = KINDS[name]
    path = folder / f"{seconds:.0f} {name}"
    with (
        path.open("wb") as file,
        av.open(
            _UnseekableFile(file) if kind.live else file, "w", kind.muxer, kind.options
        ) as output,
    ):
        audio = _add_audio_stream(output, kind)
        pictures: Any = output.add_stream("mpeg4", rate=1) if kind.pictures else None
        last = -_RATE
        for piece in range(max(round(seconds / piece_seconds), 1)):
            for time, duration, content in _packets(kind, piece_seconds):
                packet = av.Packet(content)
                packet.stream, packet.duration = audio, duration
                packet.time_base = Fraction(1, _RATE)
                packet.pts = packet.dts = time + piece * piece_seconds * _RATE
                # Skip the encoder's priming packets in all pieces except the first.
                if packet.pts > last:
                    output.mux(packet)
                    last = packet.pts
            for second in range(piece_seconds if pictures else 0):
                picture = av.VideoFrame(64, 64, "yuv420p")
                picture.pts = piece * piece_seconds + second
                output.mux(pictures.encode(picture))
        if pictures:
            output.mux(pictures.encode(None))
    return path


class _UnseekableFile(io.RawIOBase):
    """A file that does not support seeking."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        return self._file.write(content)


def _add_audio_stream(output: Any, kind: Kind) -> Any:
    stream = output.add_stream(kind.codec, rate=_RATE, layout="mono")
    stream.bit_rate = 48_000
    return stream


@cache
def _packets(kind: Kind, seconds: int) -> list[tuple[int, int, bytes]]:
    """Encode a piece. Return each packet's start and duration in samples, and its content."""
    with av.open(io.BytesIO(), "w", kind.muxer, kind.options) as output:
        stream = _add_audio_stream(output, kind)
        output.start_encoding()
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(stream.format, "mono", _RATE, frame_size=size)
        packets = []
        for number, second in enumerate(_pcm_seconds(seconds)):
            frame = av.AudioFrame("s16", "mono", _RATE)
            frame.sample_rate, frame.pts = _RATE, number * _RATE
            frame.planes[0].update(second)
            packets += [
                packet for piece in resampler.resample(frame) for packet in stream.encode(piece)
            ]
        packets += [packet for piece in resampler.resample(None) for packet in stream.encode(piece)]
        packets += stream.encode(None)
        return [(packet.pts, packet.duration or size, bytes(packet)) for packet in packets]


def speech_sequence(seconds: float) -> Iterator[tuple[str, float]]:
    """Yield the names of samples whose total duration, including silences, is about `seconds`.

    Each name is paired with the duration, in seconds, of the silence after the sample.
    """
    generator = random.Random(1)  # noqa: S311 - not for secrets; the sequence is always the same
    lengths = {name: len(_pcm(name)) / 2 / _RATE for name in SOURCES}
    while seconds > 0:
        name, gap = generator.choice(SOURCES), generator.uniform(0.2, 2.5)
        yield name, gap
        seconds -= lengths[name] + gap


def _pcm_seconds(seconds: float) -> Iterator[bytes]:
    """Yield speech as 16-bit mono PCM at 48 kHz, one second at a time."""
    buffer = bytearray()
    pieces = speech_sequence(seconds)
    for _ in range(round(seconds)):
        while len(buffer) < _RATE * 2:
            name, gap = next(pieces, (SOURCES[0], 0.0))
            buffer += _pcm(name) + bytes(2 * round(_RATE * gap))
        yield bytes(buffer[: _RATE * 2])
        del buffer[: _RATE * 2]


@cache
def _pcm(name: str) -> bytes:
    resampler = av.AudioResampler("s16", "mono", _RATE)
    with av.open(str(get_assets_path() / name), "r") as container:
        pieces = [
            piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)
        ]
    return b"".join(bytes(piece.planes[0])[: piece.samples * 2] for piece in pieces)
