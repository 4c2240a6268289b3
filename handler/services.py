"""Builds the objects that the routes and the steps share. Each process builds them once.

Connections are opened and secrets are read on first use, not when the objects are built.
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
from handler.upstream.throttle import Throttle

if TYPE_CHECKING:
    import httpx2


@dataclass(frozen=True)
class Services:
    """The objects that a process shares.

    `clients` maps the name of each upstream to its client. `stored_jobs` is None on a server
    without a bucket.
    """

    settings: Settings
    metrics: Metrics
    models: Models
    access_token: Secret
    clients: dict[str, LazyClient]
    direct: Direct
    stored_jobs: Jobs | None

    @property
    def jobs(self) -> Jobs:
        """Return the job store. Raises NotFound on a server without a bucket."""
        if self.stored_jobs is None:
            raise NotFound(
                "This server does not support uploads or jobs, because BUCKET_NAME is not set."
            )
        return self.stored_jobs


def build_services(
    settings: Settings,
    *,
    transport: "httpx2.BaseTransport | None" = None,
    today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    jobs: Jobs | None = None,
    metrics: Metrics | None = None,
) -> Services:
    """Build the services for these settings.

    The optional arguments replace the defaults: `transport` sends requests to the upstream,
    `today` returns the current date, `jobs` is the job store, and `metrics` writes the metrics.
    """
    aws = AWS()
    if metrics is None:
        output = sys.stdout if settings.aws_lambda_function_name else None
        metrics = Metrics(output, settings.metrics_namespace)
    if jobs is None and settings.bucket_name:
        jobs = Jobs(settings, aws=aws)
    models = settings.build_models(today)
    clients = _build_clients(settings, aws, transport)
    throttles = build_throttles(models, jobs) if jobs else {}
    return Services(
        settings,
        metrics,
        models,
        Secret("access token", settings.access_token, settings.token_secret_arn, aws),
        clients,
        Direct(Purchases(clients, throttles, metrics, jobs), models, jobs),
        jobs,
    )


def _build_clients(
    settings: Settings, aws: AWS, transport: "httpx2.BaseTransport | None"
) -> dict[str, LazyClient]:
    calls = settings.max_concurrent_calls
    if not settings.upstreams:
        key = Secret("OpenAI key", settings.openai_api_key, settings.openai_secret_arn, aws)
        return {"": LazyClient(key, settings.openai_base_url, calls, transport)}
    clients = {}
    for upstream in settings.upstreams:
        key = Secret(f"key of {upstream.name}", upstream.api_key, upstream.secret_arn, aws)
        clients[upstream.name] = LazyClient(key, upstream.base_url, calls, transport)
    return clients


def build_throttles(models: Models, jobs: Jobs) -> dict[str, Throttle]:
    """Return a dict that maps the name of each upstream to its throttle."""
    return {
        upstream.name: Throttle(jobs.client, jobs.table, upstream.base_url, jobs.clock)
        for upstream in models.upstreams
    }
