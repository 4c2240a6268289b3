"""Synthesize speech with eSpeak NG, which reports the time at which each word begins.

The package `espeakng-loader` contains eSpeak NG (GPL). Only benchmarks use it.
"""

import ctypes
from functools import cache
from typing import Any

import espeakng_loader

from benchmarks.times import wav

# These values and the fields of _Event are from
# https://github.com/espeak-ng/espeak-ng/blob/1.52.0/src/include/espeak-ng/speak_lib.h
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_EVENT_LIST_TERMINATED, _EVENT_WORD = 0, 1
_POSITION_CHARACTER = 1
_CHARACTERS_UTF8 = 1
_RATE_PARAMETER = 1  # words per minute


class _Event(ctypes.Structure):
    """An event. `text_position` counts characters from 1, and `audio_position` milliseconds."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def synthesize(text: str, language: str, words_per_minute: int) -> tuple[bytes, dict[int, float]]:
    """Return the speech as a WAV file, and the start time of each word in seconds.

    The keys of the times are offsets in `text`. eSpeak NG reports no time for some short words that
    it joins with the word before them.
    """
    library, rate = _load()
    pcm: list[bytes] = []
    starts: dict[int, float] = {}

    def receive(samples: Any, count: int, events: Any) -> int:
        if samples and count:
            pcm.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while events[index].type != _EVENT_LIST_TERMINATED:
            if events[index].type == _EVENT_WORD:
                starts.setdefault(
                    events[index].text_position - 1, events[index].audio_position / 1000
                )
            index += 1
        return 0  # continue

    callback = _Callback(receive)
    library.espeak_SetSynthCallback(callback)
    assert library.espeak_SetVoiceByName(language.encode()) == 0
    assert library.espeak_SetParameter(_RATE_PARAMETER, words_per_minute, 0) == 0
    content = text.encode()
    status = library.espeak_Synth(
        content, len(content) + 1, 0, _POSITION_CHARACTER, 0, _CHARACTERS_UTF8, None, None
    )
    assert status == 0
    return wav(b"".join(pcm), rate), starts


@cache
def _load() -> tuple[Any, int]:
    """Return the initialized library and its sample rate."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = espeakng_loader.get_data_path().encode()
    rate = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data, 0)
    assert rate > 0
    return library, rate
