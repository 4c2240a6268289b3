"""A section of a recording, and the time at which each of its samples was recorded."""

from dataclasses import dataclass

from handler.recordings.speech_activity import SAMPLE_RATE, SpeechInterval

Timeline = tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a recording that has been decoded to 16 kHz mono.

    `start` is the index of the section's first sample in the recording, and `samples` is the number
    of samples in the section. `timeline` contains pairs of (index of a sample in this section,
    seconds from the beginning of the recording). Each pair applies up to the next one. `speech`
    contains the intervals that may contain speech, in seconds from the beginning of the section. It
    is empty if no speech was detected.
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
        """Return the timeline of `inner`, which is a section within this section.

        `inner.start` is relative to the start of this section. The times in the result are seconds
        from the beginning of the recording.
        """
        shifted = [(sample - inner.start, time) for sample, time in self.timeline]
        inside = [(sample, time) for sample, time in shifted if 0 < sample < inner.samples]
        return ((0, self.at(inner.start / SAMPLE_RATE)), *inside)
