"""Where a recording is quiet, and whether anybody speaks in it at all: told by how loud it is, without a model.

Samples are 16 bit mono at 16 kHz.
"""

from array import array
from itertools import groupby
from operator import sub

FRAME = 320  # samples: 20 ms
_STEP = 8  # of so many samples one is looked at
_PAUSE_FRAMES = 10
_VOICED_FRAMES = 4  # 80 ms: clicks are shorter, syllables are not
_RISE = 2.5  # 8 dB: noises of any colour stay within 6 dB of their quietest tenth; speech rises by 20
_FAINTEST = 2.6  # 82 dB below full
_LOUDEST_NOISE = 260.0  # 42 dB below full: what is louder all the time is heard


def quietest(samples: bytes | bytearray) -> int:
    """The sample to cut at: the middle of the longest pause, or the quietest moment where nobody pauses."""
    heard = array("h", bytes(samples))
    levels = [sum(map(abs, heard[start : start + FRAME : 2])) for start in range(0, len(heard) - FRAME + 1, FRAME)]
    by_level = sorted(levels)
    floor, speech = by_level[len(levels) // 10], by_level[len(levels) * 9 // 10]
    quiet = floor + (speech - floor) // 8
    runs, at = [], 0
    for is_pause, run in groupby(levels, key=lambda level: level <= quiet):
        length = len(list(run))
        if is_pause and length >= _PAUSE_FRAMES:
            middle = at + length // 2
            runs.append((length, -abs(middle - len(levels) // 2), middle))
        at += length
    frame = max(runs)[2] if runs else levels.index(by_level[0])
    return frame * FRAME + FRAME // 2


def has_speech(samples: bytes | bytearray) -> bool:
    """Whether somebody may be speaking in some seconds of sound: no for silence, hiss, hum, room tone and clicks.

    In doubt, yes: a word that is not sent is lost, a noise that is sent costs little.
    """
    heard = array("h", bytes(samples))
    levels = [_swing(heard[at : at + FRAME + _STEP : _STEP]) for at in range(0, len(heard) - FRAME - _STEP + 1, FRAME)]
    if not levels:
        return any(heard)
    floor = sorted(levels)[len(levels) // 10]
    loud = _RISE * min(max(floor, _FAINTEST), _LOUDEST_NOISE)
    return any(
        is_loud and len(list(run)) >= _VOICED_FRAMES for is_loud, run in groupby(levels, key=lambda level: level > loud)
    )


def _swing(samples: "array[int]") -> float:
    """How far the sound swings from each sample to the next: what is slower than speech, as hum and rumble, hardly."""
    swings: int = sum(map(abs, map(sub, samples[1:], samples)))
    return swings / (len(samples) - 1)
