"""Tests of speech_activity.py: pauses are detected, and speech is never classified as silence."""

import random
import struct
from array import array

import numpy as np
import pytest

from handler.recordings.speech_activity import SpeechDetector, find_quietest_sample
from infra.local.recognizer import decode
from tests.samples import asset

RATE = 16_000


def tone(*levels):
    """Return 16-bit samples, with 0.1 s at each of the given amplitudes."""
    return b"".join(struct.pack("<1600h", *([level, -level] * 800)) for level in levels)


def test_the_cut_is_in_the_middle_of_the_longest_pause():
    assert find_quietest_sample(
        tone(*[9000] * 20, 0, 0, 0, *[9000] * 20, *[0] * 9, *[9000] * 20)
    ) == pytest.approx((43 + 4.5) * 1600, abs=400)


def test_without_a_pause_the_cut_is_at_the_quietest_moment():
    assert find_quietest_sample(tone(*[9000] * 20, 4000, *[9000] * 20)) == pytest.approx(
        20.5 * 1600, abs=1600
    )


def intervals(pcm, piece=None):
    """Pass 16-bit samples to the detector, all at once or in pieces of `piece` bytes."""
    loudness = SpeechDetector()
    for at in range(0, len(pcm), piece or len(pcm) or 1):
        loudness.add(pcm[at : at + (piece or len(pcm))])
    return loudness.intervals()


def samples(wave):
    return np.clip(np.round(wave * 32767), -32768, 32767).astype("<i2").tobytes()


def noise(slope=0.0, loudness=0.01, seconds=10, seed=1):
    """Return noise with the peak amplitude `loudness`.

    A `slope` of 0 produces white noise, 0.5 produces pink noise, and 1 produces brown noise.
    """
    white = np.random.default_rng(seed).standard_normal(RATE * seconds)
    spectrum = np.fft.rfft(white)
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** slope
    wave = np.fft.irfft(spectrum, len(white))
    return wave / np.abs(wave).max() * loudness


def clicks(number):
    wave, rng = np.zeros(RATE * 10), random.Random(1)
    for _ in range(number):
        at = rng.randrange(RATE * 9)
        wave[at : at + 80] = 0.5 * np.random.default_rng(at).standard_normal(80)
    return wave


def babble(*parts):
    """Return speech-like noise with a faint hiss. `parts` are (seconds, loudness) pairs."""
    rng = np.random.default_rng(3)
    wave = [
        rng.standard_normal(round(RATE * seconds)) * (0.01 * loudness + 0.00003)
        for seconds, loudness in parts
    ]
    return samples(np.concatenate(wave))


TIME = np.arange(RATE * 10) / RATE
SILENCES = {
    "digital": np.zeros(RATE * 10),
    "dither": np.random.default_rng(1).integers(-1, 2, RATE * 10) / 32767,
    "a faint hiss": noise(loudness=0.003),
    "a hiss": noise(loudness=0.03),
    "a hum": 0.03 * np.sin(2 * np.pi * 50 * TIME),
    "a hum with its harmonics": 0.02
    * sum(np.sin(2 * np.pi * 50 * k * TIME) / k for k in range(1, 8)),
    "room tone": noise(0.5, 0.02),
    "a rumble": noise(1, 0.1),
    "a fan": noise(0.5, 0.02) * (1 + 0.2 * np.sin(2 * np.pi * 0.3 * TIME)),
    "a click": clicks(1),
    "clicks in a hiss": clicks(5) + noise(loudness=0.003),
    "a constant": np.full(RATE * 10, 0.05) + noise(loudness=0.0003),
}


@pytest.mark.parametrize("name", SILENCES)
def test_every_kind_of_silence_has_no_speech(name):
    assert intervals(samples(SILENCES[name])) == []


@pytest.mark.parametrize("peak", [1, 0.1, 0.01])
@pytest.mark.parametrize("source", ["two_cities.wav", "beckett.wav", "endgame_nagg_nell.wav"])
@pytest.mark.parametrize("room", [0, 0.0005])
def test_speech_is_detected_down_to_40_db_below_full_scale(source, peak, room):
    """The test uses windows of 10 s, with and without room noise."""
    whole = decode(asset(source), "wav")
    whole = whole / np.abs(whole).max() * peak
    for start in range(0, len(whole) - 10 * RATE + 1, 5 * RATE):
        window = whole[start : start + 10 * RATE]
        assert intervals(samples(window + noise(loudness=room, seed=start)))


@pytest.mark.parametrize("word", [(0.0, 0.9), (1.6, 0.9), (8.0, 1.5)])
def test_a_single_word_is_speech(word):
    """The recording contains one word and almost no pause."""
    at, seconds = word
    whole = decode(asset("beckett.wav"), "wav")
    assert intervals(samples(whole[round(at * RATE) : round((at + seconds) * RATE)]))


def test_very_short_recordings_are_accepted():
    assert intervals(b"") == []
    assert intervals(bytes(100)) == []
    (interval,) = intervals(array("h", [900, -900] * 20).tobytes())
    assert (interval.start, interval.end) == (0, 0.0025)


def test_an_interval_ends_at_a_pause_but_not_at_a_gap_within_a_word():
    found = intervals(babble((0.5, 0), (1.0, 9), (0.1, 0), (0.6, 9), (0.5, 0), (0.4, 9), (0.5, 0)))
    assert [(interval.start, interval.end) for interval in found] == [
        pytest.approx((0.5, 2.2), abs=0.04),
        pytest.approx((2.7, 3.1), abs=0.04),
    ]


def test_an_interval_has_its_number_of_syllables():
    beats = [part for _ in range(7) for part in ((0.12, 9), (0.08, 2))]
    (interval,) = intervals(babble((0.5, 0), *beats, (0.5, 0)))
    assert interval.syllables == 7


def test_the_result_does_not_depend_on_the_piece_size():
    pcm = asset("two_cities.wav")[44:]
    assert intervals(pcm, 1022) == intervals(pcm, 96_000) == intervals(pcm)


def test_whispers_after_loud_speech_are_detected():
    whole = decode(asset("two_cities.wav"), "wav")[: 30 * RATE]
    faint = decode(asset("beckett.wav"), "wav") * 0.02
    found = intervals(samples(np.concatenate([whole, faint, faint, faint])))
    assert sum(interval.start > 32 for interval in found) > 6
