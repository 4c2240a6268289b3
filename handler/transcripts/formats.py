"""The formats for transcripts. To add a format, write a renderer and an entry in FORMATS."""

from collections.abc import Callable
from dataclasses import dataclass

from handler.transcripts.subtitles import srt, vtt
from handler.transcripts.transcript import Transcript


@dataclass(frozen=True)
class Format:
    """A response format for transcripts.

    `is_timed` is true if the format requires segment timestamps. `render` returns the transcript as
    text. It is None for JSON formats, because each route builds its own JSON.
    """

    is_timed: bool = False
    render: Callable[[Transcript], str] | None = None


FORMATS = {
    "json": Format(),
    # OpenAI's response also ends with a newline.
    "text": Format(render=lambda transcript: f"{transcript.text}\n"),
    "srt": Format(is_timed=True, render=lambda transcript: srt(transcript.segments)),
    "vtt": Format(is_timed=True, render=lambda transcript: vtt(transcript.segments)),
    "verbose_json": Format(is_timed=True),
}
TIMED_FORMATS = {name for name, response_format in FORMATS.items() if response_format.is_timed}


def render(transcript: Transcript, format_name: str) -> str | None:
    """Return the transcript as text in the format, or None if the format is JSON or unknown."""
    response_format = FORMATS.get(format_name)
    if not response_format or not response_format.render:
        return None
    return response_format.render(transcript)
