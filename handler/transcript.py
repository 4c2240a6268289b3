"""What was said: a transcript, its timed segments, and the texts made of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Segment:
    """A stretch of speech; `start` and `end` in seconds from the recording's beginning."""

    start: float
    end: float
    text: str
    speaker: str | None = None


@dataclass(frozen=True)
class Transcript:
    """What one recording says, and which model heard it.

    `answer` is the upstream's own body in the format `answer_format`, for clients that speak its contract.
    `segments` is empty unless times were asked for.
    """

    text: str
    model: str
    segments: tuple[Segment, ...] = ()
    language: str | None = None
    duration: float | None = None
    answer: dict[str, Any] = field(default_factory=dict)
    answer_format: str = "json"


def srt(segments: Iterable[Segment]) -> str:
    """The segments as SubRip subtitles."""
    cues = (
        f"{number}\n{_clock(segment.start, ',')} --> {_clock(segment.end, ',')}\n{segment.text.strip()}\n"
        for number, segment in enumerate(segments, start=1)
    )
    return "\n".join(cues)


def vtt(segments: Iterable[Segment]) -> str:
    """The segments as WebVTT subtitles."""
    cues = (
        f"{_clock(segment.start, '.')} --> {_clock(segment.end, '.')}\n{_escape(segment.text.strip())}\n"
        for segment in segments
    )
    return "\n".join(["WEBVTT\n", *cues])


def _clock(seconds: float, decimal_mark: str) -> str:
    milliseconds = round(max(seconds, 0) * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{decimal_mark}{milliseconds % 1000:03}"


def _escape(text: str) -> str:
    """WebVTT reads `<` and `&` as markup, and `-->` as a cue's times."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
