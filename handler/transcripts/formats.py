"""The response formats of transcripts. To add one, write its renderer and add it to FORMATS."""

from collections.abc import Callable
from dataclasses import dataclass

from handler.transcripts.subtitles import srt, vtt
from handler.transcripts.transcript import Transcript


@dataclass(frozen=True)
class Format:
    """A response format of transcripts.

    `is_timed` is true if the format needs the times of segments. `render` returns the transcript as
    text. It is None for JSON formats, because each route builds its own JSON.
    """

    is_timed: bool = False
    render: Callable[[Transcript], str] | None = None


FORMATS = {
    "json": Format(),
    # The newline at the end is the same as in OpenAI's response.
    "text": Format(render=lambda transcript: f"{transcript.text}\n"),
    "srt": Format(is_timed=True, render=lambda transcript: srt(transcript.segments)),
    "vtt": Format(is_timed=True, render=lambda transcript: vtt(transcript.segments)),
    "verbose_json": Format(is_timed=True),
}
TIMED_FORMATS = {name for name, response_format in FORMATS.items() if response_format.is_timed}


def render(transcript: Transcript, format_name: str) -> str | None:
    """Return the transcript as text in a format, or None if it is a JSON format or unknown."""
    response_format = FORMATS.get(format_name)
    if not response_format or not response_format.render:
        return None
    return response_format.render(transcript)
