"""Paid upstream requests: each recording is paid for once, and within the daily budget."""

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

_POLL_SECONDS = 0.25
# A claim expires this many seconds after its deadline, in case its process crashes and does not
# release it.
_GRACE_SECONDS = 5.0


class PossiblyBilled(Exception):
    """Raised if an earlier attempt may have been billed although it returned no transcript."""


@dataclass(frozen=True)
class PurchaseRequest:
    """A recording, and the upstream parameters for its transcription.

    `digest` is the recording's SHA-256. `seconds` is its estimated duration, which counts as billed
    if the upstream does not return the billed seconds. `max_seconds` is reserved in the budget.
    """

    recording: BinaryIO
    container: Container
    parameters: dict[str, Any]
    digest: str
    seconds: float
    max_seconds: float

    def billed_seconds(self, transcript: Transcript) -> float:
        """Return the seconds of audio that were billed for the transcript."""
        return self.seconds if transcript.seconds_billed is None else transcript.seconds_billed


@dataclass(frozen=True)
class Purchases:
    """Sends recordings to the upstream, unless the ledger already has the result.

    `jobs` is None on a server without a bucket. Such a server has neither a ledger nor a budget,
    and pays again for a recording that is sent again.
    """

    client: LazyClient
    metrics: Metrics
    models: Models
    jobs: Jobs | None

    async def transcribe(
        self,
        request: PurchaseRequest,
        caller: Caller,
        timeout_seconds: float,
        attempts: int,
        *,
        skip_if_possibly_billed: bool = False,
    ) -> Transcript:
        """Return the transcript within `timeout_seconds`, after at most `attempts` requests.

        Raises a StenoError if the transcription fails or the budget is exhausted.
        Raises PossiblyBilled, without a new request, if `skip_if_possibly_billed` is set and an
        earlier attempt may have been billed.
        """
        if self.jobs is None:
            return await self._send(request, timeout_seconds, attempts)
        ledger, holder, deadline = self.jobs.ledger, uuid4().hex, time.monotonic() + timeout_seconds
        key = answer_key(caller.owner, request.digest, request.parameters, self.models.base_url)
        claim = await self._claim(ledger, key, holder, request, deadline)
        if isinstance(claim, PaidAnswer):
            return claim.transcript
        if skip_if_possibly_billed and claim.possibly_billed_seconds > 0:
            await anyio.to_thread.run_sync(ledger.release, key, holder, request.seconds)
            raise PossiblyBilled
        try:
            transcript = await self._within_budget(
                self.jobs.budget, request, caller, deadline, attempts
            )
        except Exception as error:
            unbilled = 0.0 if _may_be_billed(error) else request.seconds
            await _record(ledger.release, key, holder, unbilled)
            raise
        answer = PaidAnswer(transcript, holder, request.billed_seconds(transcript))
        await _record(ledger.store, key, answer)
        return transcript

    async def _claim(
        self,
        ledger: Ledger,
        key: str,
        holder: str,
        request: PurchaseRequest,
        deadline: float,
    ) -> Claim | PaidAnswer:
        """Return the result in the ledger, or claim it.

        Waits while another request holds the claim. Raises UpstreamBusy if the claim is
        still held at the deadline.
        """
        while True:
            seconds_left = deadline - time.monotonic()
            try:
                return await anyio.to_thread.run_sync(
                    ledger.claim, key, holder, request.seconds, seconds_left + _GRACE_SECONDS
                )
            except ClaimHeld:
                if seconds_left < _POLL_SECONDS:
                    raise UpstreamBusy(
                        "The same recording is still being transcribed for another request."
                        " Send this request again to get the transcript.",
                        safe_to_retry=True,
                        retry_after=2,
                    ) from None
                await anyio.sleep(_POLL_SECONDS)

    async def _within_budget(
        self,
        budget: Budget,
        request: PurchaseRequest,
        caller: Caller,
        deadline: float,
        attempts: int,
    ) -> Transcript:
        reservation = await anyio.to_thread.run_sync(
            budget.reserve, caller.account, request.max_seconds
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
        await _record(budget.settle, reservation, request.billed_seconds(transcript))
        return transcript

    async def _send(
        self, request: PurchaseRequest, timeout_seconds: float, attempts: int
    ) -> Transcript:
        client, start = await self.client.ready(), time.monotonic()
        transcript = await client.transcribe(
            request.recording,
            request.container,
            request.parameters,
            timeout_seconds,
            attempts=attempts,
        )
        milliseconds = round((time.monotonic() - start) * 1000)
        self.metrics.emit(
            UpstreamMilliseconds=milliseconds, SecondsPaid=request.billed_seconds(transcript)
        )
        return transcript


async def _record(write: Callable[..., None], *args: Any) -> None:
    """Write to the ledger or the budget.

    A failure is logged and not raised, because the paid result must not be lost.
    """
    try:
        await anyio.to_thread.run_sync(write, *args)
    except Exception:
        log.exception("Cannot update the ledger or the budget. The response is not affected.")


def _may_be_billed(error: Exception) -> bool:
    """Return whether a request that failed with this error may have been billed."""
    if isinstance(error, UpstreamFailed | UpstreamTimeout):
        return not error.safe_to_retry
    return not isinstance(error, StenoError)
