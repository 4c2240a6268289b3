"""Build what the routes and the steps share, once for each process.

Nothing is read or connected before its first use.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from handler.aws.clients import AWS
from handler.aws.metrics import Metrics
from handler.aws.secrets import Secret
from handler.errors import NotFound
from handler.jobs.store import Jobs
from handler.settings import Settings
from handler.transcription.direct import Direct
from handler.transcription.purchase import Purchases
from handler.upstream.lazy_client import LazyClient
from handler.upstream.models import Models

if TYPE_CHECKING:
    import httpx2


@dataclass(frozen=True)
class Services:
    """What one process shares. `stored_jobs` is None on a server without a bucket."""

    settings: Settings
    metrics: Metrics
    models: Models
    openai_key: Secret
    access_token: Secret
    client: LazyClient
    direct: Direct
    stored_jobs: Jobs | None

    @property
    def jobs(self) -> Jobs:
        """Return the jobs. NotFound on a server without a bucket."""
        if self.stored_jobs is None:
            raise NotFound("This server takes no uploads: it has no bucket.")
        return self.stored_jobs


def build_services(
    settings: Settings,
    *,
    transport: "httpx2.BaseTransport | None" = None,
    today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    jobs: Jobs | None = None,
    metrics: Metrics | None = None,
) -> Services:
    """Return what the settings describe. `transport` and `today` replace the network and the calendar."""
    aws = AWS()
    if metrics is None:
        metrics = Metrics(
            sys.stdout if settings.aws_lambda_function_name else None, settings.metrics_namespace
        )
    if jobs is None and settings.bucket_name:
        jobs = Jobs(settings, aws=aws)
    models = Models(settings.whisper_model, settings.openai_base_url, today)
    key = Secret("OpenAI key", settings.openai_api_key, settings.openai_secret_arn, aws)
    client = LazyClient(key, settings.openai_base_url, settings.max_concurrent_calls, transport)
    return Services(
        settings,
        metrics,
        models,
        key,
        Secret("access token", settings.access_token, settings.token_secret_arn, aws),
        client,
        Direct(Purchases(client, metrics, models, jobs), models, jobs),
        jobs,
    )
