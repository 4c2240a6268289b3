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

# The version of the cutting algorithm. Increase it whenever a change can cause the same
# recording to be cut into different parts.
VERSION = 1
# Words can be lost at each cut, so parts should be long. But they must not be longer than this: the
# upstream truncates its response at 2,000 tokens without reporting an error.
PART_SECONDS = 300.0
# If the text of a part is aligned with the audio, an alignment error can affect all words of the
# part. Such parts are therefore shorter.
TIMED_PART_SECONDS = 60.0
SEARCH_SECONDS = 12.0
_MAX_LINE_BYTES = 16_000_000
_CODE_ROOT = Path(__file__).parent.parent.parent
_LIMITS_EXCEEDED = (
    "The recording could not be decoded within the time and memory limits. Export it again,"
    " for example as MP3 or FLAC."
)


class CutterStopped(Exception):
    """Raised if the child process stops, and the recording is not the cause."""


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
        """Return whether this part contains the whole recording.

        `billed_seconds` is the duration that was billed for the recording, rounded up to a whole
        second. If it is None, the result is False.
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

    The iterator yields each part as soon as its file has been written to `folder`. Parts are about
    `part_seconds` long, and the last ones are shorter. Each cut is made in a pause, at most
    `search_seconds` before or after the target time. The process is killed when the context exits,
    or when `time.monotonic()` reaches `until`, because a decoder can hang.

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
    # S603 does not apply here: no shell is used, and the program is our own module.
    with Popen(command, stdin=DEVNULL, stdout=PIPE, env=_minimal_environment()) as process:  # noqa: S603
        seconds_left = threading.TIMEOUT_MAX if until is None else max(until - time.monotonic(), 0)
        timer = threading.Timer(seconds_left, process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield _read_parts(process, cast("IO[bytes]", process.stdout))
        finally:
            timer.cancel()
            process.kill()  # has no effect if the process has exited


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
    """Return the error for a process that exited with `status` before it had finished.

    A negative status means that a signal killed the process. SIGKILL is sent if the system runs out
    of memory or the time limit is reached. Other signals mean that the recording made the process
    exceed its own limits, or made FFmpeg crash. A positive status means that Python raised an
    exception, for example because the disk is full.
    """
    if status < 0 and status != -SIGKILL:
        return UnreadableRecording(_LIMITS_EXCEEDED)
    return CutterStopped(f"The decoder process exited with status {status} before it finished.")


def _minimal_environment() -> dict[str, str]:
    """Return the environment variables that Python needs, but no API keys or credentials."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(_CODE_ROOT), *filter(None, sys.path)])}
