"""Generate speech clips that are all different.

The clips are 16 kHz WAV files. The worker therefore does not need to resample them.
"""

import io
import wave
from functools import cache

from tests.samples import asset, wav

_RATE = 16_000


def clip(seconds, rng):
    """Return `seconds` of speech from a random position. Speech that is too short is repeated."""
    pcm, size = _speech(), 2 * round(seconds * _RATE)
    start = 2 * rng.randrange(len(pcm) // 4)
    return wav((pcm[start:] + pcm * (1 + size // len(pcm)))[:size])


@cache
def _speech():
    """Return 44 seconds of speech as 16 kHz PCM: every third sample of a 48 kHz recording."""
    with wave.open(io.BytesIO(asset("two_cities.wav"))) as source:
        return memoryview(source.readframes(source.getnframes())).cast("h")[::3].tobytes()
