"""Long recordings to measure with: the offline engine's own, one after another, with varied gaps."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from moonshine_voice.utils import get_assets_path

KINDS = {"mp3": ("mp3", "libmp3lame"), "m4a": ("mp4", "aac"), "webm": ("webm", "libopus")}
_RATE = 48_000


def spoken(seconds: float) -> Iterator[bytes]:
    """16 bit mono PCM of 48 kHz, a second at a time."""
    chance = random.Random(1)  # noqa: S311 - the same recording every time, no secret
    sources = [_pcm(name) for name in ("two_cities.wav", "beckett.wav", "endgame_nagg_nell.wav")]
    held = bytearray()
    for _ in range(round(seconds)):
        while len(held) < _RATE * 2:
            held += chance.choice(sources) + bytes(2 * round(_RATE * chance.uniform(0.2, 2.5)))
        yield bytes(held[: _RATE * 2])
        del held[: _RATE * 2]


def encoded(kind: str, seconds: float, folder: Path) -> Path:
    """The speech as a file of `kind`, one of KINDS."""
    muxer, codec = KINDS[kind]
    path = folder / f"{seconds:.0f}.{kind}"
    with av.open(str(path), "w", format=muxer) as output:
        stream: Any = output.add_stream(codec, rate=_RATE, layout="mono")
        stream.bit_rate = 48_000
        resampler = av.AudioResampler(stream.format, "mono", _RATE, frame_size=stream.codec_context.frame_size)
        for number, second in enumerate(spoken(seconds)):
            frame = av.AudioFrame("s16", "mono", _RATE)
            frame.sample_rate, frame.pts = _RATE, number * _RATE
            frame.planes[0].update(second)
            for piece in resampler.resample(frame):
                output.mux(stream.encode(piece))
        for piece in resampler.resample(None):
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return path


def _pcm(name: str) -> bytes:
    resampler = av.AudioResampler("s16", "mono", _RATE)
    with av.open(str(get_assets_path() / name), "r") as container:
        pieces = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    return b"".join(bytes(piece.planes[0])[: piece.samples * 2] for piece in pieces)
