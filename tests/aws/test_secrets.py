"""Tests of secrets.py: secrets are cached, and read again if the upstream rejects them."""

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
from tests.fake_upstream import FakeUpstream, error_response

pytestmark = pytest.mark.anyio


@pytest.fixture
def vault(monkeypatch):
    """Emulate Secrets Manager in this process, with one key stored in it."""
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


def test_renew_returns_whether_the_secret_has_changed(vault):
    secret = Secret("key", None, vault.arn, AWS())
    secret.get()
    assert not secret.renew("sk-first")
    vault.rotate("sk-second")
    assert secret.renew("sk-first")
    assert secret.renew("sk-first")  # another call has already read the new key
    assert secret.get() == "sk-second"


def test_a_secret_in_the_settings_needs_no_request():
    secret = Secret("key", settings().openai_api_key, None, AWS())
    assert secret.get() == "sk-test-key"
    assert not secret.renew("sk-test-key")


def test_an_empty_or_missing_secret_is_a_server_error_and_only_the_log_contains_its_arn(
    vault, caplog
):
    vault.rotate(" ")
    for arn in (vault.arn, "arn:aws:secretsmanager:eu-west-1:123456789012:secret:nobody"):
        secret = Secret("OpenAI key", None, arn, AWS())
        for _ in range(2):  # a failure is not cached
            with pytest.raises(
                UpstreamCredentials, match="The server's OpenAI key cannot be read"
            ) as failure:
                secret.get()
        assert "arn:" not in failure.value.detail
        assert arn in caplog.text


async def test_requests_are_rejected_if_the_access_token_cannot_be_read(vault, client, webm):
    vault.rotate(" ")
    upstream = FakeUpstream()
    http = client(upstream, auth="token", token_secret_arn=vault.arn)
    for _ in range(3):
        assert http.post("/api/transcribe", files={"file": webm}).status_code == 502
    assert upstream.calls == []


async def test_a_rotated_key_is_read_again_and_the_recording_is_transcribed(vault, client, webm):
    upstream = FakeUpstream(error_response(401, "invalid_api_key"))
    http = client(upstream, openai_api_key=None, openai_secret_arn=vault.arn)
    first = http.post("/api/transcribe", files={"file": webm})
    assert first.status_code == 502  # no retry, because the key in Secrets Manager is the same
    vault.rotate("sk-second")
    upstream.replies.append(error_response(401, "invalid_api_key"))
    assert http.post("/api/transcribe", files={"file": webm}).json() == {
        "transcript": "Ever tried."
    }
    keys = [call.authorization for call in upstream.calls]
    assert keys == ["Bearer sk-first", "Bearer sk-first", "Bearer sk-second"]


async def test_the_access_token_can_be_a_secret(vault, client, webm):
    vault.rotate("open-sesame")
    http = client(auth="token", token_secret_arn=vault.arn)
    assert http.post("/api/transcribe", files={"file": webm}).status_code == 401
    headers = {"Authorization": "Bearer open-sesame"}
    assert http.post("/api/transcribe", files={"file": webm}, headers=headers).status_code == 200


async def test_secrets_are_not_read_at_start():
    app(openai_api_key=None, openai_secret_arn="arn:aws:secretsmanager:eu-west-1:1:secret:nobody")


async def test_concurrent_first_requests_build_one_client():
    services, built = build_services(settings()), []

    async def read_secret():
        built.append(await services.clients[""].ready())

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(read_secret)
    assert len(set(map(id, built))) == 1


# Outages of Secrets Manager


class SecretsOutage(AWS):
    """An emulated AWS. If `out` is true, Secrets Manager waits for `gate` and then returns 503."""

    def __init__(self):
        super().__init__()
        self.out = False
        self.gate = threading.Event()
        self.requests = threading.Semaphore(0)
        self.reads = 0

    def client(self, service, **config):
        client = super().client(service, **config, retries={"total_max_attempts": 1})
        client.meta.events.register_first("before-send.secretsmanager", self._respond)
        return client

    def _respond(self, request, **_):
        self.reads += 1
        self.requests.release()
        if not self.out:
            return None
        self.gate.wait(10)
        return AWSResponse(request.url, 503, {}, Body(b"{}"))


class Body:
    def __init__(self, content):
        self._content = content

    def stream(self, **_):
        yield self._content


class FakeClock:
    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


def test_a_cached_secret_is_used_in_an_outage_and_read_again_after_30_seconds(
    vault,
):
    aws, now = SecretsOutage(), FakeClock()
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


def test_callers_use_the_cached_secret_while_another_reads_it_again(vault):
    aws, now = SecretsOutage(), FakeClock()
    secret = Secret("key", None, vault.arn, aws, now)
    secret.get()
    aws.requests.acquire()
    aws.out, now.seconds = True, now.seconds + 301
    with ThreadPoolExecutor(5) as pool:
        reader = pool.submit(secret.get)
        assert aws.requests.acquire(timeout=10)
        try:
            others = [pool.submit(secret.get) for _ in range(4)]
            assert [other.result(timeout=10) for other in others] == ["sk-first"] * 4
            assert not reader.done()
        finally:
            aws.gate.set()
    assert (reader.result(), aws.reads) == ("sk-first", 2)


def test_concurrent_callers_share_the_failure_of_the_first_read(vault):
    aws, together = SecretsOutage(), threading.Barrier(5)
    aws.out = True
    secret = Secret("key", None, vault.arn, aws)

    def read_secret():
        together.wait(10)
        secret.get()

    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(read_secret) for _ in range(5)]
        assert aws.requests.acquire(timeout=10)
        aws.gate.set()
    assert {type(future.exception()) for future in futures} == {StorageUnavailable}
    assert aws.reads < 5  # there are 5 reads if callers do not share them
    aws.out = False
    assert secret.get() == "sk-first"


def test_a_removed_secret_is_no_longer_used(vault):
    now = FakeClock()
    secret = Secret("access token", None, vault.arn, AWS(), now)
    secret.get()
    vault.rotate(" ")
    now.seconds += 301
    for _ in range(2):
        with pytest.raises(UpstreamCredentials):
            secret.get()
