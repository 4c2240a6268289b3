"""A stack in a local AWS that enforces IAM: it is deployed, updated and used as by its owner and its callers."""

import io
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import boto3
import httpx2

from infra.bundle import Target
from infra.local.aws import free_port, wait_for
from tests.conftest import ROOT
from tests.infra.test_stack import Template

ASSETS_BUCKET = "cdk-hnb659fds-assets-000000000000-us-east-1"


@dataclass
class Cloud:
    """What was deployed, and the clients of its owner."""

    url: str
    outputs: dict[str, str]

    def client(self, service, key="test"):
        session = boto3.session.Session(key, "test", region_name="us-east-1")
        return session.client(service, endpoint_url=self.url)

    @cached_property
    def http(self):
        return httpx2.Client(base_url=self.url, headers={"Host": self.host}, timeout=60)

    @property
    def host(self):
        """Of the API, which browsers know to be on this machine."""
        return f"{gateway_of(self.outputs)}.execute-api.localhost:{self.url.rpartition(':')[2]}"

    @property
    def queues(self):
        """The addresses of the queues, by the names of their constructs."""
        urls = self.client("sqs").list_queues(QueueNamePrefix="Steno-")["QueueUrls"]
        return {re.search(r"/Steno-([A-Za-z]+?)[0-9A-F]{8}", url)[1]: url for url in urls}

    def deploy(self, folder):
        """Does what the CLI does: uploads the assets, and gives the template to CloudFormation."""
        s3, stacks = self.client("s3"), self.client("cloudformation")
        for identity, told in json.loads((folder / "Steno.assets.json").read_text())[
            "files"
        ].items():
            if told["source"]["packaging"] == "zip":
                s3.put_object(
                    Bucket=ASSETS_BUCKET,
                    Key=f"{identity}.zip",
                    Body=zipped(folder / told["source"]["path"]),
                )
        template = json.loads((folder / "Steno.template.json").read_text())
        given = {
            "StackName": "Steno",
            "TemplateBody": json.dumps(
                for_here(template, set(of_kind(template, "AWS::SecretsManager::Secret")))
            ),
            "Capabilities": ["CAPABILITY_IAM"],
        }
        if self.outputs:
            stacks.update_stack(**given)
        else:
            stacks.create_stack(**given)
        waiter = stacks.get_waiter(
            "stack_update_complete" if self.outputs else "stack_create_complete"
        )
        waiter.wait(StackName="Steno", WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        (stack,) = stacks.describe_stacks(StackName="Steno")["Stacks"]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        # This CloudFormation forgets it.
        (gateway,) = of_kind(template, "AWS::ApiGatewayV2::Api").values()
        self.client("apigatewayv2").update_api(
            ApiId=gateway_of(self.outputs), CorsConfiguration=gateway["CorsConfiguration"]
        )

    def secret(self, output):
        return re.search(r"--secret-id (\S+)", self.outputs[output])[1]


@contextmanager
def deployed(folder, **choices):
    """The stack, as these choices make it, in a local AWS of its own."""
    Template(folder, Target.here(), **choices)
    with running(folder) as made:
        made.deploy(folder)
        made.client("secretsmanager").put_secret_value(
            SecretId=made.secret("SetOpenAIKey"), SecretString="offline"
        )
        yield made


@contextmanager
def running(folder):
    """A local AWS that enforces IAM, with nothing in it but what `cdk bootstrap` makes."""
    port = free_port()
    environment = {
        **os.environ,
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "LOG_LEVEL": "ERROR",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    log = folder / "aws.log"
    command = [sys.executable, "-m", "infra.local.aws"]
    with (
        log.open("wb") as said,
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=said, stderr=said, env=environment
        ) as process,
    ):
        wait_for(port, process, str(log))
        made = Cloud(f"http://127.0.0.1:{port}", {})
        made.client("s3").create_bucket(Bucket=ASSETS_BUCKET)
        made.client("ssm").put_parameter(
            Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String"
        )
        yield made
        made.http.close()
        process.stdin.close()


def gateway_of(outputs):
    return re.search(r"//(\w+)\.execute-api", outputs["Url"])[1]


def zipped(folder):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return target.getvalue()


def for_here(value, secrets):
    """The template, as this local AWS understands it: it speaks no TLS, and a secret's `Ref` is its name; its attribute
    `Id` is the ARN there as in AWS. Its gateway adds its CORS headers to the function's, where AWS's replaces them."""
    if isinstance(value, list):
        return [for_here(held, secrets) for held in value if not is_about_tls(held)]
    if not isinstance(value, dict):
        return value
    if value.get("Ref") in secrets:
        return {"Fn::GetAtt": [value["Ref"], "Id"]}
    return {
        name: for_here(held, secrets) for name, held in value.items() if name != "ALLOWED_ORIGINS"
    }


def is_about_tls(statement):
    return isinstance(statement, dict) and "aws:SecureTransport" in str(statement.get("Condition"))


def of_kind(template, kind):
    """The properties of the resources of a kind, by their logical ids."""
    found = template["Resources"].items()
    return {name: resource["Properties"] for name, resource in found if resource["Type"] == kind}


def uploaded(cloud, token, content, **options):
    """Where the job is of a recording that was uploaded."""
    asked = cloud.http.post("/api/uploads", headers=token, json={"size": len(content), **options})
    form = asked.json()["upload"]
    httpx2.post(form["url"], data=form["fields"], files={"file": content}).raise_for_status()
    return asked.headers["Location"]


def stored(cloud):
    """The folders of what is in the bucket."""
    keys = (
        cloud.client("s3").list_objects_v2(Bucket=cloud.outputs["BucketName"]).get("Contents", [])
    )
    return [held["Key"].split("/")[0] for held in keys]


def finished(cloud, token, where):
    deadline = time.monotonic() + 120
    while (job := cloud.http.get(where, headers=token).json())["status"] not in (
        "completed",
        "failed",
    ):
        assert time.monotonic() < deadline, job
    return job
