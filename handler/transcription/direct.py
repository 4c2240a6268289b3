"""Transcription within one request.

The recording is sent to the upstream. If the upstream fails or is too slow, the recording is handed
over to a job.
"""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import BinaryIO

import anyio
import anyio.to_thread

from handler.billing.ledger import answer_key, sha256_of
from handler.errors import (
    BudgetExhausted,
    InvalidOption,
    RecordingTooLarge,
    UnreadableRecording,
    UnsupportedMedia,
    UpstreamBusy,
    UpstreamTimeout,
)
from handler.jobs.job import Caller, Job
from handler.jobs.store import Jobs
from handler.recordings.container import Container, identify, looks_truncated
from handler.transcription.handover import Handover
from handler.transcription.listener import Listener
from handler.transcription.options import Options
from handler.transcription.purchase import PossiblyBilled, PurchaseRequest, Purchases
from handler.transcripts.transcript import Transcript
from handler.upstream.models import Models
from handler.upstream.profiles import Model

_MAX_ATTEMPTS = 3
# The share of the remaining time that the direct attempt may use. The rest of the time is needed to
# create a job.
_DIRECT_SHARE = 0.85
# The assumed speed of a slow upstream (in seconds of audio per second), and its assumed latency (in
# seconds).
_SLOW_UPSTREAM_SPEED = 20.0
_SLOW_UPSTREAM_LATENCY = 2.0
# The exact duration is unknown before the upstream responds. The estimate of the maximum duration
# is a multiple of the typical duration of a file of this size. It never exceeds _MAX_SECONDS.
_MAX_SECONDS = 1400.0
_MAX_TYPICAL_RATIO = 8.0


@dataclass(frozen=True)
class _Recording:
    file: BinaryIO
    container: Container
    size: int
    digest: str

    @property
    def typical_seconds(self) -> float:
        return self.size / self.container.bytes_per_second

    @property
    def max_seconds(self) -> float:
        return min(self.typical_seconds * _MAX_TYPICAL_RATIO, _MAX_SECONDS)


@dataclass(frozen=True)
class Direct:
    """Transcribes the recording of a request.

    `jobs` is None on a server without a bucket. Such a server cannot create jobs.
    """

    purchases: Purchases
    models: Models
    jobs: Jobs | None

    async def transcribe(
        self,
        file: BinaryIO,
        options: Options,
        caller: Caller,
        deadline: float,
        listener: Listener | None = None,
    ) -> Transcript | Job:
        """Return the transcript, or the job if it has not finished by `deadline`.

        `deadline` is a value of `time.monotonic()`. If there is a `listener`, it receives the text
        while the transcription runs, and a job may take longer than the deadline. Raises a
        StenoError if the transcription fails.
        """
        model = self.models.get(options.model)
        parameters = options.upstream_parameters(model, self.models)
        container = identify(file)
        digest = await anyio.to_thread.run_sync(sha256_of, file) if self.jobs else ""
        recording = _Recording(file, container, file.seek(0, 2), digest)
        # Alignment requires the speech intervals, which are detected only in a job.
        needs_alignment = options.needs_alignment(model)
        handover = None
        if self.jobs and not options.unsupported_in_jobs:
            job_options = options.job_options(model)
            job_id = answer_key(caller.owner, digest, job_options, model.base_url)[:32]
            handover = Handover(
                self.jobs, job_id, file, container, job_options, caller, deadline, listener
            )
        too_large = model.max_bytes is not None and recording.size > model.max_bytes
        too_long = model.max_seconds is not None and recording.typical_seconds > model.max_seconds
        if handover and (
            needs_alignment
            or options.needs_word_alignment(model)
            or not container.direct
            or too_large
            or too_long
            or _takes_too_long(recording, deadline)
        ):
            return await handover.wait_for_result()
        if needs_alignment:
            raise _timestamps_unavailable(options, model, self.models, self.jobs is not None)
        if not container.direct:
            raise UnsupportedMedia(
                f"The speech service does not accept {container.name} recordings."
                " Send WebM, MP4, Ogg, WAV, MP3 or FLAC."
            )
        if too_large:
            raise RecordingTooLarge(
                f"{model.full_name} accepts at most {model.max_bytes:,} bytes. Send a shorter"
                " recording, or one in a compressed format."
            )
        request = PurchaseRequest(
            file,
            container,
            model,
            parameters,
            digest,
            recording.typical_seconds,
            recording.max_seconds,
            listener,
        )
        request = replace(request, fallbacks=self._fallbacks(request, options))
        return await self._purchase(request, caller, handover, deadline)

    def _fallbacks(self, request: PurchaseRequest, options: Options) -> tuple[PurchaseRequest, ...]:
        """Return a request for each fallback model that supports the options."""
        fallbacks = []
        for model in self.models.fallbacks_for(request.model):
            if options.needs_alignment(model):
                continue
            with suppress(InvalidOption):
                parameters = options.upstream_parameters(model, self.models)
                fallbacks.append(replace(request, model=model, parameters=parameters))
        return tuple(fallbacks)

    async def _purchase(
        self,
        request: PurchaseRequest,
        caller: Caller,
        handover: Handover | None,
        deadline: float,
    ) -> Transcript | Job:
        """Send the recording. Hand it over to a job if the upstream fails or takes too long."""
        timeout_seconds = (deadline - time.monotonic()) * (_DIRECT_SHARE if handover else 1)
        if timeout_seconds <= 0:
            raise UpstreamTimeout(
                "The upload took too long, so no time is left to transcribe the recording."
                " Nothing was billed. Send a shorter recording, or one in a compressed format.",
                safe_to_retry=True,
            )
        try:
            transcript = await self.purchases.transcribe(
                request,
                caller,
                timeout_seconds,
                _MAX_ATTEMPTS,
                skip_if_possibly_billed=handover is not None,
            )
        except (
            UnreadableRecording,
            UpstreamTimeout,
            UpstreamBusy,
            BudgetExhausted,
            PossiblyBilled,
        ) as error:
            # A job can still succeed: it supports more formats, has more time, and reserves less of
            # the budget, because it measures the duration.
            if handover is None:
                raise
            if isinstance(error, PossiblyBilled):
                handover = handover.with_model_only(error.model)
            return await handover.wait_for_result()
        if handover and looks_truncated(request.recording, transcript.seconds_billed):
            return await handover.wait_for_result()
        return transcript


def _timestamps_unavailable(
    options: Options, model: Model, models: Models, has_bucket: bool
) -> InvalidOption:
    """Return the error for timestamps that neither the model nor a job can provide."""
    sentences = [
        f"response_format={options.response_format} requires timestamps, which {model.name} does"
        " not return."
    ]
    if unsupported := " or ".join(f"`{option}`" for option in options.unsupported_in_jobs):
        sentences.append(f"Steno can add timestamps only to requests without {unsupported}.")
    if not has_bucket:
        sentences.append(
            "Steno can add timestamps only on a server that has a bucket. This one has none."
        )
    if model.is_documented:
        sentences.append(models.suggest("timestamps"))
    return InvalidOption("response_format", " ".join(sentences))


def _takes_too_long(recording: _Recording, deadline: float) -> bool:
    expected = _SLOW_UPSTREAM_LATENCY + recording.typical_seconds / _SLOW_UPSTREAM_SPEED
    return expected > (deadline - time.monotonic()) * _DIRECT_SHARE
