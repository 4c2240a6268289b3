"""The formats in which a transcript can be had. To add one, write its renderer, and add it to this table."""

from collections.abc import Callable
from dataclasses import dataclass

from handler.transcripts.subtitles import srt, vtt
from handler.transcripts.transcript import Transcript


@dataclass(frozen=True)
class Format:
    """`is_timed` formats need the times of segments. `render` is None for JSON, which each route shapes itself."""

    is_timed: bool = False
    render: Callable[[Transcript], str] | None = None


FORMATS = {
    "json": Format(),
    "text": Format(render=lambda transcript: f"{transcript.text}\n"),  # as OpenAI's text ends
    "srt": Format(is_timed=True, render=lambda transcript: srt(transcript.segments)),
    "vtt": Format(is_timed=True, render=lambda transcript: vtt(transcript.segments)),
    "verbose_json": Format(is_timed=True),
}
TIMED_FORMATS = {name for name, known in FORMATS.items() if known.is_timed}


def rendered(transcript: Transcript, name: str) -> str | None:
    """Return the transcript as text in that format; None if the format is JSON."""
    known = FORMATS.get(name)
    return known.render(transcript) if known and known.render else None
