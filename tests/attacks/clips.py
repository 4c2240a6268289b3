"""Generate clips of speech that are all different.

They are 16 kHz WAV files, so that the worker's resampling does not change their samples.
"""

import io
import wave
from functools import cache

from tests.samples import asset, wav

_RATE = 16_000


def clip(seconds, rng):
    """Return `seconds` of speech from a random start. The speech repeats if it is too short."""
    pcm, size = _speech(), 2 * round(seconds * _RATE)
    start = 2 * rng.randrange(len(pcm) // 4)
    return wav((pcm[start:] + pcm * (1 + size // len(pcm)))[:size])


@cache
def _speech():
    """Return 44 seconds of PCM at 16 kHz: every third sample of a recording at 48 kHz."""
    with wave.open(io.BytesIO(asset("two_cities.wav"))) as source:
        return memoryview(source.readframes(source.getnframes())).cast("h")[::3].tobytes()
