"""Sends paid requests to the upstream, once for each recording and within the daily budget."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO
from uuid import uuid4

import anyio
import anyio.to_thread

from handler.aws.metrics import Metrics
from handler.billing.budget import Budget
from handler.billing.ledger import Claim, ClaimHeld, Ledger, PaidAnswer, answer_key
from handler.errors import StenoError, UpstreamBusy, UpstreamError, UpstreamFailed, UpstreamTimeout
from handler.jobs.job import Caller
from handler.jobs.store import Jobs
from handler.recordings.container import Container
from handler.transcription.listener import Listener
from handler.transcripts.transcript import Transcript
from handler.upstream.lazy_client import LazyClient
from handler.upstream.profiles import Model
from handler.upstream.throttle import Throttle

log = logging.getLogger("steno")

_POLL_SECONDS = 0.25
# A claim expires this many seconds after the deadline of its request, in case the process crashes
# before it releases the claim.
_GRACE_SECONDS = 5.0


class PossiblyBilled(Exception):
    """Raised if an earlier attempt with `model` may have been billed but returned no transcript."""

    def __init__(self, model: Model) -> None:
        super().__init__(model.full_name)
        self.model = model


class StillTranscribing(UpstreamBusy):
    """Raised if another request is transcribing the recording. Do not try fallback models."""

    def __init__(self, detail: str, *, safe_to_retry: bool, retry_after: float) -> None:
        super().__init__(detail, safe_to_retry=safe_to_retry, retry_after=retry_after)
        self.allows_fallback = False


@dataclass(frozen=True)
class PurchaseRequest:
    """A recording, and the parameters of the upstream request that transcribes it.

    `digest` is the recording's SHA-256. `seconds` is its estimated duration, which is recorded as
    billed if the response does not contain the billed seconds. `max_seconds` is the duration to
    reserve in the budget. If there is a `listener`, it receives the text while the upstream sends
    it. `fallbacks` are requests that send the same recording to other upstreams if this request
    fails.
    """

    recording: BinaryIO
    container: Container
    model: Model
    parameters: dict[str, Any]
    digest: str
    seconds: float
    max_seconds: float
    listener: Listener | None = None
    fallbacks: "tuple[PurchaseRequest, ...]" = ()

    def billed_seconds(self, transcript: Transcript) -> float:
        """Return the seconds of audio that were billed for the transcript."""
        return self.seconds if transcript.seconds_billed is None else transcript.seconds_billed


@dataclass(frozen=True)
class Purchases:
    """Sends a recording to the upstream unless its result is already in the ledger.

    `jobs` is None on a server without a bucket. Such a server has neither a ledger nor a budget, so
    a recording that is sent twice is paid for twice. The keys of `clients` and `throttles` are the
    names of the upstreams.
    """

    clients: Mapping[str, LazyClient]
    throttles: Mapping[str, Throttle]
    metrics: Metrics
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
        """Return the transcript within `timeout_seconds`.

        Sends at most `attempts` requests to each upstream. Raises a StenoError if the transcription
        fails or the budget is exhausted. Raises PossiblyBilled without sending a request if
        `skip_if_possibly_billed` is set and an earlier attempt may have been billed.
        """
        deadline = time.monotonic() + timeout_seconds
        *candidates, last = await self._without_resting([request, *request.fallbacks])
        for candidate in candidates:
            try:
                return await self._purchase(
                    candidate, caller, deadline, attempts, skip_if_possibly_billed
                )
            except UpstreamError as error:
                if not error.allows_fallback:
                    raise
                log.warning(
                    "The upstream model %s failed, so a fallback is used: %s",
                    candidate.model.full_name,
                    error,
                )
                if throttle := self.throttles.get(candidate.model.upstream):
                    await _record(throttle.rest)
        return await self._purchase(last, caller, deadline, attempts, skip_if_possibly_billed)

    async def _without_resting(self, requests: list[PurchaseRequest]) -> list[PurchaseRequest]:
        """Remove requests whose upstream failed in the last minute, except the last request."""
        usable = []
        for request in requests[:-1]:
            throttle = self.throttles.get(request.model.upstream)
            if not throttle or not await anyio.to_thread.run_sync(throttle.is_resting):
                usable.append(request)
        return [*usable, requests[-1]]

    async def _purchase(
        self,
        request: PurchaseRequest,
        caller: Caller,
        deadline: float,
        attempts: int,
        skip_if_possibly_billed: bool,
    ) -> Transcript:
        if self.jobs is None:
            return await self._send(request, deadline - time.monotonic(), attempts)
        ledger, holder = self.jobs.ledger, uuid4().hex
        key = answer_key(caller.owner, request.digest, request.parameters, request.model.base_url)
        claim = await self._claim(ledger, key, holder, request, deadline)
        if isinstance(claim, PaidAnswer):
            return claim.transcript
        if skip_if_possibly_billed and claim.possibly_billed_seconds > 0:
            await anyio.to_thread.run_sync(ledger.release, key, holder, request.seconds)
            raise PossiblyBilled(request.model)
        try:
            transcript = await self._within_budget(
                self.jobs.budget, request, caller, deadline, attempts
            )
        except Exception as error:
            if isinstance(error, UpstreamError) and claim.possibly_billed_seconds > 0:
                error.allows_fallback = False
            unbilled = 0.0 if _may_be_billed(error) else request.seconds
            await _record(ledger.release, key, holder, unbilled)
            if isinstance(error, UpstreamTimeout) and skip_if_possibly_billed:
                raise PossiblyBilled(request.model) from error
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
        """Return the result from the ledger, or a claim if there is no result.

        Waits while another request holds the claim. Raises StillTranscribing if the claim is still
        held at the deadline.
        """
        while True:
            seconds_left = deadline - time.monotonic()
            try:
                return await anyio.to_thread.run_sync(
                    ledger.claim, key, holder, request.seconds, seconds_left + _GRACE_SECONDS
                )
            except ClaimHeld:
                if seconds_left < _POLL_SECONDS:
                    raise StillTranscribing(
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
        client, start = await self.clients[request.model.upstream].ready(), time.monotonic()
        transcript = await client.transcribe(
            request.recording,
            request.container,
            request.model,
            request.parameters,
            timeout_seconds,
            attempts=attempts,
            on_text=request.listener.update if request.listener else None,
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
