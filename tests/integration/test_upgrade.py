"""A stack of the last release is updated to this one, and back: no job is lost, and no part is paid again."""

import json
import os
import subprocess
import sys
import tarfile
import time
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from io import BytesIO

import boto3
import httpx2
import pytest

from infra.bundle import Target
from tests.conftest import ROOT
from tests.infra.test_stack import Template
from tests.integration.cloud import finished, running, uploaded
from tests.samples import asset, long_recording, recording

RELEASE = "00c0d61"  # 0.1.1
SYNTHESIZE = """
import sys
from infra.app import app
from infra.bundle import Target
app({"openai_base_url": sys.argv[1]}, sys.argv[2], Target.here()).synth()
"""
KEPT = ("Url", "BucketName", "TableName", "SetOpenAIKey", "ReadAccessToken", "QueueUrl")
TALK_SECONDS = 80  # two parts, if subtitles are asked for
BUSY = {"status": 503, "body": {"error": {"message": "busy"}}, "times": 20}
REFUSED = {
    "status": 401,
    "body": {"error": {"message": "no", "code": "invalid_api_key"}},
    "times": 2,
}


@pytest.fixture(scope="module")
def releases(tmp_path_factory, engine_process):
    """The folders with the template and the assets of the last release, and of this one."""
    source, old, new = (tmp_path_factory.mktemp(name) for name in ("source", "old", "new"))
    archive = subprocess.run(
        ["git", "archive", RELEASE], cwd=ROOT, capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(source, filter="data")
    command = [sys.executable, "-c", SYNTHESIZE, engine_process.url, str(old)]
    subprocess.run(command, cwd=source, env={**os.environ, "PYTHONPATH": str(source)}, check=True)
    Template(new, Target.here(), openai_base_url=engine_process.url)
    return old, new


@dataclass
class Owner:
    """Leaves jobs in every state, and looks what becomes of them."""

    cloud: object
    engine: object

    @property
    def token(self):
        secret = self.cloud.client("secretsmanager").get_secret_value(
            SecretId=self.cloud.secret("ReadAccessToken")
        )
        return {"Authorization": f"Bearer {secret['SecretString']}"}

    def upload(self, content, **options):
        return uploaded(self.cloud, self.token, content, **options)

    def finished(self, where):
        return finished(self.cloud, self.token, where)

    def job(self, where):
        return self.cloud.http.get(where, headers=self.token).json()

    def retry(self, where):
        answer = self.cloud.http.post(f"{where}/retry", headers=self.token)
        assert answer.status_code == 202, answer.text

    def stop(self):
        """No function gets a message any more."""
        functions = self.cloud.client("lambda")
        for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
            functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)

    def leave_jobs(self):
        """Jobs in every state, with their messages in the queues: where each is."""
        left = {"completed": self.upload(asset("endgame_nagg_nell.wav"))}
        assert self.finished(left["completed"])["status"] == "completed"
        self.engine.script(REFUSED)
        for name, seconds in (("failed", 4), ("retried", 5)):
            left[name] = self.upload(recording("webm", seconds=seconds))
            assert self.finished(left[name])["status"] == "failed"
        self.engine.script({}, BUSY)
        left["half done"] = self.upload(long_recording("ogg", TALK_SECONDS), response_format="srt")
        deadline = time.monotonic() + 60
        while self.job(left["half done"])["progress"]["done"] != 1:
            assert time.monotonic() < deadline
        self.stop()
        self.retry(left["retried"])
        left["queued"] = self.upload(recording("webm", seconds=6))
        left["dead"] = self.upload(recording("webm", seconds=7))
        letter = json.dumps({"key": self.key(left["dead"])})
        self.cloud.client("sqs").send_message(
            QueueUrl=self.cloud.queues["DeadLetters"], MessageBody=letter
        )
        return left

    def key(self, where):
        """The key of a job's recording."""
        found = self.cloud.client("s3").list_objects_v2(
            Bucket=self.cloud.outputs["BucketName"], Prefix=f"uploads/{where.rpartition('/')[2]}"
        )
        return found["Contents"][0]["Key"]

    def ask(self):
        asked = self.cloud.http.post("/api/uploads", headers=self.token, json={"size": 1_000_000})
        return asked.headers["Location"], asked.json()["upload"]


@pytest.mark.parametrize("direction", ["update", "rollback"])
def test_no_job_is_lost_and_no_part_is_paid_again(releases, engine, tmp_path, direction):
    before, after = releases if direction == "update" else reversed(releases)
    with running(tmp_path) as cloud:
        cloud.deploy(before)
        cloud.client("secretsmanager").put_secret_value(
            SecretId=cloud.secret("SetOpenAIKey"), SecretString="offline"
        )
        owner, outputs = Owner(cloud, engine), cloud.outputs
        left = owner.leave_jobs()
        awaiting, form = owner.ask()
        cloud.deploy(after)
        engine.script()
        assert {name: cloud.outputs[name] for name in KEPT} == {
            name: outputs[name] for name in KEPT
        }
        httpx2.post(
            form["url"], data=form["fields"], files={"file": recording("webm", seconds=8)}
        ).raise_for_status()
        if direction == "rollback":  # the parts' messages are gone with their queue
            age(cloud, left["half done"])
        for name in ("failed", "dead", "half done"):
            if owner.finished(left[name])["status"] == "failed":
                owner.retry(left[name])
        ends = {
            name: owner.finished(where) for name, where in {**left, "awaiting": awaiting}.items()
        }
        assert {name: (job["status"], job["error"]) for name, job in ends.items()} == dict.fromkeys(
            ends, ("completed", None)
        )
        assert "It was the" in ends["half done"]["transcript"]
    billed = Counter(call["sha256"] for call in engine.calls() if call["seconds"])
    assert set(billed.values()) == {1}


def age(cloud, where):
    """As if the job had been created an hour ago."""
    session = boto3.session.Session("test", "test", region_name="us-east-1")
    table = session.resource("dynamodb", endpoint_url=cloud.url).Table(cloud.outputs["TableName"])
    table.update_item(
        Key={"pk": f"job#{where.rpartition('/')[2]}", "sk": "job"},
        UpdateExpression="SET created_at = created_at - :hour",
        ExpressionAttributeValues={":hour": Decimal(3600)},
    )
