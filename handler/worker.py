"""The entry for the queue: a job from its recording to its transcript."""

import json
import logging
import tempfile
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import unquote_plus
from uuid import uuid4

import anyio
import anyio.to_thread

from handler.audio import FLAC
from handler.cutting import PART_SECONDS, SAMPLE_RATE, Part, parts_of
from handler.errors import EmptyRecording, NotFound, StenoError, UpstreamBusy, UpstreamFailed, UpstreamTimeout
from handler.jobs import LEASE_SECONDS, Heard, Held, Job, Lost, identity_of
from handler.models import DEFAULT_MODEL, MODELS, serving
from handler.options import Options
from handler.settings import read_settings
from handler.transcript import Transcript, joined_text
from handler.wiring import Wiring

log = logging.getLogger("steno")

PARTS_AT_ONCE = 16
_JOB_ATTEMPTS = 5
_SHORTEST_SECONDS = 20.0  # what is not halved any more
_PART_DEADLINE_SECONDS = 300.0
_PART_ATTEMPTS = 6
_LONGEST_PAUSE_SECONDS = 60.0
_HAND_ON_SECONDS = 30.0  # what a call leaves of its time to end in order


class Pace:
    """The pause that all parts make together when the speech service is busy."""

    def __init__(self) -> None:
        self._until = 0.0

    async def wait(self) -> None:
        while (left := self._until - monotonic()) > 0:  # noqa: ASYNC110 - others may have moved it meanwhile
            await anyio.sleep(left)

    def slow_down(self, seconds: float) -> None:
        self._until = max(self._until, monotonic() + min(seconds, _LONGEST_PAUSE_SECONDS))


class Message:
    """A message of the queue, kept from other workers for as long as its job is worked on."""

    def __init__(self, record: dict[str, Any], sqs: Any) -> None:
        self._sqs = sqs
        self._receipt = record["receiptHandle"]
        self._queue = record["eventSourceARN"].rpartition(":")[2]

    def keep(self) -> None:
        self._sqs.change_message_visibility(
            QueueUrl=self._url(), ReceiptHandle=self._receipt, VisibilityTimeout=LEASE_SECONDS
        )

    def hand_on(self, identity: str) -> None:
        """Another message for the same job: this one's deliveries are counted, and a long job needs many calls."""
        self._sqs.send_message(QueueUrl=self._url(), MessageBody=json.dumps({"job": identity}))

    def _url(self) -> str:
        return str(self._sqs.get_queue_url(QueueName=self._queue)["QueueUrl"])


class Worker:
    """Does jobs, one after another, in parts of `part_seconds`."""

    def __init__(self, wiring: Wiring, part_seconds: float = PART_SECONDS) -> None:
        self._wiring = wiring
        self._part_seconds = part_seconds
        self._jobs = wiring.jobs

    def handle(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        """Lambda's event of the queue; messages that are to come again are reported, the others are done."""
        failures = []
        for record in event["Records"]:
            until = monotonic() + context.get_remaining_time_in_millis() / 1000 - _HAND_ON_SECONDS
            message = Message(record, self._wiring.sqs)
            done = [anyio.run(self.work, identity, until, message) for identity in jobs_in(record["body"])]
            if not all(done):
                failures.append({"itemIdentifier": record["messageId"]})
        return {"batchItemFailures": failures}

    async def work(self, identity: str, until: float, message: Message) -> bool:
        """Does the job until `until` (of the monotonic clock); False if its message is to come again."""
        try:
            job = await anyio.to_thread.run_sync(self._jobs.take, identity, uuid4().hex)
        except Held:
            return False
        except NotFound as nothing:
            log.info("Job %s is left alone: %s", identity, nothing.detail)
            return True
        try:
            if job.attempts > _JOB_ATTEMPTS:
                raise StenoError("The job was begun several times and never ended; the log says more.")
            await self._complete(job, until, message)
        except Exception as error:
            return await self._ended(job, _innermost(error), message)
        return True

    async def _ended(self, job: Job, error: BaseException, message: Message) -> bool:
        """What becomes of a job that was not completed; False if its message is to come again."""
        if isinstance(error, TimeoutError):
            await anyio.to_thread.run_sync(self._jobs.release, job)
            await anyio.to_thread.run_sync(message.hand_on, job.id)
            return True
        if isinstance(error, Lost):
            log.info("Job %s was deleted, or taken over by another worker.", job.id)
            return True
        if not isinstance(error, StenoError):
            log.error("Job %s was interrupted.", job.id, exc_info=error)
            return False
        log.warning("Job %s failed: %s: %s", job.id, error.code, error.detail)
        with suppress(Lost):
            await anyio.to_thread.run_sync(self._jobs.fail, job, error)
        return True

    async def _complete(self, job: Job, until: float, message: Message) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep, job, message)
            with anyio.fail_after(until - monotonic()):
                transcript = await Transcription(self._wiring, job, self._part_seconds).run()
            await anyio.to_thread.run_sync(self._jobs.complete, job, transcript)
            tasks.cancel_scope.cancel()

    async def _keep(self, job: Job, message: Message) -> None:
        """Renews lease and message, so that a crash is noticed within a minute and nothing else is taken for one."""
        while True:
            await anyio.sleep(LEASE_SECONDS / 3)
            await anyio.to_thread.run_sync(self._jobs.renew, job)
            await anyio.to_thread.run_sync(message.keep)


class Transcription:
    """One job's recording on its way to a transcript."""

    def __init__(self, wiring: Wiring, job: Job, part_seconds: float) -> None:
        self._wiring = wiring
        self._part_seconds = part_seconds
        self._jobs = wiring.jobs
        self._job = job
        self._limiter = anyio.CapacityLimiter(PARTS_AT_ONCE)
        self._pace = Pace()
        self._heard: dict[int, Heard] = {}
        today = wiring.today()
        model = serving(job.options.get("model") or wiring.settings.whisper_model, today) or MODELS[DEFAULT_MODEL]
        self._model = model.name
        # Times are always asked for where the model gives them, so that any format can be fetched later.
        timed = {"response_format": "verbose_json" if model.timed_format else "json"}
        self._parameters = Options.model_validate({**job.options, **timed}).for_model(model, today)

    async def run(self) -> Transcript:
        already = await anyio.to_thread.run_sync(self._jobs.heard, self._job.id)
        self._heard = {heard.number: heard for heard in already}
        self._speech = await self._wiring.speech()
        with tempfile.TemporaryDirectory(prefix="steno-") as folder:
            recording = Path(folder) / "recording"
            with recording.open("wb") as file:
                await anyio.to_thread.run_sync(self._jobs.fetch, self._job, file)
            duration = await self._hear_all(recording, Path(folder))
        return self._joined(duration)

    async def _hear_all(self, recording: Path, folder: Path) -> float:
        """Sends the parts as they are cut; how many seconds the recording lasts."""
        duration, total = 0.0, 0
        longest = self._wiring.settings.max_audio_seconds
        cutting = parts_of(recording, folder, longest, part_seconds=self._part_seconds)
        async with anyio.create_task_group() as tasks, cutting as parts:
            async for part in parts:
                duration = part.at(part.seconds)
                if max(part.of, part.number + 1) != total:
                    total = max(part.of, part.number + 1)
                    await anyio.to_thread.run_sync(self._jobs.cut, self._job, total)
                if part.number not in self._heard:
                    tasks.start_soon(self._hear, part)
        return duration

    async def _hear(self, part: Part) -> None:
        async with self._limiter:
            heard = await self._ask(part)
        part.path.unlink()
        await anyio.to_thread.run_sync(self._jobs.hear, self._job, heard)
        self._heard[part.number] = heard

    async def _ask(self, part: Part) -> Heard:
        transcript = await self._answer(part)
        paid = transcript.seconds_billed or part.seconds
        if transcript.cut_off and part.seconds > _SHORTEST_SECONDS:
            return await self._ask_halves(part, paid)
        segments = tuple(
            replace(segment, start=part.at(segment.start), end=part.at(segment.end)) for segment in transcript.segments
        )
        return Heard(part.number, transcript.text, segments, transcript.language, paid)

    async def _ask_halves(self, part: Part, paid: float) -> Heard:
        """A part whose text was too long for one answer, in two; the answer that was cut off is paid all the same."""
        folder = part.path.with_suffix("")
        folder.mkdir()
        half, quarter = part.seconds / 2, part.seconds / 4
        async with parts_of(part.path, folder, part.seconds + 1, part_seconds=half, search_seconds=quarter) as pieces:
            halves = [await self._ask(replace(piece, timeline=_moved(piece, part))) async for piece in pieces]
        return Heard(
            part.number,
            joined_text(half.text for half in halves),
            tuple(segment for half in halves for segment in half.segments),
            halves[0].language,
            paid + sum(half.seconds_paid for half in halves),
        )

    async def _answer(self, part: Part) -> Transcript:
        """What the speech service hears in the part; sent again where that may help."""
        for attempt in range(1, _PART_ATTEMPTS + 1):
            await self._pace.wait()
            try:
                with part.path.open("rb") as file:
                    return await self._speech.transcribe(
                        file, FLAC, self._parameters, _PART_DEADLINE_SECONDS, attempts=1
                    )
            except EmptyRecording:  # a last part too short to hold a word
                return Transcript("", self._model)
            except (UpstreamFailed, UpstreamBusy, UpstreamTimeout) as error:
                # What may have been billed is sent once more at most.
                if attempt == _PART_ATTEMPTS or (not error.again and attempt > 1):
                    raise
                self._pace.slow_down(error.retry_after or 2**attempt)
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


def jobs_in(body: str) -> list[str]:
    """The jobs that a message is about: a notification of the bucket, or a worker's own word that there is more to do.

    None for the test that S3 sends when the notification is made, and for objects that no job awaits.
    """
    told = json.loads(body)
    if "job" in told:
        return [told["job"]]
    keys = [unquote_plus(record["s3"]["object"]["key"]) for record in told.get("Records", [])]
    return [identity for key in keys if (identity := identity_of(key))]


def _innermost(error: BaseException) -> BaseException:
    """The first error of those that ended a group of tasks."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@cache
def _worker() -> Worker:
    return Worker(Wiring(read_settings()))


def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return _worker().handle(event, context)
