"""Speech recognition for the offline engine, with the model in the moonshine-voice wheel."""

import threading
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import av
import numpy as np
from moonshine_voice import ModelArch
from moonshine_voice.transcriber import Transcriber
from moonshine_voice.utils import get_model_path

SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Line:
    """One line of speech. `start` and `end` are in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Transcription:
    """The transcribed lines of a recording, and its duration in seconds."""

    lines: tuple[Line, ...]
    duration: float

    @property
    def text(self) -> str:
        return " ".join(line.text for line in self.lines)


class Recognizer:
    """The speech model.

    It transcribes one recording at a time, because the model may not be thread-safe.
    """

    def __init__(self) -> None:
        self._model = Transcriber(str(get_model_path("tiny-en")), ModelArch.TINY)
        self._lock = threading.Lock()
        # Cache the results, because tests send the same recordings with many names and options.
        self.transcribe = lru_cache(maxsize=256)(self._transcribe)

    def _transcribe(self, recording: bytes, demuxer: str) -> Transcription:
        samples = decode(recording, demuxer)
        duration = len(samples) / SAMPLE_RATE
        # Append a second of silence. Otherwise, if a recording ends in the middle of a word, the
        # model adds the word to the transcript of the next recording.
        padded = np.concatenate([samples, np.zeros(SAMPLE_RATE, np.float32)])
        with self._lock:
            lines = self._model.transcribe_without_streaming(padded.tolist(), SAMPLE_RATE).lines
        return Transcription(
            tuple(
                Line(
                    round(line.start_time, 3),
                    round(min(line.start_time + line.duration, duration), 3),
                    line.text,
                )
                for line in lines
            ),
            duration,
        )


def decode(recording: bytes, demuxer: str) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Return the first audio track as mono samples between -1 and 1, at SAMPLE_RATE.

    Raises av.FFmpegError if there is no audio track or it cannot be decoded.
    """
    chunks: list[Any] = []
    with av.open(BytesIO(recording), "r", format=demuxer) as container:
        if not container.streams.audio:
            raise av.InvalidDataError(0, "no audio track")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        for frame in container.decode(audio=0):
            chunks += [chunk.to_ndarray()[0] for chunk in resampler.resample(frame)]
        chunks += [chunk.to_ndarray()[0] for chunk in resampler.resample(None)]
    return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
