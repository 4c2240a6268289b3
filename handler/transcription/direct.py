"""A recording that came in one request: sent to the speech service at once, or made a job where that cannot do."""

import time
from dataclasses import dataclass
from datetime import date
from typing import BinaryIO

import anyio
import anyio.to_thread

from handler.billing.ledger import answer_key, sha256_of
from handler.errors import (
    BudgetExhausted,
    InvalidOption,
    UnreadableRecording,
    UnsupportedMedia,
    UpstreamBusy,
    UpstreamTimeout,
)
from handler.jobs.job import Caller, Job
from handler.jobs.store import Jobs
from handler.recordings.container import Container, identify, looks_truncated
from handler.transcription.handover import Handover
from handler.transcription.options import Options
from handler.transcription.purchase import PossiblyBilled, PurchaseRequest, Purchases
from handler.transcripts.transcript import Transcript
from handler.upstream.models import Model, Models, able

_ATTEMPTS = 3
_DIRECT_SHARE = 0.85  # of the time there is; the rest is for making a job of it
_SPEED = 20.0  # seconds of sound that the speech service hears in one, when it is slow, ...
_START_SECONDS = 2.0  # ... and what it takes to begin
_LONGEST_SECONDS = 1400.0
_MOST_TYPICAL = 8.0  # no recorder makes files of so many times the usual seconds


@dataclass(frozen=True)
class _Recording:
    file: BinaryIO
    container: Container
    size: int
    digest: str

    @property
    def usual_seconds(self) -> float:
        return self.size / self.container.bytes_per_second

    @property
    def most_seconds(self) -> float:
        return min(self.usual_seconds * _MOST_TYPICAL, _LONGEST_SECONDS)


@dataclass(frozen=True)
class Direct:
    """Transcribes a recording that came in one request. Without `jobs`, it cannot be handed over."""

    purchases: Purchases
    models: Models
    jobs: Jobs | None

    async def transcribe(
        self, file: BinaryIO, options: Options, caller: Caller, deadline: float
    ) -> Transcript | Job:
        """Return the transcript, or its job if it is not finished at `deadline` (`time.monotonic`)."""
        today = self.models.today()
        model = self.models.get(options.model)
        parameters = options.upstream_parameters(model, today)
        container = identify(file)
        digest = await anyio.to_thread.run_sync(sha256_of, file) if self.jobs else ""
        recording = _Recording(file, container, file.seek(0, 2), digest)
        times = options.needs_alignment(model)  # the cutter finds where the speech is
        handover = None
        if self.jobs and not options.unsupported_in_jobs:
            identity = answer_key(
                caller.owner, digest, options.job_options(model), self.models.base_url
            )[:32]
            handover = Handover(
                self.jobs, identity, file, container, options.job_options(model), caller, deadline
            )
        if handover and (times or not container.direct or _takes_too_long(recording, deadline)):
            return await handover.wait_for_result()
        if times:
            raise _without_times(options, model, today, self.jobs is not None)
        if not container.direct:
            raise UnsupportedMedia(
                f"The recording is {container.name}, which the speech service does not take."
                " Send WebM, MP4, Ogg, WAV, MP3 or FLAC."
            )
        request = PurchaseRequest(
            file, container, parameters, digest, recording.usual_seconds, recording.most_seconds
        )
        return await self._purchase(request, caller, handover, deadline)

    async def _purchase(
        self,
        request: PurchaseRequest,
        caller: Caller,
        handover: Handover | None,
        deadline: float,
    ) -> Transcript | Job:
        """Send the recording; hand it over if the upstream cannot transcribe it within the request."""
        within = (deadline - time.monotonic()) * (_DIRECT_SHARE if handover else 1)
        if within <= 0:
            raise UpstreamTimeout(
                "The request took too long to arrive: no time is left to transcribe the recording."
                " Nothing was billed. Send a shorter recording, or one in a compressed format.",
                safe_to_retry=True,
            )
        try:
            transcript = await self.purchases.transcript(
                request,
                caller,
                within,
                _ATTEMPTS,
                skip_if_possibly_billed=handover is not None,
            )
        except (
            UnreadableRecording,
            UpstreamTimeout,
            UpstreamBusy,
            BudgetExhausted,
            PossiblyBilled,
        ):
            # The cutter reads what the upstream cannot, has more time, and measures how long a recording really is.
            if handover is None:
                raise
            return await handover.wait_for_result()
        if handover and looks_truncated(request.recording, transcript.seconds_billed):
            return await handover.wait_for_result()
        return transcript


def _without_times(options: Options, model: Model, today: date, has_bucket: bool) -> InvalidOption:
    beyond = " and ".join(f"`{option}`" for option in options.unsupported_in_jobs)
    hindrances = [f"not beside {beyond}"] if beyond else []
    hindrances += [] if has_bucket else ["only where it has a bucket, which this server has not"]
    reason = ", and ".join(hindrances)
    others = f" {able('timed_format', today, elsewhere=model.elsewhere)}" if model.known else ""
    return InvalidOption(
        "response_format",
        f"{model.name} gives no times, and response_format={options.response_format} needs them."
        f" Steno adds them, but {reason}.{others}",
    )


def _takes_too_long(recording: _Recording, deadline: float) -> bool:
    expected = _START_SECONDS + recording.usual_seconds / _SPEED
    return expected > (deadline - time.monotonic()) * _DIRECT_SHARE
