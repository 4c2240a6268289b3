"""Test updates from the last release, and rollbacks to it.

No job is lost, and no part is billed twice.
"""

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
from tests.integration.cloud import local_cloud, upload, wait_until_finished
from tests.samples import asset, long_recording, recording

RELEASE = "00c0d61"  # 0.1.1
SYNTHESIZE = """
import sys
from infra.app import app
from infra.bundle import Target
app({"openai_base_url": sys.argv[1]}, sys.argv[2], Target.here()).synth()
"""
UNCHANGED_OUTPUTS = (
    "Url",
    "BucketName",
    "TableName",
    "SetOpenAIKey",
    "ReadAccessToken",
    "QueueUrl",
)
LONG_SECONDS = 80  # two parts, if subtitles are requested
BUSY = {"status": 503, "body": {"error": {"message": "busy"}}, "times": 20}
REJECTED = {
    "status": 401,
    "body": {"error": {"message": "no", "code": "invalid_api_key"}},
    "times": 2,
}


@pytest.fixture(scope="module")
def releases(tmp_path_factory, engine_process):
    """Return a folder for the last release and one for this version.

    Each folder contains the template and the assets.
    """
    source, old_folder, new_folder = (
        tmp_path_factory.mktemp(name) for name in ("source", "old", "new")
    )
    archive = subprocess.run(
        ["git", "archive", RELEASE], cwd=ROOT, capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(source, filter="data")
    command = [sys.executable, "-c", SYNTHESIZE, engine_process.url, str(old_folder)]
    subprocess.run(command, cwd=source, env={**os.environ, "PYTHONPATH": str(source)}, check=True)
    Template(new_folder, Target.here(), openai_base_url=engine_process.url)
    return old_folder, new_folder


@dataclass
class Owner:
    """The owner of the stack, who creates jobs in every state and checks their results."""

    cloud: object
    engine: object

    @property
    def token(self):
        secret = self.cloud.client("secretsmanager").get_secret_value(
            SecretId=self.cloud.secret("ReadAccessToken")
        )
        return {"Authorization": f"Bearer {secret['SecretString']}"}

    def upload(self, content, **options):
        return upload(self.cloud, self.token, content, **options)

    def wait_until_finished(self, job_path):
        return wait_until_finished(self.cloud, self.token, job_path)

    def job(self, job_path):
        return self.cloud.http.get(job_path, headers=self.token).json()

    def retry(self, job_path):
        response = self.cloud.http.post(f"{job_path}/retry", headers=self.token)
        assert response.status_code == 202, response.text

    def stop_functions(self):
        """Disable all event source mappings, so that no function receives messages."""
        functions = self.cloud.client("lambda")
        for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
            functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)

    def create_jobs(self):
        """Create jobs in all states, with messages in the queues.

        Return a dictionary that maps each state to the path of its job.
        """
        job_paths = {"completed": self.upload(asset("endgame_nagg_nell.wav"))}
        assert self.wait_until_finished(job_paths["completed"])["status"] == "completed"
        self.engine.script(REJECTED)
        for name, seconds in (("failed", 4), ("retried", 5)):
            job_paths[name] = self.upload(recording("webm", seconds=seconds))
            assert self.wait_until_finished(job_paths[name])["status"] == "failed"
        self.engine.script({}, BUSY)
        job_paths["half done"] = self.upload(
            long_recording("ogg", LONG_SECONDS), response_format="srt"
        )
        deadline = time.monotonic() + 60
        while self.job(job_paths["half done"])["progress"]["done"] != 1:
            assert time.monotonic() < deadline
        self.stop_functions()
        self.retry(job_paths["retried"])
        job_paths["queued"] = self.upload(recording("webm", seconds=6))
        job_paths["dead"] = self.upload(recording("webm", seconds=7))
        dead_letter = json.dumps({"key": self.key(job_paths["dead"])})
        self.cloud.client("sqs").send_message(
            QueueUrl=self.cloud.queues["DeadLetters"], MessageBody=dead_letter
        )
        return job_paths

    def key(self, job_path):
        """Return the object key of a job's upload."""
        objects = self.cloud.client("s3").list_objects_v2(
            Bucket=self.cloud.outputs["BucketName"], Prefix=f"uploads/{job_path.rpartition('/')[2]}"
        )
        return objects["Contents"][0]["Key"]

    def request_upload(self):
        created = self.cloud.http.post("/api/uploads", headers=self.token, json={"size": 1_000_000})
        return created.headers["Location"], created.json()["upload"]


@pytest.mark.parametrize("direction", ["update", "rollback"])
def test_no_job_is_lost_and_no_part_is_billed_twice(releases, engine, tmp_path, direction):
    first_release, second_release = releases if direction == "update" else reversed(releases)
    with local_cloud(tmp_path) as cloud:
        cloud.deploy(first_release)
        cloud.client("secretsmanager").put_secret_value(
            SecretId=cloud.secret("SetOpenAIKey"), SecretString="offline"
        )
        owner, outputs = Owner(cloud, engine), cloud.outputs
        job_paths = owner.create_jobs()
        awaiting, form = owner.request_upload()
        cloud.deploy(second_release)
        engine.script()
        assert {name: cloud.outputs[name] for name in UNCHANGED_OUTPUTS} == {
            name: outputs[name] for name in UNCHANGED_OUTPUTS
        }
        httpx2.post(
            form["url"], data=form["fields"], files={"file": recording("webm", seconds=8)}
        ).raise_for_status()
        if direction == "rollback":  # the messages for the parts were deleted with their queue
            backdate(cloud, job_paths["half done"])
        for name in ("failed", "dead", "half done"):
            if owner.wait_until_finished(job_paths[name])["status"] == "failed":
                owner.retry(job_paths[name])
        results = {
            name: owner.wait_until_finished(job_path)
            for name, job_path in {**job_paths, "awaiting": awaiting}.items()
        }
        assert {
            name: (job["status"], job["error"]) for name, job in results.items()
        } == dict.fromkeys(results, ("completed", None))
        assert "It was the" in results["half done"]["transcript"]
    billed = Counter(call["sha256"] for call in engine.calls() if call["seconds"])
    assert set(billed.values()) == {1}


def backdate(cloud, job_path):
    """Change the creation time of the job to one hour earlier."""
    session = boto3.session.Session("test", "test", region_name="us-east-1")
    table = session.resource("dynamodb", endpoint_url=cloud.url).Table(cloud.outputs["TableName"])
    table.update_item(
        Key={"pk": f"job#{job_path.rpartition('/')[2]}", "sk": "job"},
        UpdateExpression="SET created_at = created_at - :hour",
        ExpressionAttributeValues={":hour": Decimal(3600)},
    )
