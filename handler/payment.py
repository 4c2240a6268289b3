"""A recording or a part of one, sent to the speech service: paid for once, and within the day's budget."""

import hashlib
import time
from dataclasses import dataclass
from typing import Any, BinaryIO

import anyio
import anyio.to_thread

from handler.audio import Container
from handler.errors import StenoError, UpstreamBusy, UpstreamFailed, UpstreamTimeout
from handler.jobs import Caller
from handler.ledger import Entry, Ledger, Taken, key_of
from handler.transcript import Transcript
from handler.wiring import Wiring

_LOOK_SECONDS = 0.2
_GRACE_SECONDS = 5.0  # until a claim that was neither kept nor released is taken for a crash


@dataclass(frozen=True)
class Question:
    """A recording and how it is asked about; `digest` is its SHA-256, `seconds` what it may cost."""

    recording: BinaryIO
    container: Container
    parameters: dict[str, Any]
    digest: str
    seconds: float


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

    async def transcript(self, question: Question, within: float, attempts: int) -> Paid:
        """The transcript within so many seconds, or one of errors.py."""
        ledger = self._wiring.ledger
        if ledger is None:
            transcript = await self._heard(question, within, attempts)
            return Paid(transcript, _billed(transcript, question))
        key = key_of(self._caller.owner, question.digest, question.parameters)
        deadline = time.monotonic() + within
        entry = await self._claimed(ledger, key, question, deadline)
        if entry.transcript:
            return Paid(entry.transcript, entry.seconds if entry.holder == self._holder else 0.0, (key,))
        try:
            transcript = await self._within_budget(question, deadline - time.monotonic(), attempts)
        except Exception as error:
            unpaid = 0.0 if _in_doubt(error) else question.seconds
            await anyio.to_thread.run_sync(ledger.release, key, self._holder, unpaid)
            raise
        seconds = entry.seconds + _billed(transcript, question)
        await anyio.to_thread.run_sync(ledger.keep, key, self._holder, seconds, transcript)
        return Paid(transcript, seconds, (key,))

    async def _claimed(self, ledger: Ledger, key: str, question: Question, deadline: float) -> Entry:
        """The ledger's answer, or the right to get it; waits for whoever is getting it now."""
        while True:
            until = time.time() + deadline - time.monotonic() + _GRACE_SECONDS
            try:
                return await anyio.to_thread.run_sync(ledger.claim, key, self._holder, question.seconds, until)
            except Taken:
                if time.monotonic() + _LOOK_SECONDS > deadline:
                    raise UpstreamBusy(
                        "The same recording is being transcribed for another request.", again=True, retry_after=2
                    ) from None
                await anyio.sleep(_LOOK_SECONDS)

    async def _within_budget(self, question: Question, within: float, attempts: int) -> Transcript:
        budget = self._wiring.budget
        reservation = await anyio.to_thread.run_sync(budget.reserve, self._caller.account, question.seconds)
        try:
            transcript = await self._heard(question, within, attempts)
        except Exception as error:
            await anyio.to_thread.run_sync(budget.settle, reservation, question.seconds if _in_doubt(error) else 0)
            raise
        await anyio.to_thread.run_sync(budget.settle, reservation, _billed(transcript, question))
        return transcript

    async def _heard(self, question: Question, within: float, attempts: int) -> Transcript:
        speech = await self._wiring.speech()
        return await speech.transcribe(
            question.recording, question.container, question.parameters, within, attempts=attempts
        )


def digest_of(recording: BinaryIO) -> str:
    recording.seek(0)
    return hashlib.file_digest(recording, "sha256").hexdigest()  # type: ignore[arg-type] # all files can readinto


def _billed(transcript: Transcript, question: Question) -> float:
    return question.seconds if transcript.seconds_billed is None else transcript.seconds_billed


def _in_doubt(error: Exception) -> bool:
    """Whether what ended without an answer may have been billed all the same."""
    if isinstance(error, UpstreamFailed | UpstreamTimeout):
        return not error.again
    return not isinstance(error, StenoError)
