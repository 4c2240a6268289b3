"""Speech recordings in the formats that browsers and phones produce."""

import random
import wave
from fractions import Fraction
from functools import cache
from io import BytesIO
from typing import Any

import av
from moonshine_voice.utils import get_assets_path

ASSETS = get_assets_path()

# Maps the name of a format to its muxer, codec, sample rate and muxer options. The upstream accepts
# the first six formats without conversion.
_FORMATS: dict[str, tuple[str, str, int, dict[str, str]]] = {
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
DIRECT = tuple(_FORMATS)[:6]
KINDS = (*_FORMATS, "amr")


def asset(name: str) -> bytes:
    return (ASSETS / name).read_bytes()


def recording(
    kind: str, source: str = "beckett.wav", seconds: float = 3.0, layout: str = "mono"
) -> bytes:
    """Return the first `seconds` of the sample file `source`, in the format `kind`."""
    if kind == "amr":
        # Not every FFmpeg build can encode AMR. These are silent frames of 20 ms at 12.2 kbit/s.
        return b"#!AMR\n" + (b"\x3c" + bytes(31)) * round(seconds * 50)
    muxer, codec, rate, options = _FORMATS[kind]
    target = BytesIO()
    with av.open(target, "w", format=muxer, options=options) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout=layout)
        if muxer == "mp3" and options["id3v2_version"] != "0":
            output.metadata["title"] = "A title, so that there is a tag"
        stream.bit_rate = 64_000
        _encode_speech(output, stream, source, seconds)
    return target.getvalue()


def long_speech(seconds: float) -> Any:
    """Return speech with random pauses as 48 kHz mono PCM, joined from several sample files."""
    rng = random.Random(1)
    sources = [_pcm(name) for name in ("two_cities.wav", "beckett.wav", "endgame_nagg_nell.wav")]
    whole = bytearray()
    while len(whole) < seconds * 96_000:
        whole += rng.choice(sources) + bytes(2 * round(48_000 * rng.uniform(0.2, 2.5)))
    return bytes(whole[: round(seconds * 48_000) * 2])


@cache
def long_recording(kind: str, seconds: float, gap: float = 0) -> bytes:
    """Return `seconds` of speech in the format `kind`.

    In the middle of the recording, the timestamps jump by `gap` seconds.
    """
    muxer, codec, rate, options = _FORMATS[kind]
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


def excerpts(*sections: tuple[str, float, float], pause: float = 2) -> bytes:
    """Return a WAV file with sections of sample files: their names, start and end in seconds."""
    target = BytesIO()
    with wave.open(target, "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        for name, start, end in sections:
            silence = bytes(2 * round(48_000 * pause)) if file.getnframes() else b""
            speech = _pcm(name)[round(48_000 * start) * 2 : round(48_000 * end) * 2]
            file.writeframes(silence + speech)
    return target.getvalue()


def _pcm(source: str) -> bytes:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=48_000)
    pieces = [piece for frame in _frames(source, 3600) for piece in resampler.resample(frame)]
    return b"".join(bytes(piece.planes[0])[: piece.samples * 2] for piece in pieces)


def silent_video() -> bytes:
    """Return one second of video without an audio track."""
    target = BytesIO()
    with av.open(target, "w", format="mp4") as output:
        stream: Any = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        _encode_video(output, stream, 10)
    return target.getvalue()


def video(muxer: str, video_codec: str, audio_codec: str) -> bytes:
    """Return three seconds of black video with speech."""
    target = BytesIO()
    with av.open(target, "w", format=muxer) as output:
        video_stream: Any = output.add_stream(video_codec, rate=10)
        video_stream.width, video_stream.height, video_stream.pix_fmt = 64, 64, "yuv420p"
        audio_stream: Any = output.add_stream(audio_codec, rate=48000, layout="mono")
        _encode_video(output, video_stream, 30)
        _encode_speech(output, audio_stream, "beckett.wav", 3)
    return target.getvalue()


def _encode_video(output: Any, stream: Any, frames: int) -> None:
    for index in range(frames):
        frame = av.VideoFrame(64, 64, "yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, 10)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def _encode_speech(output: Any, stream: Any, source: str, seconds: float) -> None:
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
    """Return 16-bit mono samples at 16 kHz as a WAV file."""
    target = BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples)
    return target.getvalue()
