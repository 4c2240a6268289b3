"""A recording that came in one request: sent to the speech service at once, or made a job where that cannot do."""

import time
from dataclasses import dataclass
from datetime import date
from typing import Any, BinaryIO
from uuid import uuid4

import anyio
import anyio.to_thread

from handler.errors import (
    BudgetExhausted,
    InvalidOption,
    NotFound,
    UnreadableRecording,
    UnsupportedMedia,
    UpstreamBusy,
    UpstreamTimeout,
    error_of,
)
from handler.jobs.job import Caller, Job
from handler.recordings.container import Container, identify, lacks_most
from handler.transcription.options import Options
from handler.transcription.purchase import InDoubt, Payment, Question, digest_of
from handler.transcripts.transcript import Transcript
from handler.upstream.models import Model, able
from handler.wiring import Wiring

_ATTEMPTS = 3
_LOOK_SECONDS = 0.25
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


async def transcribe(
    wiring: Wiring, file: BinaryIO, options: Options, caller: Caller, deadline: float
) -> Transcript | Job:
    """Return the transcript, or its job if it is not finished at `deadline` (`time.monotonic`)."""
    today = wiring.today()
    model = wiring.model_for(options.model)
    parameters = options.for_model(model, today)
    container = identify(file)
    has_books = wiring.ledger is not None
    digest = await anyio.to_thread.run_sync(digest_of, file) if has_books else ""
    recording = _Recording(file, container, file.seek(0, 2), digest)
    times = options.ask_for_times(model)  # the worker hears where the speech is
    has_sure_way = wiring.settings.bucket_name is not None and not options.beyond_jobs
    sure = SureWay(wiring, recording, options.of_job(model), caller, deadline, has_sure_way)
    if sure.is_open and (times or not container.direct or _takes_too_long(recording, deadline)):
        return await sure.outcome()
    if times:
        raise _without_times(options, model, today, wiring.settings.bucket_name is not None)
    if not container.direct:
        raise UnsupportedMedia(
            f"The recording is {container.name}, which the speech service does not take."
            " Send WebM, MP4, Ogg, WAV, MP3 or FLAC."
        )
    if time.monotonic() >= deadline:
        raise UpstreamTimeout(
            "The request took too long to arrive: no time is left to transcribe the recording."
            " Nothing was billed. Send a shorter recording, or one in a compressed format.",
            again=True,
        )
    question = Question(file, container, parameters, recording.digest, recording.usual_seconds, recording.most_seconds)
    payment = Payment(wiring, caller, uuid4().hex)
    within = (deadline - time.monotonic()) * (_DIRECT_SHARE if sure.is_open else 1)
    try:
        paid = await payment.transcript(question, within, _ATTEMPTS, doubtless=sure.is_open)
    except (UnreadableRecording, UpstreamTimeout, UpstreamBusy, BudgetExhausted, InDoubt):
        # The worker reads what the speech service cannot, has more time, and knows how long a recording really is.
        if not sure.is_open:
            raise
        return await sure.outcome()
    if sure.is_open and lacks_most(file, paid.transcript.seconds_billed):
        return await sure.outcome()
    return paid.transcript


def _without_times(options: Options, model: Model, today: date, has_bucket: bool) -> InvalidOption:
    beyond = " and ".join(f"`{option}`" for option in options.beyond_jobs)
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


@dataclass(frozen=True)
class SureWay:
    """The recording as a job. The same recording, asked about in the same way, is always the same job."""

    wiring: Wiring
    recording: _Recording
    options: dict[str, Any]
    caller: Caller
    deadline: float
    is_open: bool

    async def outcome(self) -> Transcript | Job:
        """The job's transcript or its error; the job itself where it is not finished in time."""
        jobs = self.wiring.jobs
        job = await anyio.to_thread.run_sync(self._adopted)
        while not job.finished and time.monotonic() < self.deadline:
            await anyio.sleep(_LOOK_SECONDS)
            job = await anyio.to_thread.run_sync(jobs.get, job.id)
        if job.status == "failed":
            error = error_of(**(job.error or {"code": "", "detail": ""}))
            error.job = job.id
            raise error
        return await anyio.to_thread.run_sync(jobs.transcript, job) if job.finished else job

    def _adopted(self) -> Job:
        identity = self.wiring.question(self.caller.owner, self.recording.digest, self.options)[:32]
        try:
            self.wiring.jobs.get(identity)
        except NotFound:  # a new job, which will cost something
            self.wiring.budget.check(self.caller.account)
        return self.wiring.jobs.adopt(
            identity,
            self.recording.file,
            self.recording.container,
            self.options,
            self.caller,
        )
