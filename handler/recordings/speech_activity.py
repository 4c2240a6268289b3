"""Where somebody speaks in a recording, and where nobody does: told by how loud it is, without a model.

Samples are 16 bit mono at 16 kHz. A level says how far the sound swings from one moment to the next within a frame:
what is slower than speech, as hum and rumble, hardly swings.
"""

from array import array
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import dist, sqrt
from typing import NamedTuple

SAMPLE_RATE = 16_000
_FRAME = SAMPLE_RATE // 50  # samples: 20 ms
_SAMPLE_BYTES = 2
_STEP = 8  # of so many samples one is looked at
_SWINGS = _FRAME // _STEP - 1
_SCALE = sqrt(_SWINGS)

_LONG_FRAMES = 10  # a pause to cut in
_PAUSE_FRAMES = 8  # shorter ones are within words: a `t` holds its breath for 100 ms
_VOICED_FRAMES = 4  # 80 ms: clicks are shorter, syllables are not
_WINDOW = 500  # frames, that are judged by themselves and as many around them
_RISE = (
    2.5  # 8 dB: noises of any colour stay within 6 dB of their quietest tenth; speech rises by 20
)
_FAINTEST = 3.2  # 82 dB below full
_LOUDEST_NOISE = 325.0  # 42 dB below full: what is louder all the time is heard
_BEHIND = 0.025  # 32 dB below the loudest fiftieth, there is no speaker, but his room
_DIP = 1.2  # 1.6 dB, between two syllables


class SpeechInterval(NamedTuple):
    """Somebody may be speaking, without a pause, from `start` to `end` in seconds; in about so many `syllables`."""

    start: float
    end: float
    syllables: int


class Loudness:
    """The levels of what is being written, in any pieces."""

    def __init__(self) -> None:
        self._levels: list[float] = []
        self._rest = b""

    def add(self, samples: bytes) -> None:
        heard = self._rest + samples
        whole = len(heard) // _SAMPLE_BYTES // _FRAME * _FRAME * _SAMPLE_BYTES
        self._levels += _levels(heard[:whole])
        self._rest = heard[whole:]

    def intervals(self) -> list[SpeechInterval]:
        """Where anybody may be speaking: nowhere in silence, hiss, hum, room tone and clicks.

        In doubt somewhere: a word that is not sent is lost, a noise that is sent costs little.
        """
        if not self._levels:  # of so short a sound nothing can be told
            return (
                [SpeechInterval(0.0, len(self._rest) / _SAMPLE_BYTES / SAMPLE_RATE, 1)]
                if any(self._rest)
                else []
            )
        smooth = _smoothed(self._levels)
        return [
            SpeechInterval(_seconds(first), _seconds(last), _syllables(smooth[first:last]))
            for first, last in _joined(_loud_runs(self._levels))
        ]


def quietest(samples: bytes | bytearray) -> int:
    """The sample to cut at: the middle of the longest pause, or the quietest moment where nobody pauses."""
    heard = array("h", bytes(samples))
    levels = [
        sum(map(abs, heard[start : start + _FRAME : 2]))
        for start in range(0, len(heard) - _FRAME + 1, _FRAME)
    ]
    by_level = sorted(levels)
    floor, speech = by_level[len(levels) // 10], by_level[len(levels) * 9 // 10]
    quiet = floor + (speech - floor) // 8
    runs = [
        (last - first, -abs((first + last) // 2 - len(levels) // 2), (first + last) // 2)
        for is_pause, first, last in _runs([level <= quiet for level in levels])
        if is_pause and last - first >= _LONG_FRAMES
    ]
    frame = max(runs)[2] if runs else levels.index(by_level[0])
    return frame * _FRAME + _FRAME // 2


def _levels(samples: bytes) -> list[float]:
    heard = array("h", samples)[::_STEP]
    width = _SWINGS + 1
    return [
        dist(heard[at + 1 : at + width], heard[at : at + _SWINGS]) / _SCALE
        for at in range(0, len(heard), width)
    ]


def _loud_runs(levels: Sequence[float]) -> Iterator[tuple[int, int]]:
    """The frames, from and up to, that are loud for where they are."""
    loud: list[bool] = []
    for at in range(0, len(levels), _WINDOW):
        # Digital silence is no room: what recorders and editors fill in tells nothing of the noise elsewhere.
        around = sorted(
            filter(_FAINTEST.__lt__, levels[max(at - _WINDOW // 2, 0) : at + _WINDOW * 3 // 2])
        )
        around = around or [_FAINTEST]
        floor, speech = around[len(around) // 10], around[len(around) * 49 // 50]
        least = max(_RISE * min(floor, _LOUDEST_NOISE), _BEHIND * speech)
        loud += [level > least for level in levels[at : at + _WINDOW]]
    return ((first, last) for is_loud, first, last in _runs(loud) if is_loud)


def _joined(runs: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    """The runs without the gaps within words; those in which there is no voice, but clicks alone, left out."""
    joined: list[tuple[int, int, bool]] = []
    for first, last in runs:
        is_voice = last - first >= _VOICED_FRAMES
        if joined and first - joined[-1][1] < _PAUSE_FRAMES:
            joined[-1] = (joined[-1][0], last, joined[-1][2] or is_voice)
        else:
            joined.append((first, last, is_voice))
    return [(first, last) for first, last, is_voice in joined if is_voice]


def _runs(flags: Sequence[bool]) -> Iterator[tuple[bool, int, int]]:
    at = 0
    for flag, run in groupby(flags):
        first, at = at, at + len(list(run))
        yield flag, first, at


def _smoothed(levels: Sequence[float]) -> list[float]:
    """Over five frames, the nearest counting most."""
    padded = [0.0, 0.0, *levels, 0.0, 0.0]
    return [
        a + 2 * b + 3 * c + 2 * d + e
        for a, b, c, d, e in zip(
            padded, padded[1:], padded[2:], padded[3:], padded[4:], strict=False
        )
    ]


def _syllables(levels: Sequence[float]) -> int:
    """How often it grows loud, and less again."""
    count, rising, turn = 0, False, levels[0]
    for level in levels:
        if rising and level * _DIP < turn:
            rising, turn = False, level
        elif not rising and level > turn * _DIP:
            rising, turn, count = True, level, count + 1
        else:
            turn = max(turn, level) if rising else min(turn, level)
    return max(count, 1)


def _seconds(frames: int) -> float:
    return frames * _FRAME / SAMPLE_RATE
