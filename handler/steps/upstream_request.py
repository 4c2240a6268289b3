"""Builds the upstream requests for a job, and the ledger keys of their results."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from handler.billing.ledger import answer_key
from handler.errors import InvalidOption
from handler.jobs.job import Job
from handler.transcription.options import OpenAIOptions
from handler.upstream.models import Models
from handler.upstream.profiles import Model


@dataclass(frozen=True)
class UpstreamRequest:
    """The settings of the requests that are sent to the upstream for a job.

    `needs_alignment` is True if the job requires timestamps that the model does not return.
    """

    model: Model
    parameters: dict[str, Any]
    needs_alignment: bool

    @classmethod
    def for_job(cls, job: Job, models: Models) -> "UpstreamRequest":
        """Return the settings for a job.

        If another release created the job, its options may contain a model or a field that this
        release does not support. In that case, the default model is used, or the field is ignored.
        """
        try:
            model = models.get(job.options.get("model"))
        except InvalidOption:
            model = models.get()
        return cls._for_model(job, model, models)

    @classmethod
    def fallbacks(cls, job: Job, models: Models) -> "list[UpstreamRequest]":
        """Return the settings for the fallback models that support the job's options.

        The list is empty if the recording may already have been billed: either in the request that
        was handed over to this job, or in an earlier generation.
        """
        if job.options.get("fallback") is False or job.paid_earlier > 0:
            return []
        first = cls.for_job(job, models)
        requests = []
        for model in models.fallbacks_for(first.model):
            with suppress(InvalidOption):
                request = cls._for_model(job, model, models)
                # Alignment requires shorter parts. So skip a model if only one of the two models
                # requires alignment.
                if request.needs_alignment == first.needs_alignment:
                    requests.append(request)
        return requests

    @classmethod
    def _for_model(cls, job: Job, model: Model, models: Models) -> "UpstreamRequest":
        options = OpenAIOptions.model_validate(job.options, extra="ignore")
        # Request timestamps from each model that supports them, so that callers can read the
        # transcript in any format.
        timed = options.model_copy(update={"response_format": "verbose_json"})
        return cls(
            model,
            timed.upstream_parameters(model, models),
            options.needs_alignment(model),
        )

    def answer_key(self, owner: str, digest: str) -> str:
        """Return the ledger key of the result for a file with the SHA-256 `digest`."""
        return answer_key(owner, digest, self.parameters, self.model.base_url)
