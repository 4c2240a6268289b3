"""Transcripts of recordings, their segments, and the conversion to and from JSON."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from handler.aws.items import known_fields


@dataclass(frozen=True)
class Segment:
    """A segment of a transcript, with timestamps.

    `start` and `end` are in seconds from the beginning of the recording.
    """

    start: float
    end: float
    text: str
    speaker: str | None = None


@dataclass(frozen=True)
class Transcript:
    """The transcript of one recording, and the model that created it.

    `segments` is empty unless timestamps were requested. `duration` and `seconds_billed` are in
    seconds. `cut_off` is true if the transcript is about as long as the model allows, so words may
    be missing at the end. `answer` is the body of the upstream's response, in the response format
    `answer_format`. The OpenAI-compatible routes return it.
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
        fields = json.loads(stored)
        segments = segments_from_json(fields["segments"])
        return cls(**{**known_fields(cls, fields), "segments": segments})


def segments_from_json(stored: Iterable[Mapping[str, Any]]) -> tuple[Segment, ...]:
    """Return the segments from the JSON of a stored transcript or part."""
    return tuple(Segment(**known_fields(Segment, segment)) for segment in stored)
