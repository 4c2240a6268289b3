"""Builds each client once, on its first use. The only module that reads secrets."""

import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from threading import Lock
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from pydantic import SecretStr

from handler.errors import UpstreamCredentials
from handler.settings import Settings

if TYPE_CHECKING:
    import httpx2

    from handler.speech import Speech

_SECRET_SECONDS = 300  # a rotated key that is refused is read at once; one that still works, within minutes


class Secret:
    """A secret's text: given in the settings, or read from Secrets Manager and kept for minutes."""

    def __init__(self, given: SecretStr | None, arn: str | None) -> None:
        self._given = given
        self._arn = arn
        self._read = ""
        self._read_at: float | None = None
        self._lock = Lock()

    def get(self) -> str:
        """Blocks while Secrets Manager is asked."""
        if self._given:
            return self._given.get_secret_value()
        with self._lock:
            if self._read_at is None or time.monotonic() - self._read_at > _SECRET_SECONDS:
                self._fetch()
            return self._read

    def renew(self) -> bool:
        """Reads it again; True if it has changed."""
        if self._given:
            return False
        with self._lock:
            before = self._read
            self._fetch()
            return self._read != before

    def _fetch(self) -> None:
        import boto3  # 80 ms that only a function with a secret to read pays
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = boto3.client("secretsmanager").get_secret_value(SecretId=self._arn)
        except (BotoCoreError, ClientError) as error:
            raise UpstreamCredentials(f"The secret {self._arn} cannot be read: {error}") from None
        self._read = answer.get("SecretString", "").strip()
        self._read_at = time.monotonic()
        if not self._read:
            raise UpstreamCredentials(f"The secret {self._arn} is empty; put the key into it as plain text.")


class Wiring:
    """The clients of one process. `transport` and `today` replace the network and the calendar."""

    def __init__(
        self,
        settings: Settings,
        *,
        transport: "httpx2.BaseTransport | None" = None,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self.settings = settings
        self.today = today
        self.openai_key = Secret(settings.openai_api_key, settings.openai_secret_arn)
        self.access_token = Secret(settings.access_token, settings.token_secret_arn)
        self._transport = transport
        self._limiter = anyio.CapacityLimiter(settings.max_concurrent_calls)
        self._speech: Speech | None = None
        self._lock = Lock()

    async def speech(self) -> "Speech":
        """In a thread the first time: importing the SDK takes as long as a fifth of a second."""
        if self._speech is None:
            self._speech = await anyio.to_thread.run_sync(self._build_speech)
        return self._speech

    def _build_speech(self) -> "Speech":
        with self._lock:
            if self._speech is None:
                from openai import DefaultHttpxClient, OpenAI

                from handler.speech import Speech

                client = OpenAI(
                    api_key=self.openai_key.get,
                    base_url=self.settings.openai_base_url,
                    max_retries=0,  # the SDK would also retry what may have been billed
                    http_client=DefaultHttpxClient(transport=self._transport) if self._transport else None,
                )
                self._speech = Speech(client, self.openai_key.renew, self._limiter)
            return self._speech
