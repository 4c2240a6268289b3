"""Detects speech and pauses from the loudness of the audio, without a model.

Samples are 16-bit mono at 16 kHz. The level of a frame is the root mean square of the differences
between consecutive samples. These differences are small in low-frequency sounds, such as hum and
rumble, so the level of such sounds is low.
"""

from array import array
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import dist, sqrt
from typing import NamedTuple

SAMPLE_RATE = 16_000
_FRAME_SAMPLES = SAMPLE_RATE // 50  # 20 ms
_SAMPLE_BYTES = 2
_SAMPLE_STEP = 8  # for speed, only every eighth sample is used
_DIFFERENCES = _FRAME_SAMPLES // _SAMPLE_STEP - 1  # per frame
_SCALE = sqrt(_DIFFERENCES)

_MIN_CUT_PAUSE_FRAMES = 10  # 200 ms: recordings are not cut in shorter pauses
_MIN_PAUSE_FRAMES = 8  # gaps within words are shorter: a `t` is silent for about 100 ms
_MIN_VOICE_FRAMES = 4  # 80 ms: clicks are shorter, and syllables are longer
# Each threshold applies to this many frames (10 seconds). It is computed from the levels of these
# frames, of the 250 frames before them, and of the 250 frames after them.
_WINDOW_FRAMES = 500
# The threshold is 8 dB above the noise level, which is the 10th percentile of the levels. Noise
# exceeds that level by up to 6 dB, and speech by about 20 dB.
_NOISE_FACTOR = 2.5
_MIN_LEVEL = 3.2  # 82 dB below full scale: quieter frames are digital silence
_MAX_NOISE_LEVEL = 325.0  # 42 dB below full scale: louder constant sounds are treated as speech
_ECHO_FACTOR = 0.025  # 32 dB below the loudest 2 %: quieter sounds are echoes
_SYLLABLE_FACTOR = 1.2  # 1.6 dB: the smallest change in level between two syllables


class SpeechInterval(NamedTuple):
    """An interval that may contain speech and contains no pauses.

    `start` and `end` are in seconds. `syllables` is an estimate of the number of syllables.
    """

    start: float
    end: float
    syllables: int


class SpeechDetector:
    """Finds the intervals that may contain speech. The samples can be added in chunks."""

    def __init__(self) -> None:
        self._levels: list[float] = []
        self._rest = b""

    def add(self, samples: bytes) -> None:
        data = self._rest + samples
        full_frames = len(data) // _SAMPLE_BYTES // _FRAME_SAMPLES
        full_bytes = full_frames * _FRAME_SAMPLES * _SAMPLE_BYTES
        self._levels += _levels(data[:full_bytes])
        self._rest = data[full_bytes:]

    def intervals(self) -> list[SpeechInterval]:
        """Return the intervals of the added samples that may contain speech.

        Silence, hiss, hum, room tone and clicks are left out. Sounds that may be speech or noise
        are included: it costs little to transcribe noise, but words in omitted speech are lost.
        """
        if not self._levels:  # the samples do not fill a frame, so they have no level
            seconds = len(self._rest) / _SAMPLE_BYTES / SAMPLE_RATE
            return [SpeechInterval(0.0, seconds, 1)] if any(self._rest) else []
        smooth = _smooth(self._levels)
        return [
            SpeechInterval(_seconds(start), _seconds(end), _count_syllables(smooth[start:end]))
            for start, end in _join_words(_loud_runs(self._levels))
        ]


def find_quietest_sample(samples: bytes | bytearray) -> int:
    """Return the index of the sample where the audio should be cut.

    It is the middle of the longest pause, or the quietest moment if there is no pause.
    """
    values = array("h", bytes(samples))
    levels = [
        sum(map(abs, values[start : start + _FRAME_SAMPLES : 2]))
        for start in range(0, len(values) - _FRAME_SAMPLES + 1, _FRAME_SAMPLES)
    ]
    by_level = sorted(levels)
    noise, speech = by_level[len(levels) // 10], by_level[len(levels) * 9 // 10]
    threshold = noise + (speech - noise) // 8
    # Each pause is a tuple (length, closeness of its middle to the center of the audio, middle).
    # `max` returns the longest pause, or the most central one of several longest pauses.
    pauses = [
        (end - start, -abs((start + end) // 2 - len(levels) // 2), (start + end) // 2)
        for is_pause, start, end in _runs([level <= threshold for level in levels])
        if is_pause and end - start >= _MIN_CUT_PAUSE_FRAMES
    ]
    frame = max(pauses)[2] if pauses else levels.index(by_level[0])
    return frame * _FRAME_SAMPLES + _FRAME_SAMPLES // 2


def _levels(samples: bytes) -> list[float]:
    """Return the level of each frame."""
    values = array("h", samples)[::_SAMPLE_STEP]
    width = _DIFFERENCES + 1
    return [
        dist(values[start + 1 : start + width], values[start : start + _DIFFERENCES]) / _SCALE
        for start in range(0, len(values), width)
    ]


def _loud_runs(levels: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each run of frames that are louder than the threshold."""
    loud: list[bool] = []
    for start in range(0, len(levels), _WINDOW_FRAMES):
        nearby = levels[max(start - _WINDOW_FRAMES // 2, 0) : start + _WINDOW_FRAMES * 3 // 2]
        # Digital silence, which recorders and editors insert, is not background noise.
        by_level = sorted(filter(_MIN_LEVEL.__lt__, nearby)) or [_MIN_LEVEL]
        noise, speech = by_level[len(by_level) // 10], by_level[len(by_level) * 49 // 50]
        threshold = max(_NOISE_FACTOR * min(noise, _MAX_NOISE_LEVEL), _ECHO_FACTOR * speech)
        loud += [level > threshold for level in levels[start : start + _WINDOW_FRAMES]]
    return ((start, end) for is_loud, start, end in _runs(loud) if is_loud)


def _join_words(runs: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join two runs if the gap between them is shorter than a pause, and remove clicks."""
    joined: list[tuple[int, int, bool]] = []
    for start, end in runs:
        is_voice = end - start >= _MIN_VOICE_FRAMES
        if joined and start - joined[-1][1] < _MIN_PAUSE_FRAMES:
            joined[-1] = (joined[-1][0], end, joined[-1][2] or is_voice)
        else:
            joined.append((start, end, is_voice))
    return [(start, end) for start, end, is_voice in joined if is_voice]


def _runs(flags: Sequence[bool]) -> Iterator[tuple[bool, int, int]]:
    """Yield each run of equal flags as a tuple (flag, start index, end index)."""
    end = 0
    for flag, run in groupby(flags):
        start, end = end, end + len(list(run))
        yield flag, start, end


def _smooth(levels: Sequence[float]) -> list[float]:
    """For each level, return the weighted sum of the level and two neighbors on each side."""
    padded = [0.0, 0.0, *levels, 0.0, 0.0]
    return [
        a + 2 * b + 3 * c + 2 * d + e
        for a, b, c, d, e in zip(
            padded, padded[1:], padded[2:], padded[3:], padded[4:], strict=False
        )
    ]


def _count_syllables(levels: Sequence[float]) -> int:
    """Return how many times the level starts to rise, or 1 if it never does."""
    count, is_rising, extreme = 0, False, levels[0]
    for level in levels:
        if is_rising and level * _SYLLABLE_FACTOR < extreme:
            is_rising, extreme = False, level
        elif not is_rising and level > extreme * _SYLLABLE_FACTOR:
            is_rising, extreme, count = True, level, count + 1
        else:
            extreme = max(extreme, level) if is_rising else min(extreme, level)
    return max(count, 1)


def _seconds(frames: int) -> float:
    return frames * _FRAME_SAMPLES / SAMPLE_RATE
