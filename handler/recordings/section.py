"""A section of a recording: which samples it has, and at which time each of them was recorded."""

from dataclasses import dataclass

from handler.recordings.speech_activity import SAMPLE_RATE, SpeechInterval

Timeline = tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """16 kHz mono sound: `samples` samples, the first of which is the recording's sample `start`.

    `timeline` has pairs of (sample in this section, seconds from the recording's beginning), each
    valid up to the next. `speech` has the intervals in which somebody may be speaking, in seconds
    from the section's beginning; it is empty if nobody speaks.
    """

    number: int
    start: int
    samples: int
    timeline: Timeline
    speech: tuple[SpeechInterval, ...] = ()

    @property
    def seconds(self) -> float:
        return self.samples / SAMPLE_RATE

    def at(self, seconds: float) -> float:
        """Return the recording's time, in seconds, of a moment of this section."""
        sample = round(seconds * SAMPLE_RATE)
        first, time = max(
            (anchor for anchor in self.timeline if anchor[0] <= sample), default=self.timeline[0]
        )
        return time + (sample - first) / SAMPLE_RATE

    def timeline_of(self, inner: "Section") -> Timeline:
        """Return the timeline of a section of this section, in the recording's time."""
        moved = [(sample - inner.start, time) for sample, time in self.timeline]
        inside = [(sample, time) for sample, time in moved if 0 < sample < inner.samples]
        return ((0, self.at(inner.start / SAMPLE_RATE)), *inside)
