"""Builds each client once, on its first use. The only module that reads secrets."""

import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, date, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from pydantic import SecretStr

from handler.aws.clients import AWS
from handler.aws.metrics import Metrics
from handler.aws.outage import is_outage
from handler.billing.budget import Budget
from handler.billing.ledger import Ledger, key_of
from handler.errors import NotFound, StorageUnavailable, UpstreamCredentials
from handler.jobs.store import Jobs
from handler.settings import Settings
from handler.transcription.options import model_for
from handler.upstream.models import Model

if TYPE_CHECKING:
    import httpx2

    from handler.upstream.client import Speech

log = logging.getLogger("steno")

_SECRET_SECONDS = 300  # a rotated key that is refused is read at once; one that still works, within minutes
_OUTAGE_SECONDS = 30  # until a secret that is known is read again, where Secrets Manager did not answer


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
                reading.set_result(self._fetched())
            except Exception as error:
                reading.set_exception(error)
            finally:
                with self._lock:
                    self._reading = None
        return reading.result()

    def _fetched(self) -> str:
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
                    raise StorageUnavailable(f"The server's {self._name} cannot be read right now.") from None
                self._read_again_at = self._clock() + _OUTAGE_SECONDS
                return self._text  # the one that is known, which most likely still holds
        self._text, self._read_again_at = text, self._clock() + _SECRET_SECONDS
        if not text:
            log.error("The %s cannot be read from %s: %s", self._name, self._arn, trouble)
            raise UpstreamCredentials(f"The server's {self._name} cannot be read; its log says why.")
        return text


class Wiring:
    """The clients of one process. `transport` and `today` replace the network and the calendar."""

    def __init__(
        self,
        settings: Settings,
        *,
        transport: "httpx2.BaseTransport | None" = None,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
        jobs: Jobs | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.settings = settings
        self.today = today
        self._aws = AWS()
        self.openai_key = Secret("OpenAI key", settings.openai_api_key, settings.openai_secret_arn, self._aws)
        self.access_token = Secret("access token", settings.access_token, settings.token_secret_arn, self._aws)
        log = sys.stdout if settings.aws_lambda_function_name else None
        self.metrics = metrics or Metrics(log, settings.metrics_namespace)
        self._transport = transport
        self._jobs = jobs or (Jobs(settings, aws=self._aws) if settings.bucket_name else None)
        self._speech: Speech | None = None
        self._lock = Lock()

    @property
    def jobs(self) -> Jobs:
        """NotFound where this server has no bucket."""
        if self._jobs is None:
            raise NotFound("This server takes no uploads: it has no bucket.")
        return self._jobs

    def model_for(self, name: str | None) -> Model:
        """The model that answers today for `name`, or for the server's own choice; InvalidOption if nobody knows it."""
        return model_for(name or self.settings.whisper_model, self.today(), self.settings.openai_base_url)

    def prepare(self) -> None:
        """Builds what nearly every request needs: a start on Lambda has more of a processor than a request has."""
        if self._jobs:
            self._jobs.client  # noqa: B018 - it is built on its first use

    @property
    def ledger(self) -> Ledger | None:
        """None where this server has no table: then what is sent twice is paid twice."""
        return self._jobs.ledger if self._jobs else None

    def question(self, owner: str, digest: str, parameters: dict[str, Any]) -> str:
        """The ledger's name for these bytes, asked about by this owner in this way, of this upstream."""
        return key_of(owner, digest, {**parameters, "upstream": self.settings.openai_base_url})

    @property
    def budget(self) -> Budget:
        return self.jobs.budget

    async def speech(self) -> "Speech":
        """In a thread the first time: the client, with all the certificates it trusts, takes a while to build."""
        if self._speech is None:
            self._speech = await anyio.to_thread.run_sync(self.build_speech)
        return self._speech

    def build_speech(self) -> "Speech":
        with self._lock:
            if self._speech is None:
                from handler.upstream.client import Speech

                self._speech = Speech(
                    self.openai_key,
                    self.settings.openai_base_url,
                    self.settings.max_concurrent_calls,
                    transport=self._transport,
                )
            return self._speech
