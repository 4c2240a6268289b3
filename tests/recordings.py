"""Real speech in the containers that browsers and phones make, encoded here from the engine's own sample recordings."""

from fractions import Fraction
from io import BytesIO
from typing import Any

import av
from moonshine_voice.utils import get_assets_path

ASSETS = get_assets_path()

# name: (muxer, codec, rate, muxer's options). The first six are what the speech service takes.
_MAKINGS: dict[str, tuple[str, str, int, dict[str, str]]] = {
    "webm": ("webm", "libopus", 48000, {}),
    "fragmented mp4": ("mp4", "aac", 48000, {"movflags": "cmaf", "brand": "iso5", "frag_duration": "1000000"}),
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
}
DIRECT = tuple(_MAKINGS)[:6]


def asset(name: str) -> bytes:
    return (ASSETS / name).read_bytes()


def recording(kind: str, source: str = "beckett.wav", seconds: float = 3.0) -> bytes:
    """The first `seconds` of `source` as a file of `kind`."""
    if kind == "amr":  # not every build of FFmpeg can write it: frames of 12.2 kbit/s, 20 ms each, that say nothing
        return b"#!AMR\n" + (b"\x3c" + bytes(31)) * round(seconds * 50)
    muxer, codec, rate, options = _MAKINGS[kind]
    target = BytesIO()
    with av.open(target, "w", format=muxer, options=options) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout="mono")
        if muxer == "mp3" and options["id3v2_version"] != "0":
            output.metadata["title"] = "A title, so that there is a tag"
        stream.bit_rate = 64_000
        _speak(output, stream, source, seconds)
    return target.getvalue()


def video(muxer: str, video_codec: str, audio_codec: str) -> bytes:
    """Three seconds of a black picture with speech."""
    target = BytesIO()
    with av.open(target, "w", format=muxer) as output:
        pictures: Any = output.add_stream(video_codec, rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        sound: Any = output.add_stream(audio_codec, rate=48000, layout="mono")
        for number in range(30):
            picture = av.VideoFrame(64, 64, "yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, 10)
            output.mux(pictures.encode(picture))
        output.mux(pictures.encode(None))
        _speak(output, sound, "beckett.wav", 3)
    return target.getvalue()


def _speak(output: Any, stream: Any, source: str, seconds: float) -> None:
    rate, samples = stream.rate, stream.codec_context.frame_size
    resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate, frame_size=samples)
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
