"""Computes when each sample was recorded, and how long the parts of a recording should be."""

from itertools import count
from math import inf
from typing import Any

from handler.recordings.speech_activity import SAMPLE_RATE

_CLOCK_CHECK_FRAMES = 50
# The length of each of the last 8 parts is the length of the previous part times this ratio. This
# reduces the time to transcribe a one-hour recording by a seventh. No part is shorter than half of
# the longest part.
_SHORTER_PARTS = 8
_SHORTER_RATIO = 0.93
# Smaller differences are not gaps: timestamps are rounded to milliseconds, and recorders deliver
# some frames late.
_MIN_GAP_SECONDS = 0.1


class TimelineBuilder:
    """Builds the timeline, which contains the time at which each sample was recorded.

    A recording can have gaps, so the time of a sample cannot be computed from its index alone.
    `start_seconds` is the timestamp at which the recording begins. Timestamps later than
    `max_seconds` are ignored.
    """

    def __init__(self, start_seconds: float, max_seconds: float) -> None:
        self._start_seconds = start_seconds
        self._max_seconds = max_seconds
        self._decoded_seconds = 0.0
        self._frames = self._pts = self._step = 0
        # Pairs of (sample index, seconds from the beginning). Each applies up to the next pair.
        self.anchors: list[tuple[int, float]] = []

    def add(self, frame: Any) -> None:
        pts = frame.pts
        if pts is not None:
            step, self._pts = pts - self._pts, pts
            # For speed, check only some of the frames while the step between them stays the same.
            if step != self._step or self._frames % _CLOCK_CHECK_FRAMES == 0:
                self._step = step
                self._check_clock(frame.time)
            self._frames += 1
        self._decoded_seconds += frame.samples / frame.sample_rate

    def _check_clock(self, timestamp: float) -> None:
        # In concatenated recordings, the timestamps of each recording start at zero again.
        time = max(timestamp - self._start_seconds, self._decoded_seconds)
        if time > self._max_seconds:  # a damaged or forged timestamp, not a gap
            return
        anchor_sample, anchor_time = self.anchors[-1] if self.anchors else (0, inf)
        expected_time = anchor_time + self._decoded_seconds - anchor_sample / SAMPLE_RATE
        if abs(expected_time - time) > _MIN_GAP_SECONDS:
            self.anchors.append((round(self._decoded_seconds * SAMPLE_RATE), time))

    def part_timeline(self, start: int, samples: int) -> list[tuple[int, float]]:
        """Return the anchors of the part that begins at the sample `start`.

        The sample indexes in the result are relative to the beginning of the part.
        """
        anchors = self.anchors or [(0, 0.0)]
        first = max((anchor for anchor in anchors if anchor[0] <= start), default=anchors[0])
        inside = [
            (sample - start, time) for sample, time in anchors if start < sample < start + samples
        ]
        return [(0, first[1] + (start - first[0]) / SAMPLE_RATE), *inside]


def part_lengths(seconds: float, max_part_seconds: float) -> list[float]:
    """Return the target lengths, in seconds, of the parts of a recording that is `seconds` long.

    All parts have the same length, except the last few: each of them is shorter than the part
    before it. The first parts are transcribed while the last ones are still being cut. Because the
    last parts are shorter, all transcripts are ready at about the same time.
    """
    for parts in count(max(int(seconds / max_part_seconds), 1)):
        equal = max(parts - _SHORTER_PARTS, 1)
        shorter = [_SHORTER_RATIO**number for number in range(1, parts - equal + 1)]
        shares = [1.0] * equal + shorter
        if seconds <= max_part_seconds * sum(shares):
            return [seconds * share / sum(shares) for share in shares]
    raise AssertionError("unreachable, because each part gets shorter if there are more parts")
