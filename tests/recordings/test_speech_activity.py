"""speech_activity.py: pauses are found, silence of every kind is recognized, and no speech is taken for silence."""

import random
import struct
from array import array

import numpy as np
import pytest

from handler.recordings.speech_activity import Loudness, quietest
from infra.local.engine import decode
from tests.samples import asset

RATE = 16_000


def tone(*levels):
    """A tenth of a second for each level of loudness."""
    return b"".join(struct.pack("<1600h", *([level, -level] * 800)) for level in levels)


def test_the_cut_is_in_the_middle_of_the_longest_pause():
    assert quietest(
        tone(*[9000] * 20, 0, 0, 0, *[9000] * 20, *[0] * 9, *[9000] * 20)
    ) == pytest.approx((43 + 4.5) * 1600, abs=400)


def test_where_nobody_pauses_the_cut_is_at_the_quietest_moment():
    assert quietest(tone(*[9000] * 20, 4000, *[9000] * 20)) == pytest.approx(20.5 * 1600, abs=1600)


def intervals(heard, piece=None):
    """Where somebody speaks in the samples, heard at once or in pieces of so many bytes."""
    loudness = Loudness()
    for at in range(0, len(heard), piece or len(heard) or 1):
        loudness.add(heard[at : at + (piece or len(heard))])
    return loudness.intervals()


def samples(wave):
    return np.clip(np.round(wave * 32767), -32768, 32767).astype("<i2").tobytes()


def noise(slope=0.0, loudness=0.01, seconds=10, seed=1):
    """White noise at slope 0, pink at 0.5, brown at 1; `loudness` of its peak."""
    white = np.random.default_rng(seed).standard_normal(RATE * seconds)
    spectrum = np.fft.rfft(white)
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** slope
    wave = np.fft.irfft(spectrum, len(white))
    return wave / np.abs(wave).max() * loudness


def clicks(number):
    wave, chance = np.zeros(RATE * 10), random.Random(1)
    for _ in range(number):
        at = chance.randrange(RATE * 9)
        wave[at : at + 80] = 0.5 * np.random.default_rng(at).standard_normal(80)
    return wave


def babble(*parts):
    """Noise of so many seconds and such loudness, one after another, in a faint hiss."""
    chance = np.random.default_rng(3)
    wave = [
        chance.standard_normal(round(RATE * seconds)) * (0.01 * loud + 0.00003)
        for seconds, loud in parts
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
def test_silence_of_every_kind_is_no_speech(name):
    assert intervals(samples(SILENCES[name])) == []


@pytest.mark.parametrize("faintly", [1, 0.1, 0.01])
@pytest.mark.parametrize("source", ["two_cities.wav", "beckett.wav", "endgame_nagg_nell.wav"])
@pytest.mark.parametrize("room", [0, 0.0005])
def test_speech_is_speech_down_to_forty_decibels_below_full(source, faintly, room):
    """Every ten seconds of it, wherever they begin, in a room that is silent or is not."""
    whole = decode(asset(source), "wav")
    whole = whole / np.abs(whole).max() * faintly
    for start in range(0, len(whole) - 10 * RATE + 1, 5 * RATE):
        some = whole[start : start + 10 * RATE]
        assert intervals(samples(some + noise(loudness=room, seed=start)))


@pytest.mark.parametrize("word", [(0.0, 0.9), (1.6, 0.9), (8.0, 1.5)])
def test_one_word_alone_is_speech(word):
    """Cut so tightly that there is hardly a pause to compare it with."""
    at, seconds = word
    whole = decode(asset("beckett.wav"), "wav")
    assert intervals(samples(whole[round(at * RATE) : round((at + seconds) * RATE)]))


def test_next_to_nothing_is_listened_to_as_well():
    assert intervals(b"") == []
    assert intervals(bytes(100)) == []
    (interval,) = intervals(array("h", [900, -900] * 20).tobytes())
    assert (interval.start, interval.end) == (0, 0.0025)


def test_a_stretch_lasts_from_a_pause_to_the_next_over_the_gaps_within_words():
    found = intervals(babble((0.5, 0), (1.0, 9), (0.1, 0), (0.6, 9), (0.5, 0), (0.4, 9), (0.5, 0)))
    assert [(interval.start, interval.end) for interval in found] == [
        pytest.approx((0.5, 2.2), abs=0.04),
        pytest.approx((2.7, 3.1), abs=0.04),
    ]


def test_a_stretch_tells_its_syllables():
    beats = [part for _ in range(7) for part in ((0.12, 9), (0.08, 2))]
    (interval,) = intervals(babble((0.5, 0), *beats, (0.5, 0)))
    assert interval.syllables == 7


def test_how_the_samples_come_makes_no_difference():
    heard = asset("two_cities.wav")[44:]
    assert intervals(heard, 1022) == intervals(heard, 96_000) == intervals(heard)


def test_where_one_speaks_loudly_the_others_whispers_count_in_their_own_seconds():
    whole = decode(asset("two_cities.wav"), "wav")[: 30 * RATE]
    faint = decode(asset("beckett.wav"), "wav") * 0.02
    found = intervals(samples(np.concatenate([whole, faint, faint, faint])))
    assert sum(interval.start > 32 for interval in found) > 6
