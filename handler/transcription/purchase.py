"""A recording or a part of one, sent to the speech service: paid for once, and within the day's budget."""

import hashlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import anyio
import anyio.to_thread

from handler.billing.ledger import Answer, Claim, Ledger, Taken
from handler.errors import StenoError, UpstreamBusy, UpstreamFailed, UpstreamTimeout
from handler.jobs.job import Caller
from handler.recordings.container import Container
from handler.transcripts.transcript import Transcript
from handler.wiring import Wiring

log = logging.getLogger("steno")

_LOOK_SECONDS = 0.25
_GRACE_SECONDS = 5.0  # until a claim that was neither kept nor released is taken for a crash


class InDoubt(Exception):
    """An earlier try of the same may have been billed, and has brought nothing."""


@dataclass(frozen=True)
class Question:
    """A recording and how it is asked about.

    `digest` is its SHA-256; it lasts about `seconds`, where the answer does not tell, and `most_seconds` at most.
    """

    recording: BinaryIO
    container: Container
    parameters: dict[str, Any]
    digest: str
    seconds: float
    most_seconds: float

    def billed(self, transcript: Transcript) -> float:
        return self.seconds if transcript.seconds_billed is None else transcript.seconds_billed


@dataclass(frozen=True)
class Paid:
    """`seconds` were paid for the transcript, or may have been; `entries` are where the ledger has it."""

    transcript: Transcript
    seconds: float
    entries: tuple[str, ...] = ()


class Payment:
    """What one `holder`, a request or a job, pays for its caller. Answers are shared among an owner's holders only."""

    def __init__(self, wiring: Wiring, caller: Caller, holder: str) -> None:
        self._wiring = wiring
        self._caller = caller
        self._holder = holder
        self._asking: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    async def transcript(self, question: Question, within: float, attempts: int, *, doubtless: bool = False) -> Paid:
        """The transcript within so many seconds, or one of errors.py; InDoubt where a `doubtless` one cannot be had."""
        ledger = self._wiring.ledger
        if ledger is None:
            transcript = await self._heard(question, within, attempts)
            return Paid(transcript, question.billed(transcript))
        deadline = time.monotonic() + within
        key = self._wiring.question(self._caller.owner, question.digest, question.parameters)
        async with self._asking[key]:  # a recording may say the same twice
            found = await self._claimed(ledger, key, question, deadline)
            if isinstance(found, Answer):
                return Paid(found.transcript, found.seconds if found.holder == self._holder else 0.0, (key,))
            if doubtless and found.doubt > 0:
                await anyio.to_thread.run_sync(ledger.release, key, self._holder, question.seconds)
                raise InDoubt
            try:
                transcript = await self._within_budget(question, deadline, attempts)
            except Exception as error:
                unpaid = 0.0 if _in_doubt(error) else question.seconds
                await _booked(ledger.release, key, self._holder, unpaid)
                raise
            seconds = found.own + question.billed(transcript)
            await _booked(ledger.keep, key, Answer(transcript, self._holder, seconds))
            return Paid(transcript, seconds, (key,))

    async def _claimed(self, ledger: Ledger, key: str, question: Question, deadline: float) -> Claim | Answer:
        """The ledger's answer, or the right to get it; waits for whoever is getting it now."""
        while True:
            left = deadline - time.monotonic()
            try:
                return await anyio.to_thread.run_sync(
                    ledger.claim, key, self._holder, question.seconds, left + _GRACE_SECONDS
                )
            except Taken:
                if left < _LOOK_SECONDS:
                    raise UpstreamBusy(
                        "The same recording is being transcribed for another request.", again=True, retry_after=2
                    ) from None
                await anyio.sleep(_LOOK_SECONDS)

    async def _within_budget(self, question: Question, deadline: float, attempts: int) -> Transcript:
        budget = self._wiring.budget
        reservation = await anyio.to_thread.run_sync(budget.reserve, self._caller.account, question.most_seconds)
        try:
            transcript = await self._heard(question, deadline - time.monotonic(), attempts)
        except Exception as error:
            await _booked(budget.settle, reservation, question.seconds if _in_doubt(error) else 0.0)
            raise
        await _booked(budget.settle, reservation, question.billed(transcript))
        return transcript

    async def _heard(self, question: Question, within: float, attempts: int) -> Transcript:
        speech, began = await self._wiring.speech(), time.monotonic()
        transcript = await speech.transcribe(
            question.recording, question.container, question.parameters, within, attempts=attempts
        )
        milliseconds = round((time.monotonic() - began) * 1000)
        self._wiring.metrics.tell(UpstreamMilliseconds=milliseconds, SecondsPaid=question.billed(transcript))
        return transcript


async def _booked(entry: Callable[..., None], *details: Any) -> None:
    """What has been paid for is worth more than the books: trouble with them is told to the log alone."""
    try:
        await anyio.to_thread.run_sync(entry, *details)
    except Exception:
        log.exception("What was paid for cannot be written down:")


def digest_of(recording: BinaryIO) -> str:
    recording.seek(0)
    return hashlib.file_digest(recording, "sha256").hexdigest()  # type: ignore[arg-type] # all files can readinto


def _in_doubt(error: Exception) -> bool:
    """Whether what ended without an answer may have been billed all the same."""
    if isinstance(error, UpstreamFailed | UpstreamTimeout):
        return not error.again
    return not isinstance(error, StenoError)
