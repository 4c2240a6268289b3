"""A recording of any size and container, cut into clean parts by a process of its own.

The process has no credentials and little memory: it opens files that strangers made (see decoder.py).
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from subprocess import DEVNULL, PIPE, Popen
from typing import IO, cast

from handler.errors import UnreadableRecording, error_from_code
from handler.recordings.section import Section
from handler.recordings.speech_activity import SpeechInterval

# Of the cutting as a whole: a new number means that the same recording may give other parts.
VERSION = 1
PART_SECONDS = 300.0  # words get lost at cuts, and answers end without a word beyond 2,000 tokens
TIMED_PART_SECONDS = (
    60.0  # where text is laid on the sound, an error travels no further than its part
)
SEARCH_SECONDS = 12.0
_LINE_BYTES = 16_000_000
_CODE_ROOT = Path(__file__).parent.parent.parent


_BEYOND_LIMITS = "The recording could not be decoded within the limits."


class CutterStopped(Exception):
    """The process was stopped by something that is not the recording's fault."""


@dataclass(frozen=True, kw_only=True)
class Part(Section):
    """A FLAC file of 16 kHz mono sound.

    `of` is how many parts there will be, and `whole` how many seconds the recording has, as far as
    is known.
    """

    path: Path
    of: int = 1
    whole: float = 0.0

    def is_all_of(self, seconds: float | None) -> bool:
        """Whether a recording of so many seconds, rounded up as they are billed, is all in this part."""
        return self.of == 1 and seconds is not None and seconds <= self.seconds + 1


@contextmanager
def parts_of(  # noqa: PLR0913 - limits, each of its own
    recording: Path,
    folder: Path,
    longest: float,
    *,
    part_seconds: float = PART_SECONDS,
    search_seconds: float = SEARCH_SECONDS,
    until: float | None = None,
) -> Iterator[Iterator[Part]]:
    """The recording's parts, each as soon as it is written to `folder`.

    `longest` are the seconds beyond which a recording is refused. The parts are of `part_seconds` or less, the last
    ones shorter; each is cut in a pause at most `search_seconds` from its mark. Leaving early ends the process, and so
    does the time `until`, by `time.monotonic`: a decoder may hang.
    UnreadableRecording, NoAudio, EmptyRecording, RecordingTooLarge; CutterStopped.
    """
    numbers = [str(seconds) for seconds in (longest, part_seconds, search_seconds)]
    command = [
        sys.executable,
        "-m",
        "handler.recordings.decoder",
        str(recording),
        str(folder),
        *numbers,
    ]
    # Not by a shell, and only our own program.
    with Popen(command, stdin=DEVNULL, stdout=PIPE, env=_bare_environment()) as process:  # noqa: S603
        left = threading.TIMEOUT_MAX if until is None else max(until - time.monotonic(), 0)
        timer = threading.Timer(left, process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield _read(process, cast("IO[bytes]", process.stdout))
        finally:
            timer.cancel()
            process.kill()  # does nothing to one that has ended


def _read(process: Popen[bytes], output: IO[bytes]) -> Iterator[Part]:
    while True:
        line = output.readline(_LINE_BYTES)
        if len(line) == _LINE_BYTES:
            raise UnreadableRecording(_BEYOND_LIMITS)
        if not line.endswith(b"\n"):
            raise _ended(process.wait())
        said = json.loads(line)
        if "done" in said:
            return
        if "failed" in said:
            raise error_from_code(said["failed"]["code"], said["failed"]["detail"])
        told = said["part"]
        yield Part(
            number=told["number"],
            path=Path(told["path"]),
            start=told["start"],
            samples=told["samples"],
            timeline=tuple((sample, time) for sample, time in told["timeline"]),
            of=told["of"],
            whole=told["whole"],
            speech=tuple(SpeechInterval(*interval) for interval in told["speech"]),
        )


def _ended(status: int) -> Exception:
    """Why the process ended before it was done: a signal's negative number is its own limits, or a crash in FFmpeg.

    But it kills no process: the system does, where memory is short. And where the disk is full, Python ends it.
    """
    if status < 0 and status != -SIGKILL:
        return UnreadableRecording(_BEYOND_LIMITS)
    return CutterStopped(f"The process that cuts recordings ended with status {status}.")


def _bare_environment() -> dict[str, str]:
    """What Python needs to start and nothing else: no key, no credentials."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(_CODE_ROOT), *filter(None, sys.path)])}
