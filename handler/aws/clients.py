"""Creates boto3 clients with short timeouts and few retries. All of them share one session."""

from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

_MAX_CONNECTIONS = 50  # one connection for each thread that can use a client
_CONNECT_TIMEOUT_SECONDS = 2.0
# Four attempts of 4 s, plus the pauses between them, fit within the deadline of an HTTP request.
_READ_TIMEOUT_SECONDS = 4.0
_MAX_ATTEMPTS = 4


@dataclass(frozen=True)
class Limits:
    """Limits for requests to S3 and SQS.

    `read_seconds` is the read timeout of one attempt. `max_attempts` includes the first attempt.
    """

    read_seconds: float
    max_attempts: int


# The API function may create a job as late as 5.75 s before Lambda stops the function.
# That leaves enough time for two attempts of 2 s, with a pause of at most 1 s between them.
API_LIMITS = Limits(read_seconds=2.0, max_attempts=2)
WORKER_LIMITS = Limits(read_seconds=20.0, max_attempts=4)  # S3 is slow to confirm large uploads


class AWS:
    """Creates AWS clients that use the credentials from the environment."""

    def __init__(self) -> None:
        self._lock = Lock()

    @cached_property
    def _session(self) -> Any:
        import boto3  # this import takes 80 ms, so it is skipped if no client is needed

        return boto3.session.Session()

    def client_with_limits(self, service: str, limits: Limits, **config: Any) -> Any:
        """Return a new client for `service` that applies these `limits` to its requests."""
        retries = {"mode": "standard", "total_max_attempts": limits.max_attempts}
        return self.client(service, read_timeout=limits.read_seconds, retries=retries, **config)

    def client(self, service: str, **config: Any) -> Any:
        """Return a new client for `service`. `config` overrides the default botocore options."""
        with self._lock:
            return self._session.client(service, config=_config(**config))

    def table_client(self) -> Any:
        """Return a DynamoDB client that converts items to and from Python types.

        Unlike a boto3 resource, the client is safe to share between threads.
        """
        with self._lock:
            return self._session.resource("dynamodb", config=_config()).meta.client


def _config(**overrides: Any) -> Any:
    from botocore.config import Config

    defaults = {
        "max_pool_connections": _MAX_CONNECTIONS,
        "connect_timeout": _CONNECT_TIMEOUT_SECONDS,
        "read_timeout": _READ_TIMEOUT_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": _MAX_ATTEMPTS},
    }
    return Config(**{**defaults, **overrides})
