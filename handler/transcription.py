"""One job's recording on its way to a transcript: cut, heard part by part, and joined."""

import random
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import BinaryIO

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from handler.alignment import lay
from handler.audio import FLAC, lacks_most
from handler.cutting import PART_SECONDS, TIMED_PART_SECONDS, Part, parts_of
from handler.errors import EmptyRecording, UpstreamBusy, UpstreamFailed, UpstreamTimeout
from handler.job import Caller, Heard, Job
from handler.ledger import Answer
from handler.loudness import SAMPLE_RATE, Stretch
from handler.models import DEFAULT_MODEL, MODELS, serving
from handler.options import Options
from handler.outage import outlasting
from handler.payment import Paid, Payment, Question, digest_of
from handler.scratch import scratch
from handler.transcript import Transcript
from handler.wiring import Wiring
from handler.words import joined_text

PARTS_AT_ONCE = 16
_SHORTEST_SECONDS = 20.0  # what is not halved any more
_ATTEMPTS = 6
_DOUBTFUL_ATTEMPTS = 3  # of them, those that may have been billed though no answer came
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True)
class Pacing:
    """In seconds: how long parts are, and how long where their text is laid on the sound; how long the speech service
    has for one; the first pause after it has failed, and that before the whole job is gone on with, each twice as long
    the next time; and what is left to the parts on their way when the time is up."""

    part: float = PART_SECONDS
    timed_part: float = TIMED_PART_SECONDS
    deadline: float = 300.0
    pause: float = 2.0
    later: float = 15.0
    last: float = 20.0


USUAL = Pacing()


class Pace:
    """The pause that all parts make together when the speech service is busy."""

    def __init__(self) -> None:
        self._until = 0.0

    async def wait(self) -> None:
        while (left := self._until - monotonic()) > 0:  # noqa: ASYNC110 - others may have moved it meanwhile
            await anyio.sleep(left * random.uniform(1, 1.25))  # noqa: S311 - jitter, no secret

    def slow_down(self, seconds: float) -> None:
        self._until = max(self._until, monotonic() + min(seconds, _LONGEST_PAUSE_SECONDS))


class Transcription:
    """Hears what has not been heard before, and keeps each part's words as they come."""

    def __init__(self, wiring: Wiring, job: Job, pacing: Pacing) -> None:
        self._wiring = wiring
        self._pacing = pacing
        self._jobs = wiring.jobs
        self._job = job
        self._limiter = anyio.CapacityLimiter(min(PARTS_AT_ONCE, wiring.settings.max_concurrent_calls))
        self._pace = Pace()
        self._payment = Payment(wiring, Caller(job.owner, job.account), job.id)
        self._heard: dict[int, Heard] = {}
        self._stopped: Exception | None = None
        today = wiring.today()
        name = job.options.get("model") or wiring.settings.whisper_model
        model = serving(name, today, wiring.settings.openai_base_url) or MODELS[DEFAULT_MODEL]
        self._model = model.name
        # A newer version of the API may have stored an option that this worker does not have.
        options = Options.model_validate(job.options, extra="ignore")
        self._times_asked = options.ask_for_times(model)
        self._untimed: Transcript | None = None
        # Times are always asked for where the model gives them, so that any format can be fetched later.
        self._parameters = options.model_copy(update={"response_format": "verbose_json"}).for_model(model, today)

    async def run(self, until: float) -> tuple[Transcript, str]:
        """The transcript, and where the ledger has it: the same recording in one request costs nothing then.

        TimeoutError where it is not whole at `until` (of the monotonic clock), or some seconds later.
        """
        already = await anyio.to_thread.run_sync(self._jobs.heard, self._job.id)
        self._heard = {heard.number: heard for heard in already}
        with scratch() as folder, (folder / "recording").open("w+b") as file:
            await anyio.to_thread.run_sync(self._jobs.fetch, self._job, file)
            digest = await anyio.to_thread.run_sync(digest_of, file)
            entry = self._wiring.question(self._job.owner, digest, self._parameters)
            transcript = await anyio.to_thread.run_sync(self._known, entry, file)
            if transcript is None:
                transcript = self._joined(await self._hear_all(folder / "recording", folder, until))
                if transcript.text or not self._untimed:
                    answer = Answer(transcript, self._job.id, 0.0)
                    await anyio.to_thread.run_sync(self._jobs.ledger.keep, entry, answer)
        return transcript, entry

    def _known(self, entry: str, recording: BinaryIO) -> Transcript | None:
        """What was heard when the same recording came in one request; without the times that are asked it is no more
        than the text of a recording that is short enough for one part."""
        known = self._jobs.ledger.known(entry)
        if not known or known.transcript.cut_off or lacks_most(recording, known.transcript.seconds_billed):
            return None
        if self._times_asked and known.transcript.text and not known.transcript.segments:
            self._untimed = known.transcript
            return None
        return known.transcript

    async def _hear_all(self, recording: Path, folder: Path, until: float) -> float:
        """Sends the parts as they are cut; how many seconds the recording lasts."""
        async with anyio.create_task_group() as watch:
            watch.start_soon(self._stop_at, until)
            async with anyio.create_task_group() as tasks:
                try:
                    duration = await self._send_all(recording, folder, tasks)
                except Exception as error:
                    self._stop(error)
            watch.cancel_scope.cancel()
        if self._stopped:
            raise self._stopped
        return duration

    async def _send_all(self, recording: Path, folder: Path, tasks: TaskGroup) -> float:
        duration, total, last = 0.0, 0, 0
        longest = self._wiring.settings.max_audio_seconds
        each = self._pacing.timed_part if self._times_asked else self._pacing.part
        async with parts_of(recording, folder, longest, part_seconds=each) as parts:
            async for part in parts:
                if self._stopped:
                    break
                duration = part.at(part.seconds)
                if max(part.of, part.number + 1) != total:
                    total = max(part.of, part.number + 1)
                    await anyio.to_thread.run_sync(self._jobs.cut, self._job, total)
                already = self._heard.get(part.number)
                if not already or (already.start, already.samples) != (part.start, part.samples):
                    tasks.start_soon(self._hear, part)
                last = part.number
        # What was heard before in parts of another length is not heard twice.
        self._heard = {number: heard for number, heard in self._heard.items() if number <= last}
        return duration

    async def _stop_at(self, until: float) -> None:
        await anyio.sleep(max(until - monotonic(), 0))
        self._stop(TimeoutError())

    def _stop(self, error: Exception) -> None:
        """Begins no part any more; what is on its way is paid for, and waited for."""
        self._stopped = self._stopped or error

    async def _hear(self, part: Part) -> None:
        try:
            async with self._limiter:
                if self._stopped:
                    return
                heard = await self._ask(part)
            part.path.unlink()
            await outlasting(self._jobs.hear, self._job, heard)  # it has been paid for
            self._heard[part.number] = heard
            self._wiring.metrics.tell(Parts=1)
        except Exception as error:
            self._stop(error)

    async def _ask(self, part: Part) -> Heard:
        if not part.speech and not self._known_text(part):
            return Heard(part.number, part.start, "", samples=part.samples)
        paid = await self._answer(part)
        transcript = paid.transcript
        if transcript.cut_off and part.seconds > _SHORTEST_SECONDS:
            return await self._ask_halves(part, paid)
        speech = part.speech or (Stretch(0.0, part.seconds, 1),)
        told = transcript.segments or await anyio.to_thread.run_sync(lay, transcript.text, speech)
        segments = tuple(replace(segment, start=part.at(segment.start), end=part.at(segment.end)) for segment in told)
        return Heard(
            part.number,
            part.start,
            transcript.text,
            segments,
            transcript.language,
            paid.seconds,
            paid.entries,
            part.samples,
        )

    def _known_text(self, part: Part) -> Transcript | None:
        """What was heard in one request, where the part is all of that recording."""
        known = self._untimed
        return known if known and part.is_all_of(known.seconds_billed) else None

    async def _ask_halves(self, part: Part, paid: Paid) -> Heard:
        """A part whose text was too long for one answer, in two; the answer that was cut off is paid all the same."""
        folder = part.path.with_suffix("")
        folder.mkdir()
        half, quarter = part.seconds / 2, part.seconds / 4
        async with parts_of(part.path, folder, part.seconds + 1, part_seconds=half, search_seconds=quarter) as pieces:
            halves = [await self._ask(replace(piece, timeline=_moved(piece, part))) async for piece in pieces]
        return Heard(
            part.number,
            part.start,
            joined_text(half.text for half in halves),
            tuple(segment for half in halves for segment in half.segments),
            next((half.language for half in halves if half.language), None),
            paid.seconds + sum(half.seconds_paid for half in halves),
            sum((half.entries for half in halves), paid.entries),
            part.samples,
        )

    async def _answer(self, part: Part) -> Paid:
        """What the speech service hears in the part; sent again where that may help."""
        if known := self._known_text(part):
            return Paid(known, 0.0)
        doubtful = 0
        with part.path.open("rb") as file:
            digest = await anyio.to_thread.run_sync(digest_of, file)
            question = Question(file, FLAC, self._parameters, digest, part.seconds, part.seconds)
            for attempt in range(1, _ATTEMPTS + 1):
                await self._pace.wait()
                if self._stopped:
                    raise self._stopped
                try:
                    return await self._payment.transcript(question, self._pacing.deadline, 1)
                except EmptyRecording:  # a last part too short to hold a word
                    return Paid(Transcript("", self._model), 0)
                except (UpstreamFailed, UpstreamBusy, UpstreamTimeout) as error:
                    doubtful += not error.again
                    if attempt == _ATTEMPTS or doubtful == _DOUBTFUL_ATTEMPTS or self._stopped:
                        raise
                    self._pace.slow_down(max(error.retry_after or 0, self._pacing.pause * (1 << attempt - 1)))
        raise AssertionError("the last attempt returns or raises")

    def _joined(self, duration: float) -> Transcript:
        heard = [self._heard[number] for number in sorted(self._heard)]
        return Transcript(
            text=joined_text(part.text for part in heard),
            model=self._model,
            segments=tuple(segment for part in heard for segment in part.segments),
            language=next((part.language for part in heard if part.language), None),
            duration=round(duration, 3),
        )


def _moved(piece: Part, part: Part) -> tuple[tuple[int, float], ...]:
    """The timeline of a piece of a part, on the recording's own."""
    inside = [
        (sample - piece.start, time) for sample, time in part.timeline if 0 < sample - piece.start < piece.samples
    ]
    return ((0, part.at(piece.start / SAMPLE_RATE)), *inside)
