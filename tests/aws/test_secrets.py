"""secrets.py: secrets are read on first use, kept, and read again when the upstream refuses them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import boto3
import pytest
from botocore.awsrequest import AWSResponse
from moto import mock_aws

from handler.aws.clients import AWS
from handler.aws.secrets import Secret
from handler.errors import StorageUnavailable, UpstreamCredentials
from handler.services import build_services
from tests.conftest import app, settings
from tests.false_upstream import FalseUpstream, refused

pytestmark = pytest.mark.anyio


@pytest.fixture
def vault(monkeypatch):
    """Secrets Manager in this process, with a key in it."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        yield Vault()


class Vault:
    def __init__(self):
        self._client = boto3.client("secretsmanager")
        self.arn = self._client.create_secret(Name="openai", SecretString="sk-first\n")["ARN"]

    def rotate(self, value):
        self._client.put_secret_value(SecretId=self.arn, SecretString=value)


def test_a_secret_is_read_on_first_use_and_then_kept(vault):
    secret = Secret("key", None, vault.arn, AWS())
    assert secret.get() == "sk-first"
    vault.rotate("sk-second")
    assert secret.get() == "sk-first"


def test_renewing_tells_whether_the_secret_has_changed(vault):
    secret = Secret("key", None, vault.arn, AWS())
    secret.get()
    assert not secret.renew("sk-first")
    vault.rotate("sk-second")
    assert secret.renew("sk-first")
    assert secret.renew(
        "sk-first"
    )  # refused under the old key, and another call has read the new one meanwhile
    assert secret.get() == "sk-second"


def test_a_secret_given_in_the_settings_asks_nobody():
    secret = Secret("key", settings().openai_api_key, None, AWS())
    assert secret.get() == "sk-test-key"
    assert not secret.renew("sk-test-key")


def test_an_empty_or_missing_secret_is_the_owners_to_mend_and_only_the_log_names_it(vault, caplog):
    vault.rotate(" ")
    for arn in (vault.arn, "arn:aws:secretsmanager:eu-west-1:123456789012:secret:nobody"):
        secret = Secret("OpenAI key", None, arn, AWS())
        for _ in range(2):  # a failure is not kept as if it were the secret
            with pytest.raises(
                UpstreamCredentials, match="The server's OpenAI key cannot be read"
            ) as failure:
                secret.get()
        assert "arn:" not in failure.value.detail
        assert arn in caplog.text


async def test_a_token_that_cannot_be_read_opens_nothing(vault, client, webm):
    vault.rotate(" ")
    upstream = FalseUpstream()
    http = client(upstream, auth="token", token_secret_arn=vault.arn)
    for _ in range(3):
        assert http.post("/api/transcribe", files={"file": webm}).status_code == 502
    assert upstream.calls == []


async def test_a_rotated_key_is_read_again_once_and_the_recording_still_transcribes(
    vault, client, webm
):
    upstream = FalseUpstream(refused(401, "invalid_api_key"))
    http = client(upstream, openai_api_key=None, openai_secret_arn=vault.arn)
    secret_of_the_first_call = http.post("/api/transcribe", files={"file": webm})
    assert (
        secret_of_the_first_call.status_code == 502
    )  # the same key came back: nothing to try again with
    vault.rotate("sk-second")
    upstream.replies.append(refused(401, "invalid_api_key"))
    assert http.post("/api/transcribe", files={"file": webm}).json() == {
        "transcript": "Ever tried."
    }
    keys = [call.authorization for call in upstream.calls]
    assert keys == ["Bearer sk-first", "Bearer sk-first", "Bearer sk-second"]


async def test_the_access_token_may_be_a_secret_too(vault, client, webm):
    vault.rotate("open-sesame")
    http = client(auth="token", token_secret_arn=vault.arn)
    assert http.post("/api/transcribe", files={"file": webm}).status_code == 401
    headers = {"Authorization": "Bearer open-sesame"}
    assert http.post("/api/transcribe", files={"file": webm}, headers=headers).status_code == 200


async def test_nothing_is_read_until_somebody_asks():
    app(openai_api_key=None, openai_secret_arn="arn:aws:secretsmanager:eu-west-1:1:secret:nobody")


async def test_the_client_is_built_once_however_many_ask_first():
    services, built = build_services(settings()), []

    async def ask():
        built.append(await services.client.ready())

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask)
    assert len(set(map(id, built))) == 1


# When Secrets Manager does not answer


class Interrupted(AWS):
    """AWS in this process, where Secrets Manager answers 503 while it is `out`, once `gate` is open."""

    def __init__(self):
        super().__init__()
        self.out = False
        self.gate = threading.Event()
        self.asked = threading.Semaphore(0)
        self.reads = 0

    def client(self, service, **config):
        client = super().client(service, **config, retries={"total_max_attempts": 1})
        client.meta.events.register_first("before-send.secretsmanager", self._answer)
        return client

    def _answer(self, request, **_):
        self.reads += 1
        self.asked.release()
        if not self.out:
            return None
        self.gate.wait(10)
        return AWSResponse(request.url, 503, {}, Body(b"{}"))


class Body:
    def __init__(self, content):
        self._content = content

    def stream(self, **_):
        yield self._content


class Now:
    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


def test_a_known_secret_that_cannot_be_read_again_is_used_and_is_asked_for_again_after_30_seconds(
    vault,
):
    aws, now = Interrupted(), Now()
    aws.gate.set()
    secret = Secret("key", None, vault.arn, aws, now)
    assert secret.get() == "sk-first"
    vault.rotate("sk-second")
    aws.out = True
    for seconds, reads in ((301, 2), (29, 2), (2, 3)):
        now.seconds += seconds
        assert [secret.get(), secret.get()] == ["sk-first"] * 2
        assert aws.reads == reads
    aws.out = False
    now.seconds += 31
    assert secret.get() == "sk-second"
    now.seconds += 299
    secret.get()
    assert aws.reads == 4


def test_nobody_waits_for_another_callers_read_of_a_secret_that_is_known(vault):
    aws, now = Interrupted(), Now()
    secret = Secret("key", None, vault.arn, aws, now)
    secret.get()
    aws.asked.acquire()
    aws.out, now.seconds = True, now.seconds + 301
    with ThreadPoolExecutor(5) as pool:
        reader = pool.submit(secret.get)
        assert aws.asked.acquire(timeout=10)
        try:
            others = [pool.submit(secret.get) for _ in range(4)]
            assert [other.result(timeout=10) for other in others] == ["sk-first"] * 4
            assert not reader.done()
        finally:
            aws.gate.set()
    assert (reader.result(), aws.reads) == ("sk-first", 2)


def test_callers_that_wait_for_the_first_read_share_its_failure(vault):
    aws, together = Interrupted(), threading.Barrier(5)
    aws.out = True
    secret = Secret("key", None, vault.arn, aws)

    def ask():
        together.wait(10)
        secret.get()

    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(ask) for _ in range(5)]
        assert aws.asked.acquire(timeout=10)
        aws.gate.set()
    assert {type(one.exception()) for one in asked} == {StorageUnavailable}
    assert aws.reads < 5  # one after another, they would be 5
    aws.out = False
    assert secret.get() == "sk-first"


def test_a_secret_that_is_taken_away_is_not_used_any_more(vault):
    now = Now()
    secret = Secret("access token", None, vault.arn, AWS(), now)
    secret.get()
    vault.rotate(" ")
    now.seconds += 301
    for _ in range(2):
        with pytest.raises(UpstreamCredentials):
            secret.get()
