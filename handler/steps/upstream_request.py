"""The upstream request for a job: its model, its parameters, and the ledger keys of its answers."""

from dataclasses import dataclass
from typing import Any

from handler.billing.ledger import answer_key
from handler.errors import InvalidOption
from handler.jobs.job import Job
from handler.transcription.options import OpenAIOptions
from handler.upstream.models import DEFAULT_MODEL, MODELS, Models


@dataclass(frozen=True)
class UpstreamRequest:
    """The settings of the requests that are sent to the upstream for a job.

    `needs_alignment` is true if the job needs times and the model does not return them. `upstream`
    is the base URL.
    """

    model: str
    parameters: dict[str, Any]
    needs_alignment: bool
    upstream: str

    @classmethod
    def for_job(cls, job: Job, models: Models) -> "UpstreamRequest":
        """Return the settings for a job.

        If another release created the job, its options may have a model or a field that this
        release does not have. Then the default model is used, and the field is ignored.
        """
        try:
            model = models.get(job.options.get("model"))
        except InvalidOption:
            model = MODELS[DEFAULT_MODEL]
        options = OpenAIOptions.model_validate(job.options, extra="ignore")
        # Request times from each model that supports them, so that callers can read the transcript
        # in any format.
        timed = options.model_copy(update={"response_format": "verbose_json"})
        return cls(
            model.name,
            timed.upstream_parameters(model, models.today()),
            options.needs_alignment(model),
            models.base_url,
        )

    def answer_key(self, owner: str, digest: str) -> str:
        """Return the ledger key of the answer for a file with the SHA-256 `digest`."""
        return answer_key(owner, digest, self.parameters, self.upstream)
