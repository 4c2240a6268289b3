"""Long recordings to measure with: the offline engine's own, one after another, with varied gaps."""

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
_PIECE_SECONDS = 600  # encoded once and repeated; a whole number of every codec's frames


@dataclass(frozen=True)
class Kind:
    """How a recording is made; a `live` one is written as recorders do, without going back to tell its length."""

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


def encoded(name: str, seconds: float, folder: Path, piece_seconds: int = _PIECE_SECONDS) -> Path:
    """About `seconds` of speech, in pieces that repeat, as a file of the kind that KINDS calls `name`."""
    kind = KINDS[name]
    path = folder / f"{seconds:.0f} {name}"
    with (
        path.open("wb") as file,
        av.open(_Live(file) if kind.live else file, "w", kind.muxer, kind.options) as output,
    ):
        sound = _sound(output, kind)
        pictures: Any = output.add_stream("mpeg4", rate=1) if kind.pictures else None
        last = -_RATE
        for piece in range(max(round(seconds / piece_seconds), 1)):
            for time, duration, content in _packets(kind, piece_seconds):
                packet = av.Packet(content)
                packet.stream, packet.time_base, packet.duration = (
                    sound,
                    Fraction(1, _RATE),
                    duration,
                )
                packet.pts = packet.dts = time + piece * piece_seconds * _RATE
                if (
                    packet.pts > last
                ):  # what an encoder sends ahead of the first sound is there once
                    output.mux(packet)
                    last = packet.pts
            for second in range(piece_seconds if pictures else 0):
                picture = av.VideoFrame(64, 64, "yuv420p")
                picture.pts = piece * piece_seconds + second
                output.mux(pictures.encode(picture))
        if pictures:
            output.mux(pictures.encode(None))
    return path


class _Live(io.RawIOBase):
    """A file that cannot be gone back in."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        return self._file.write(content)


def _sound(output: Any, kind: Kind) -> Any:
    stream = output.add_stream(kind.codec, rate=_RATE, layout="mono")
    stream.bit_rate = 48_000
    return stream


@cache
def _packets(kind: Kind, seconds: int) -> list[tuple[int, int, bytes]]:
    """The packets of one piece: when each begins and how long it lasts, in samples, and its bytes."""
    with av.open(io.BytesIO(), "w", kind.muxer, kind.options) as output:
        stream = _sound(output, kind)
        output.start_encoding()
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(stream.format, "mono", _RATE, frame_size=size)
        packets = []
        for number, second in enumerate(_spoken(seconds)):
            frame = av.AudioFrame("s16", "mono", _RATE)
            frame.sample_rate, frame.pts = _RATE, number * _RATE
            frame.planes[0].update(second)
            packets += [
                packet for piece in resampler.resample(frame) for packet in stream.encode(piece)
            ]
        packets += [packet for piece in resampler.resample(None) for packet in stream.encode(piece)]
        packets += stream.encode(None)
        return [(packet.pts, packet.duration or size, bytes(packet)) for packet in packets]


def order(seconds: float) -> Iterator[tuple[str, float]]:
    """The engine's recordings that make up so many seconds, each with the seconds of silence behind it."""
    chance = random.Random(1)  # noqa: S311 - the same recording every time, no secret
    lengths = {name: len(_pcm(name)) / 2 / _RATE for name in SOURCES}
    while seconds > 0:
        name, gap = chance.choice(SOURCES), chance.uniform(0.2, 2.5)
        yield name, gap
        seconds -= lengths[name] + gap


def _spoken(seconds: float) -> Iterator[bytes]:
    """16 bit mono PCM of 48 kHz, a second at a time."""
    held = bytearray()
    pieces = order(seconds)
    for _ in range(round(seconds)):
        while len(held) < _RATE * 2:
            name, gap = next(pieces, (SOURCES[0], 0.0))
            held += _pcm(name) + bytes(2 * round(_RATE * gap))
        yield bytes(held[: _RATE * 2])
        del held[: _RATE * 2]


@cache
def _pcm(name: str) -> bytes:
    resampler = av.AudioResampler("s16", "mono", _RATE)
    with av.open(str(get_assets_path() / name), "r") as container:
        pieces = [
            piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)
        ]
    return b"".join(bytes(piece.planes[0])[: piece.samples * 2] for piece in pieces)
