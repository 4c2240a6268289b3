"""A recording or a part of one, sent to the speech service: paid for once, and within the day's budget."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO
from uuid import uuid4

import anyio
import anyio.to_thread

from handler.aws.metrics import Metrics
from handler.billing.budget import Budget
from handler.billing.ledger import Claim, ClaimHeld, Ledger, PaidAnswer, answer_key
from handler.errors import StenoError, UpstreamBusy, UpstreamFailed, UpstreamTimeout
from handler.jobs.job import Caller
from handler.jobs.store import Jobs
from handler.recordings.container import Container
from handler.transcripts.transcript import Transcript
from handler.upstream.lazy_client import LazyClient
from handler.upstream.models import Models

log = logging.getLogger("steno")

_LOOK_SECONDS = 0.25
_GRACE_SECONDS = 5.0  # until a claim that was neither kept nor released is taken for a crash


class PossiblyBilled(Exception):
    """An earlier try of the same may have been billed, and has brought nothing."""


@dataclass(frozen=True)
class PurchaseRequest:
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
class Purchases:
    """Pays for recordings: each once, as long as the ledger has its answer, and within the day's budget.

    Without `jobs`, a server has neither a ledger nor a budget: what is sent twice is paid twice.
    """

    client: LazyClient
    metrics: Metrics
    models: Models
    jobs: Jobs | None

    async def transcript(
        self,
        request: PurchaseRequest,
        caller: Caller,
        within: float,
        attempts: int,
        *,
        skip_if_possibly_billed: bool = False,
    ) -> Transcript:
        """Return the transcript within so many seconds, or raise one of errors.py.

        PossiblyBilled if an earlier try may have been billed, and the caller asks for a `doubtless` one.
        """
        if self.jobs is None:
            return await self._send(request, within, attempts)
        ledger, holder, deadline = self.jobs.ledger, uuid4().hex, time.monotonic() + within
        key = answer_key(caller.owner, request.digest, request.parameters, self.models.base_url)
        found = await self._claim(ledger, key, holder, request, deadline)
        if isinstance(found, PaidAnswer):
            return found.transcript
        if skip_if_possibly_billed and found.possibly_billed_seconds > 0:
            await anyio.to_thread.run_sync(ledger.release, key, holder, request.seconds)
            raise PossiblyBilled
        try:
            transcript = await self._within_budget(
                self.jobs.budget, request, caller, deadline, attempts
            )
        except Exception as error:
            unpaid = 0.0 if _may_be_billed(error) else request.seconds
            await _record(ledger.release, key, holder, unpaid)
            raise
        await _record(ledger.store, key, PaidAnswer(transcript, holder, request.billed(transcript)))
        return transcript

    async def _claim(
        self,
        ledger: Ledger,
        key: str,
        holder: str,
        request: PurchaseRequest,
        deadline: float,
    ) -> Claim | PaidAnswer:
        """The ledger's answer, or the right to get it; waits for whoever is getting it now."""
        while True:
            left = deadline - time.monotonic()
            try:
                return await anyio.to_thread.run_sync(
                    ledger.claim, key, holder, request.seconds, left + _GRACE_SECONDS
                )
            except ClaimHeld:
                if left < _LOOK_SECONDS:
                    raise UpstreamBusy(
                        "The same recording is being transcribed for another request.",
                        safe_to_retry=True,
                        retry_after=2,
                    ) from None
                await anyio.sleep(_LOOK_SECONDS)

    async def _within_budget(
        self,
        budget: Budget,
        request: PurchaseRequest,
        caller: Caller,
        deadline: float,
        attempts: int,
    ) -> Transcript:
        reservation = await anyio.to_thread.run_sync(
            budget.reserve, caller.account, request.most_seconds
        )
        try:
            transcript = await self._send(request, deadline - time.monotonic(), attempts)
        except Exception as error:
            await _record(
                budget.settle,
                reservation,
                request.seconds if _may_be_billed(error) else 0.0,
            )
            raise
        await _record(budget.settle, reservation, request.billed(transcript))
        return transcript

    async def _send(self, request: PurchaseRequest, within: float, attempts: int) -> Transcript:
        client, began = await self.client.ready(), time.monotonic()
        transcript = await client.transcribe(
            request.recording,
            request.container,
            request.parameters,
            within,
            attempts=attempts,
        )
        milliseconds = round((time.monotonic() - began) * 1000)
        self.metrics.emit(UpstreamMilliseconds=milliseconds, SecondsPaid=request.billed(transcript))
        return transcript


async def _record(entry: Callable[..., None], *details: Any) -> None:
    """What has been paid for is worth more than the books: trouble with them is told to the log alone."""
    try:
        await anyio.to_thread.run_sync(entry, *details)
    except Exception:
        log.exception("What was paid for cannot be written down:")


def _may_be_billed(error: Exception) -> bool:
    """Whether what ended without an answer may have been billed all the same."""
    if isinstance(error, UpstreamFailed | UpstreamTimeout):
        return not error.safe_to_retry
    return not isinstance(error, StenoError)
