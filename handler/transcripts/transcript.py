"""Transcripts of recordings, their segments, and the conversion to and from JSON."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, Self

from handler.aws.items import known_fields


class WordTime(NamedTuple):
    """A word of a segment. `start` and `end` are in seconds from the beginning of the recording."""

    text: str
    start: float
    end: float

    def within(self, segment: "Segment") -> "WordTime":
        """Return the word, with its times moved into the segment if they are outside."""
        start = min(max(self.start, segment.start), segment.end)
        return WordTime(self.text, start, min(max(self.end, start), segment.end))


@dataclass(frozen=True)
class Segment:
    """A segment of a transcript, with timestamps.

    `start` and `end` are in seconds from the beginning of the recording. `words` is empty if the
    times of the words are not known.
    """

    start: float
    end: float
    text: str
    speaker: str | None = None
    words: tuple[WordTime, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """The transcript of one recording, and the model that created it.

    `segments` is empty unless timestamps were requested. `duration` and `seconds_billed` are in
    seconds. `cut_off` is true if the transcript is about as long as the model allows, so words may
    be missing at the end. `answer` is the body of the upstream's response without its words, in the
    response format `answer_format`. The OpenAI-compatible routes return it. `aligned` contains
    "segment" or "word" if Steno computed the timestamps of the segments or words. It is None if
    this is not known. `languages` contains the codes of all languages that the model detected, if
    it returns them.
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
    aligned: tuple[str, ...] | None = None
    languages: tuple[str, ...] = ()

    @property
    def lacks_words(self) -> bool:
        """Return whether the times of the words in any segment are not known."""
        return any(segment.text.strip() and not segment.words for segment in self.segments)

    def without_words(self) -> Self:
        """Return the transcript without the times of its words."""
        return replace(self, segments=tuple(replace(part, words=()) for part in self.segments))

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, stored: bytes) -> Self:
        fields = json.loads(stored)
        segments = segments_from_json(fields["segments"])
        aligned = fields.get("aligned")
        tuples = {
            "segments": segments,
            "aligned": None if aligned is None else tuple(aligned),
            "languages": tuple(fields.get("languages", ())),
        }
        return cls(**{**known_fields(cls, fields), **tuples})


def segments_from_json(stored: Iterable[Mapping[str, Any]]) -> tuple[Segment, ...]:
    """Return the segments from the JSON of a stored transcript or part."""
    return tuple(map(_segment_from_json, stored))


def _segment_from_json(stored: Mapping[str, Any]) -> Segment:
    words = tuple(WordTime(*word) for word in stored.get("words", ()))
    return Segment(**{**known_fields(Segment, stored), "words": words})
