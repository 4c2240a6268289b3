"""What was said: a transcript, and its timed segments."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from handler.aws.items import known_fields


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
        return cls(**{**known_fields(cls, told), "segments": stored_segments(told["segments"])})


def stored_segments(stored: Iterable[Mapping[str, Any]]) -> tuple[Segment, ...]:
    """Return the segments in the form in which they are kept with a transcript or with a part."""
    return tuple(Segment(**known_fields(Segment, segment)) for segment in stored)
