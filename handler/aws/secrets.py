"""Provides secrets that are set in the settings or stored in Secrets Manager."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock

from pydantic import SecretStr

from handler.aws.clients import AWS
from handler.aws.outage import is_outage
from handler.errors import StorageUnavailable, UpstreamCredentials

log = logging.getLogger("steno")

# After the secret is rotated, its new value is used within this time. If the old value is rejected
# earlier, `Secret.renew` reads the new value immediately.
_CACHE_SECONDS = 300
_OUTAGE_CACHE_SECONDS = 30  # the pause between reads while Secrets Manager is unavailable


class Secret:
    """A secret from the settings, or one that is read from Secrets Manager and cached.

    `name` describes the secret in messages, for example "OpenAI key". If `configured` is None,
    the secret is read from Secrets Manager on first use.
    """

    def __init__(
        self,
        name: str,
        configured: SecretStr | None,
        arn: str | None,
        aws: AWS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._configured = configured
        self._arn = arn
        self._aws = aws
        self._clock = clock
        self._value = ""
        self._expires_at = 0.0
        self._reading: Future[str] | None = None
        self._lock = Lock()

    def get(self) -> str:
        """Return the secret.

        During the first read, all callers wait. When the cached value expires, one caller reads the
        secret again. During that read, the other callers get the cached value.
        Raises StorageUnavailable if Secrets Manager is unavailable and no value is cached. Raises
        UpstreamCredentials if the secret is empty or cannot be read for another reason.
        """
        if self._configured:
            return self._configured.get_secret_value()
        with self._lock:
            if self._value and (self._reading or self._clock() < self._expires_at):
                return self._value
        return self._read()

    def renew(self, rejected: str) -> bool:
        """Read the secret again, and return whether its value differs from the `rejected` one.

        Returns False if the secret comes from the settings.
        """
        if self._configured:
            return False
        if self._value == rejected:  # otherwise, another thread has already read the new value
            self._read()
        return self._value != rejected

    def _read(self) -> str:
        """Read the secret once for all concurrent callers. They all get the same value or error."""
        with self._lock:
            shared = self._reading
            reading = self._reading = shared or Future()
        if not shared:
            try:
                reading.set_result(self._fetch())
            except Exception as error:
                reading.set_exception(error)
            finally:
                with self._lock:
                    self._reading = None
        return reading.result()

    def _fetch(self) -> str:
        from botocore.exceptions import BotoCoreError, ClientError

        problem = "The secret is empty. Store the value as its secret string."
        value = ""
        try:
            response = self._aws.client("secretsmanager").get_secret_value(SecretId=self._arn)
            value = response.get("SecretString", "").strip()
        except (BotoCoreError, ClientError) as error:
            problem = str(error)
            if is_outage(error):
                log.warning(
                    "Cannot read the %s: Secrets Manager is unavailable. %s", self._name, problem
                )
                if not self._value:
                    raise StorageUnavailable(
                        f"The server's {self._name} cannot be read right now. Try again."
                    ) from None
                self._expires_at = self._clock() + _OUTAGE_CACHE_SECONDS
                return self._value  # most likely still valid
        self._value, self._expires_at = value, self._clock() + _CACHE_SECONDS
        if not value:
            log.error("Cannot read the %s from %s: %s", self._name, self._arn, problem)
            raise UpstreamCredentials(
                f"The server's {self._name} cannot be read. See the server's log."
            )
        return value
