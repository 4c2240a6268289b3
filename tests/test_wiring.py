"""wiring.py: secrets are read on first use, kept, and read again when the upstream refuses them."""

import anyio
import boto3
import pytest
from moto import mock_aws

from handler.aws import AWS
from handler.errors import UpstreamCredentials
from handler.wiring import Secret, Wiring
from tests.conftest import app, settings
from tests.upstream import FalseUpstream, refused

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
    assert secret.renew("sk-first")  # refused under the old key, and another call has read the new one meanwhile
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
            with pytest.raises(UpstreamCredentials, match="The server's OpenAI key cannot be read") as failure:
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


async def test_a_rotated_key_is_read_again_once_and_the_recording_still_transcribes(vault, client, webm):
    upstream = FalseUpstream(refused(401, "invalid_api_key"))
    http = client(upstream, openai_api_key=None, openai_secret_arn=vault.arn)
    secret_of_the_first_call = http.post("/api/transcribe", files={"file": webm})
    assert secret_of_the_first_call.status_code == 502  # the same key came back: nothing to try again with
    vault.rotate("sk-second")
    upstream.replies.append(refused(401, "invalid_api_key"))
    assert http.post("/api/transcribe", files={"file": webm}).json() == {"transcript": "Ever tried."}
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
    wiring, built = Wiring(settings()), []

    async def ask():
        built.append(await wiring.speech())

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask)
    assert len(set(map(id, built))) == 1
