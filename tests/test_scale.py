"""benchmarks/scale.py: the simulation against what can be worked out by hand."""

import pytest

from benchmarks.scale import PARTS, System, shares, simulated

PART = 10.5  # seconds


def test_one_recording_takes_as_long_as_its_cut_and_its_last_part():
    made = simulated(System(16), [0.0])
    assert made.turnaround == pytest.approx(8 + PART)
    assert made.age == 0


def test_more_parts_than_transcribers_wait_for_them():
    made = simulated(System(2, cut_seconds=0), [0.0])
    assert made.turnaround == pytest.approx(PARTS / 2 * PART)
    assert made.age == pytest.approx((PARTS / 2 - 1) * PART)


def test_the_upstreams_limit_is_what_many_transcribers_can_use():
    made = simulated(System(1000, 60, cut_seconds=0), [0.0] * 100)
    assert made.parts_an_hour == pytest.approx(3600, rel=0.02)
    assert made.dollars > 10 * simulated(System(1000, cut_seconds=0), [0.0] * 100).dollars


@pytest.mark.parametrize(
    ("system", "fullest"),
    [
        (System(16), "transcribers (`concurrency`)"),
        (System(400, 500), "the upstream's limit"),
        (System(1000, cut_seconds=100), "polls at the gateway (`throttle`)"),
    ],
)
def test_the_limit_that_is_used_most_is_named(system, fullest):
    used = shares(system, 10_000)
    assert max(used, key=used.get) == fullest
    assert used[fullest] > 1
