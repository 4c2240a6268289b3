"""A recording of any size and container, cut into clean parts by a process of its own.

The process has no credentials and little memory: it opens what strangers made (see cutter.py).
"""

import json
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from subprocess import DEVNULL, PIPE
from typing import Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from handler.errors import UnreadableRecording, error_of
from handler.loudness import SAMPLE_RATE, Stretch

PART_SECONDS = 300.0  # words get lost at cuts, and answers end without a word beyond 2,000 tokens
TIMED_PART_SECONDS = 60.0  # where text is laid on the sound, an error travels no further than its part
SEARCH_SECONDS = 12.0
_LINE_BYTES = 16_000_000
_CODE_ROOT = Path(__file__).parent.parent


_BEYOND_LIMITS = "The recording could not be decoded within the limits."


class CutterStopped(Exception):
    """The process was stopped by something that is not the recording's fault."""


@dataclass(frozen=True)
class Part:
    """A FLAC file of 16 kHz mono sound.

    `timeline` says when its samples were heard: pairs of (sample in this part, seconds from the recording's
    beginning), each true up to the next. `of` is how many parts there will be, as far as is known. `speech` says
    where anybody may be speaking in it: nobody anywhere where there is none.
    """

    number: int
    path: Path
    start: int
    samples: int
    timeline: tuple[tuple[int, float], ...]
    of: int = 1
    speech: tuple[Stretch, ...] = ()

    @property
    def seconds(self) -> float:
        return self.samples / SAMPLE_RATE

    def is_all_of(self, seconds: float | None) -> bool:
        """Whether a recording of so many seconds, rounded up as they are billed, is all in this part."""
        return self.of == 1 and seconds is not None and seconds <= self.seconds + 1

    def at(self, seconds: float) -> float:
        """When in the recording a moment of this part was heard."""
        sample = round(seconds * SAMPLE_RATE)
        first, time = max((anchor for anchor in self.timeline if anchor[0] <= sample), default=self.timeline[0])
        return time + (sample - first) / SAMPLE_RATE


@asynccontextmanager
async def parts_of(
    recording: Path,
    folder: Path,
    longest: float,
    *,
    part_seconds: float = PART_SECONDS,
    search_seconds: float = SEARCH_SECONDS,
) -> AsyncIterator[AsyncIterator[Part]]:
    """The recording's parts, each as soon as it is written to `folder`.

    `longest` are the seconds beyond which a recording is refused. The parts are of `part_seconds` or less, the last
    ones shorter; each is cut in a pause at most `search_seconds` from its mark. Leaving early ends the process.
    UnreadableRecording, NoAudio, EmptyRecording, RecordingTooLarge.
    """
    numbers = [str(seconds) for seconds in (longest, part_seconds, search_seconds)]
    command = [sys.executable, "-m", "handler.cutter", str(recording), str(folder), *numbers]
    process = await anyio.open_process(command, stdin=DEVNULL, stdout=PIPE, stderr=None, env=_bare_environment())
    told = _told(process)
    try:
        yield told
    finally:
        await told.aclose()
        if process.returncode is None:
            # Not by `process.kill`, which would take the exit status of one that has just ended from who waits for it.
            with suppress(ProcessLookupError):
                os.kill(process.pid, SIGKILL)
        with anyio.CancelScope(shield=True):
            await process.aclose()


async def _told(process: Any) -> AsyncGenerator[Part, None]:
    lines = BufferedByteReceiveStream(process.stdout)
    while True:
        try:
            said = json.loads(await lines.receive_until(b"\n", _LINE_BYTES))
        except anyio.DelimiterNotFound:  # of a part there is no end of what to say
            raise UnreadableRecording(_BEYOND_LIMITS) from None
        except (anyio.IncompleteRead, anyio.EndOfStream):
            raise _ended(await process.wait()) from None
        if "done" in said:
            return
        if "failed" in said:
            raise error_of(said["failed"]["code"], said["failed"]["detail"])
        told = said["part"]
        yield Part(
            told["number"],
            Path(told["path"]),
            told["start"],
            told["samples"],
            tuple((sample, time) for sample, time in told["timeline"]),
            told["of"],
            tuple(Stretch(*stretch) for stretch in told["speech"]),
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
