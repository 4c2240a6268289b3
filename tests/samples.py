"""Real speech in the containers that browsers and phones make, encoded here from the engine's own sample recordings."""

import random
import wave
from fractions import Fraction
from functools import cache
from io import BytesIO
from typing import Any

import av
from moonshine_voice.utils import get_assets_path

ASSETS = get_assets_path()

# name: (muxer, codec, rate, muxer's options). The first six are what the speech service takes.
_MAKINGS: dict[str, tuple[str, str, int, dict[str, str]]] = {
    "webm": ("webm", "libopus", 48000, {}),
    "fragmented mp4": (
        "mp4",
        "aac",
        48000,
        {"movflags": "cmaf", "brand": "iso5", "frag_duration": "1000000"},
    ),
    "ogg": ("ogg", "libopus", 48000, {}),
    "mp3": ("mp3", "libmp3lame", 44100, {"id3v2_version": "0", "write_xing": "0"}),
    "flac": ("flac", "flac", 48000, {}),
    "wav": ("wav", "pcm_s16le", 48000, {}),
    "mp4": ("mp4", "aac", 48000, {}),
    "mov": ("mov", "aac", 48000, {}),
    "3gp": ("3gp", "aac", 48000, {}),
    "matroska": ("matroska", "libopus", 48000, {}),
    "mp3 with ID3": ("mp3", "libmp3lame", 44100, {"id3v2_version": "3"}),
    "mp3 at 8 kHz": ("mp3", "libmp3lame", 8000, {"id3v2_version": "0", "write_xing": "0"}),
    "mp2": ("mp2", "mp2", 44100, {}),
    "aac": ("adts", "aac", 44100, {}),
    "caf": ("caf", "pcm_s16be", 44100, {}),
    "aiff": ("aiff", "pcm_s16be", 44100, {}),
    "asf": ("asf", "wmav2", 44100, {}),
    "avi": ("avi", "libmp3lame", 44100, {}),
    "mpeg-ts": ("mpegts", "aac", 44100, {}),
    "mpeg-ps": ("mpeg", "mp2", 44100, {}),
    "wave64": ("w64", "pcm_s16le", 44100, {}),
    "ac-3": ("ac3", "ac3", 48000, {}),
    "e-ac-3": ("eac3", "eac3", 48000, {}),
    "wavpack": ("wv", "wavpack", 44100, {}),
    "au": ("au", "pcm_s16be", 44100, {}),
    "tta": ("tta", "tta", 44100, {}),
}
DIRECT = tuple(_MAKINGS)[:6]
KINDS = (*_MAKINGS, "amr")


def asset(name: str) -> bytes:
    return (ASSETS / name).read_bytes()


def recording(
    kind: str, source: str = "beckett.wav", seconds: float = 3.0, layout: str = "mono"
) -> bytes:
    """The first `seconds` of `source` as a file of `kind`."""
    if (
        kind == "amr"
    ):  # not every build of FFmpeg can write it: frames of 12.2 kbit/s, 20 ms each, that say nothing
        return b"#!AMR\n" + (b"\x3c" + bytes(31)) * round(seconds * 50)
    muxer, codec, rate, options = _MAKINGS[kind]
    target = BytesIO()
    with av.open(target, "w", format=muxer, options=options) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout=layout)
        if muxer == "mp3" and options["id3v2_version"] != "0":
            output.metadata["title"] = "A title, so that there is a tag"
        stream.bit_rate = 64_000
        _speak(output, stream, source, seconds)
    return target.getvalue()


def long_speech(seconds: float) -> Any:
    """The engine's recordings one after another with varied gaps, as PCM of 48 kHz."""
    chance = random.Random(1)
    spoken = [_pcm(name) for name in ("two_cities.wav", "beckett.wav", "endgame_nagg_nell.wav")]
    whole = bytearray()
    while len(whole) < seconds * 96_000:
        whole += chance.choice(spoken) + bytes(2 * round(48_000 * chance.uniform(0.2, 2.5)))
    return bytes(whole[: round(seconds * 48_000) * 2])


@cache
def long_recording(kind: str, seconds: float, gap: float = 0) -> bytes:
    """Speech of any length as a file of `kind`; after half of it, the clock jumps by `gap` seconds."""
    muxer, codec, rate, options = _MAKINGS[kind]
    pcm, target = long_speech(seconds), BytesIO()
    with av.open(target, "w", format=muxer, options=options) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 48_000
        resampler = av.AudioResampler(
            format=stream.format,
            layout="mono",
            rate=rate,
            frame_size=stream.codec_context.frame_size,
        )
        for start in range(0, len(pcm), 96_000):
            chunk = pcm[start : start + 96_000]
            frame = av.AudioFrame(format="s16", layout="mono", samples=len(chunk) // 2)
            frame.sample_rate, frame.pts = 48_000, start // 2
            frame.planes[0].update(chunk)
            for piece in resampler.resample(frame):
                if gap and piece.pts > seconds / 2 * rate:
                    piece.pts += round(gap * rate)
                output.mux(stream.encode(piece))
        for piece in resampler.resample(None):
            if gap:
                piece.pts += round(gap * rate)
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return target.getvalue()


def _pcm(source: str) -> bytes:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=48_000)
    pieces = [piece for frame in _frames(source, 3600) for piece in resampler.resample(frame)]
    return b"".join(bytes(piece.planes[0])[: piece.samples * 2] for piece in pieces)


def silent_video() -> bytes:
    """A second of pictures, and no sound track."""
    target = BytesIO()
    with av.open(target, "w", format="mp4") as output:
        pictures: Any = output.add_stream("mpeg4", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        _show(output, pictures, 10)
    return target.getvalue()


def video(muxer: str, video_codec: str, audio_codec: str) -> bytes:
    """Three seconds of a black picture with speech."""
    target = BytesIO()
    with av.open(target, "w", format=muxer) as output:
        pictures: Any = output.add_stream(video_codec, rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        sound: Any = output.add_stream(audio_codec, rate=48000, layout="mono")
        _show(output, pictures, 30)
        _speak(output, sound, "beckett.wav", 3)
    return target.getvalue()


def _show(output: Any, pictures: Any, number: int) -> None:
    for moment in range(number):
        picture = av.VideoFrame(64, 64, "yuv420p")
        picture.pts, picture.time_base = moment, Fraction(1, 10)
        output.mux(pictures.encode(picture))
    output.mux(pictures.encode(None))


def _speak(output: Any, stream: Any, source: str, seconds: float) -> None:
    rate, samples = stream.rate, stream.codec_context.frame_size
    resampler = av.AudioResampler(
        format=stream.format, layout=stream.layout.name, rate=rate, frame_size=samples
    )
    for frame in _frames(source, seconds):
        for piece in resampler.resample(frame):
            output.mux(stream.encode(piece))
    for piece in resampler.resample(None):
        output.mux(stream.encode(piece))
    output.mux(stream.encode(None))


def _frames(source: str, seconds: float) -> Any:
    with av.open(str(ASSETS / source)) as container:
        for frame in container.decode(audio=0):
            if frame.time is not None and frame.time >= seconds:
                return
            yield frame


def wav(samples: bytes) -> bytes:
    """16 bit mono samples at 16 kHz as a file."""
    target = BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples)
    return target.getvalue()
