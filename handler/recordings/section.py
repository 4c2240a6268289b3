"""A section of a recording: its samples, and the time at which each sample was recorded."""

from dataclasses import dataclass

from handler.recordings.speech_activity import SAMPLE_RATE, SpeechInterval

Timeline = tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a recording that was decoded to 16 kHz mono.

    `start` is the index of its first sample in the recording, and `samples` the number of samples.
    `timeline` has pairs of (sample in this section, seconds from the recording's beginning). Each
    pair is valid up to the next. `speech` has the intervals that may contain speech, in seconds
    from the section's beginning. It is empty if nobody speaks.
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
        """Convert a time in this section to a time in the recording, both in seconds."""
        sample = round(seconds * SAMPLE_RATE)
        anchor_sample, anchor_time = max(
            (anchor for anchor in self.timeline if anchor[0] <= sample), default=self.timeline[0]
        )
        return anchor_time + (sample - anchor_sample) / SAMPLE_RATE

    def timeline_of(self, inner: "Section") -> Timeline:
        """Return the timeline of `inner`, with times in the recording.

        `inner` is a section of this section, and its `start` is counted from this section's start.
        """
        shifted = [(sample - inner.start, time) for sample, time in self.timeline]
        inside = [(sample, time) for sample, time in shifted if 0 < sample < inner.samples]
        return ((0, self.at(inner.start / SAMPLE_RATE)), *inside)
