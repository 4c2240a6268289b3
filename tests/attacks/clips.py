"""Stretches of speech that are all different, as 16 kHz WAV files: the worker makes the same samples of them."""

import io
import wave
from functools import cache

from tests.samples import asset, wav

_RATE = 16_000


def clip(seconds, chance):
    """Speech that begins anywhere, and is repeated where it is too short."""
    pcm, size = _speech(), 2 * round(seconds * _RATE)
    start = 2 * chance.randrange(len(pcm) // 4)
    return wav((pcm[start:] + pcm * (1 + size // len(pcm)))[:size])


@cache
def _speech():
    """Forty-four seconds, every third sample of a recording at 48 kHz."""
    with wave.open(io.BytesIO(asset("two_cities.wav"))) as spoken:
        return memoryview(spoken.readframes(spoken.getnframes())).cast("h")[::3].tobytes()
