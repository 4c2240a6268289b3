"""How a job's recording is asked about: the model, the options, and the names of the answers in the ledger."""

from dataclasses import dataclass
from typing import Any

from handler.billing.ledger import answer_key
from handler.errors import InvalidOption
from handler.jobs.job import Job
from handler.transcription.options import OpenAIOptions
from handler.upstream.models import DEFAULT_MODEL, MODELS, Models


@dataclass(frozen=True)
class UpstreamRequest:
    """`needs_alignment` says that times are wanted and that the model gives none."""

    model: str
    parameters: dict[str, Any]
    needs_alignment: bool
    upstream: str

    @classmethod
    def of(cls, job: Job, models: Models) -> "UpstreamRequest":
        try:
            model = models.get(job.options.get("model"))
        except InvalidOption:  # a model that another version of the API had
            model = MODELS[DEFAULT_MODEL]
        # A newer version of the API may have stored an option that this function does not have.
        options = OpenAIOptions.model_validate(job.options, extra="ignore")
        # Times are always asked for where the model gives them, so that any format can be fetched later.
        timed = options.model_copy(update={"response_format": "verbose_json"})
        return cls(
            model.name,
            timed.upstream_parameters(model, models.today()),
            options.needs_alignment(model),
            models.base_url,
        )

    def answer_key(self, owner: str, digest: str) -> str:
        """Return the key of the answer about the bytes with this SHA-256."""
        return answer_key(owner, digest, self.parameters, self.upstream)
