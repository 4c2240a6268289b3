"""What was said: a transcript, its timed segments, and the texts made of them."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Self


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
    `segments` is empty unless times were asked for. `cut_off` says that the model's longest answer was reached, or
    nearly, so that words may be missing at the end.
    """

    text: str
    model: str
    segments: tuple[Segment, ...] = ()
    language: str | None = None
    duration: float | None = None
    seconds_billed: float | None = None
    cut_off: bool = False
    answer: dict[str, Any] = field(default_factory=dict)
    answer_format: str = "json"

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, stored: bytes) -> Self:
        told = json.loads(stored)
        return cls(**{**told, "segments": tuple(Segment(**segment) for segment in told["segments"])})


def joined_text(texts: Iterable[str]) -> str:
    """The parts' texts as one; no space comes between two parts of a script that has none."""
    whole = ""
    for text in filter(None, (text.strip() for text in texts)):
        close = whole and _spaceless(whole[-1]) and _spaceless(text[0])
        whole += text if close or not whole else f" {text}"
    return whole


def _spaceless(letter: str) -> bool:
    """Thai, Lao, Khmer and Burmese, kana, Chinese characters, and their punctuation."""
    return any(
        first <= letter <= last
        for first, last in (
            ("\u0e00", "\u0eff"),
            ("\u1000", "\u109f"),
            ("\u1780", "\u17ff"),
            ("\u3000", "\u9fff"),
            ("\uff00", "\uffef"),
        )
    )


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
