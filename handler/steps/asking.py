"""How a job's recording is asked about: the model, the options, and the names of the answers in the ledger."""

from dataclasses import dataclass
from typing import Any

from handler.billing.ledger import key_of
from handler.errors import InvalidOption
from handler.jobs.job import Job
from handler.transcription.options import OpenAIOptions
from handler.upstream.models import DEFAULT_MODEL, MODELS, Models


@dataclass(frozen=True)
class Asking:
    """`needs_alignment` says that times are wanted and that the model gives none."""

    model: str
    parameters: dict[str, Any]
    needs_alignment: bool
    upstream: str

    @classmethod
    def of(cls, job: Job, models: Models) -> "Asking":
        try:
            model = models.get(job.options.get("model"))
        except InvalidOption:  # a model that another version of the API had
            model = MODELS[DEFAULT_MODEL]
        # A newer version of the API may have stored an option that this function does not have.
        options = OpenAIOptions.model_validate(job.options, extra="ignore")
        # Times are always asked for where the model gives them, so that any format can be fetched later.
        timed = options.model_copy(update={"response_format": "verbose_json"})
        return cls(model.name, timed.for_model(model, models.today()), options.ask_for_times(model), models.base_url)

    def entry(self, owner: str, digest: str) -> str:
        """Return the key of the answer about the bytes with this SHA-256."""
        return key_of(owner, digest, self.parameters, self.upstream)
