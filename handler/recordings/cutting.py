"""Starts and supervises the child process that cuts a recording into parts (decoder.py).

Uploaded files are not trusted, so the process has no credentials and limited memory.
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

# Version of the cutting algorithm. Increase it if the same recording may give different parts.
VERSION = 1
# Words can get lost at each cut, so parts are long. They must not be longer than this, because the
# upstream silently truncates its response at 2,000 tokens.
PART_SECONDS = 300.0
# For parts whose text is aligned with the sound. An alignment error cannot spread beyond its part.
TIMED_PART_SECONDS = 60.0
SEARCH_SECONDS = 12.0
_MAX_LINE_BYTES = 16_000_000
_CODE_ROOT = Path(__file__).parent.parent.parent
_LIMITS_EXCEEDED = (
    "The recording could not be decoded within the limits of time and memory. Export it again,"
    " for example as MP3 or FLAC."
)


class CutterStopped(Exception):
    """The child process stopped for a reason that the recording did not cause."""


@dataclass(frozen=True, kw_only=True)
class Part(Section):
    """A section of a recording that is stored as a FLAC file at `path`.

    `expected_parts` is the expected number of parts of the recording. `recording_seconds` is the
    expected duration of the recording in seconds, or 0 if it is unknown.
    """

    path: Path
    expected_parts: int = 1
    recording_seconds: float = 0.0

    def is_whole_recording(self, billed_seconds: float | None) -> bool:
        """Return whether this part has all of the recording for which `billed_seconds` were billed.

        Billing rounds up to the next second. Returns False if `billed_seconds` is None.
        """
        if self.expected_parts != 1 or billed_seconds is None:
            return False
        return billed_seconds <= self.seconds + 1


@contextmanager
def cut_into_parts(  # noqa: PLR0913 - independent limits
    recording: Path,
    folder: Path,
    max_seconds: float,
    *,
    part_seconds: float = PART_SECONDS,
    search_seconds: float = SEARCH_SECONDS,
    until: float | None = None,
) -> Iterator[Iterator[Part]]:
    """Cut `recording` in a child process, and yield an iterator over its parts.

    The iterator returns each part as soon as its file is written to `folder`. Parts are about
    `part_seconds` long, and the last ones are shorter. Each cut is in a pause, at most
    `search_seconds` before or after its target. The process is killed when the context ends, and
    at the time `until` (of `time.monotonic`), because a decoder can hang.

    The iterator raises RecordingTooLarge if the recording is longer than `max_seconds`. It raises
    UnsupportedMedia, UnreadableRecording, NoAudio or EmptyRecording if the recording cannot be
    decoded, and CutterStopped if the process stopped for another reason.
    """
    numbers = [str(seconds) for seconds in (max_seconds, part_seconds, search_seconds)]
    command = [
        sys.executable,
        "-m",
        "handler.recordings.decoder",
        str(recording),
        str(folder),
        *numbers,
    ]
    # S603 is safe here: no shell is used, and the program is our own module.
    with Popen(command, stdin=DEVNULL, stdout=PIPE, env=_minimal_environment()) as process:  # noqa: S603
        seconds_left = threading.TIMEOUT_MAX if until is None else max(until - time.monotonic(), 0)
        timer = threading.Timer(seconds_left, process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield _read_parts(process, cast("IO[bytes]", process.stdout))
        finally:
            timer.cancel()
            process.kill()  # has no effect if the process has ended


def _read_parts(process: Popen[bytes], output: IO[bytes]) -> Iterator[Part]:
    while True:
        line = output.readline(_MAX_LINE_BYTES)
        if len(line) == _MAX_LINE_BYTES:
            raise UnreadableRecording(_LIMITS_EXCEEDED)
        if not line.endswith(b"\n"):
            raise _exit_error(process.wait())
        message = json.loads(line)
        if "done" in message:
            return
        if "failed" in message:
            raise error_from_code(message["failed"]["code"], message["failed"]["detail"])
        part = message["part"]
        yield Part(
            number=part["number"],
            path=Path(part["path"]),
            start=part["start"],
            samples=part["samples"],
            timeline=tuple((sample, time) for sample, time in part["timeline"]),
            expected_parts=part["expected_parts"],
            recording_seconds=part["recording_seconds"],
            speech=tuple(SpeechInterval(*interval) for interval in part["speech"]),
        )


def _exit_error(status: int) -> Exception:
    """Return the error for a process that exited with `status` before it was done.

    A negative status is the number of a signal. SIGKILL means that the system is out of memory or
    that the time is up. Other signals mean that the recording made the process exceed its own
    limits, or made FFmpeg crash. A positive status is an error in Python, such as a full disk.
    """
    if status < 0 and status != -SIGKILL:
        return UnreadableRecording(_LIMITS_EXCEEDED)
    return CutterStopped(f"The decoder process exited with status {status} before it was done.")


def _minimal_environment() -> dict[str, str]:
    """Return the variables that Python needs to start, without API keys and credentials."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(_CODE_ROOT), *filter(None, sys.path)])}
