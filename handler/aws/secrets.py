"""Secrets: given in the settings, or read from Secrets Manager on first use and kept for minutes."""

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

_SECRET_SECONDS = (
    300  # a rotated key that is refused is read at once; one that still works, within minutes
)
_OUTAGE_SECONDS = (
    30  # until a secret that is known is read again, where Secrets Manager did not answer
)


class Secret:
    """A secret's text: given in the settings, or read from Secrets Manager and kept for minutes."""

    def __init__(
        self,
        name: str,
        given: SecretStr | None,
        arn: str | None,
        aws: AWS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._given = given
        self._arn = arn
        self._aws = aws
        self._clock = clock
        self._text = ""
        self._read_again_at = 0.0
        self._reading: Future[str] | None = None
        self._lock = Lock()

    def get(self) -> str:
        """Return the text. Blocks while it is read for the first time, or by this caller again."""
        if self._given:
            return self._given.get_secret_value()
        with self._lock:
            if self._text and (self._reading or self._clock() < self._read_again_at):
                return self._text
        return self._read()

    def renew(self, refused: str) -> bool:
        """Whether there is another text than the `refused` one; reads the secret again to know."""
        if self._given:
            return False
        if self._text == refused:  # else another thread has just read the new one
            self._read()
        return self._text != refused

    def _read(self) -> str:
        """Read the secret, once for all who ask meanwhile: they share the text or the failure."""
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

        trouble = "it is empty; put the text itself into it"
        text = ""
        try:
            answer = self._aws.client("secretsmanager").get_secret_value(SecretId=self._arn)
            text = answer.get("SecretString", "").strip()
        except (BotoCoreError, ClientError) as error:
            trouble = str(error)
            if is_outage(error):
                log.warning("The %s cannot be read right now: %s", self._name, trouble)
                if not self._text:
                    raise StorageUnavailable(
                        f"The server's {self._name} cannot be read right now."
                    ) from None
                self._read_again_at = self._clock() + _OUTAGE_SECONDS
                return self._text  # the one that is known, which most likely still holds
        self._text, self._read_again_at = text, self._clock() + _SECRET_SECONDS
        if not text:
            log.error("The %s cannot be read from %s: %s", self._name, self._arn, trouble)
            raise UpstreamCredentials(
                f"The server's {self._name} cannot be read; its log says why."
            )
        return text
