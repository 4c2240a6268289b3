"""Tests of benchmarks/scale.py: simulated results match results that were calculated by hand."""

import pytest

from benchmarks.scale import PARTS, System, limit_usage, simulate

PART = 10.5  # seconds to transcribe one part


def test_one_recording_takes_the_time_of_its_cut_and_its_last_part():
    result = simulate(System(16), [0.0])
    assert result.turnaround == pytest.approx(8 + PART)
    assert result.max_wait == 0


def test_parts_wait_if_there_are_fewer_transcribers():
    result = simulate(System(2, cut_seconds=0), [0.0])
    assert result.turnaround == pytest.approx(PARTS / 2 * PART)
    assert result.max_wait == pytest.approx((PARTS / 2 - 1) * PART)


def test_many_transcribers_are_bounded_by_the_upstream_limit():
    result = simulate(System(1000, 60, cut_seconds=0), [0.0] * 100)
    assert result.parts_per_hour == pytest.approx(3600, rel=0.02)
    assert result.dollars > 10 * simulate(System(1000, cut_seconds=0), [0.0] * 100).dollars


@pytest.mark.parametrize(
    ("system", "fullest"),
    [
        (System(16), "transcribers (`concurrency`)"),
        (System(400, 500), "upstream rate limit"),
        (System(1000, cut_seconds=100), "status polls (`throttle`)"),
    ],
)
def test_the_limit_with_the_highest_usage_is_reported(system, fullest):
    used = limit_usage(system, 10_000)
    assert max(used, key=used.get) == fullest
    assert used[fullest] > 1
