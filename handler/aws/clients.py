"""AWS's clients: of one session, each built on its first use, and patient for seconds only."""

from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

_CONNECTIONS = 50  # as many as there are threads to use them
_CONNECT_SECONDS = 2.0
_READ_SECONDS = 4.0  # four times that, with the pauses between, is within a request's time
_TRIES = 4


@dataclass(frozen=True)
class Limits:
    """How long S3 and SQS are waited for: seconds for the answer to one try, and the number of tries."""

    read_seconds: float
    tries: int


# A request can become a job as late as 5.75 s before Lambda ends the API's function: two tries,
# with the pause of at most a second between them, have to fit in.
API_LIMITS = Limits(read_seconds=2.0, tries=2)
WORKER_LIMITS = Limits(read_seconds=20.0, tries=4)  # S3 takes a while to confirm what is large


class AWS:
    """The clients of the account whose credentials the environment gives."""

    def __init__(self) -> None:
        self._lock = Lock()

    @cached_property
    def _session(self) -> Any:
        import boto3  # 80 ms, that only a function which needs AWS pays

        return boto3.session.Session()

    def limited(self, service: str, limits: Limits, **config: Any) -> Any:
        """A client that waits for its service no longer than `limits` say."""
        retries = {"mode": "standard", "total_max_attempts": limits.tries}
        return self.client(service, read_timeout=limits.read_seconds, retries=retries, **config)

    def client(self, service: str, **config: Any) -> Any:
        with self._lock:
            return self._session.client(service, config=_config(**config))

    def table_client(self) -> Any:
        """A client of DynamoDB that speaks Python's types; unlike the resource, it is safe in threads."""
        with self._lock:
            return self._session.resource("dynamodb", config=_config()).meta.client


def _config(**more: Any) -> Any:
    from botocore.config import Config

    usual = {
        "max_pool_connections": _CONNECTIONS,
        "connect_timeout": _CONNECT_SECONDS,
        "read_timeout": _READ_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": _TRIES},
    }
    return Config(**{**usual, **more})
