"""Deploy, update and use the stack in a local AWS emulator that enforces IAM."""

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
from infra.local.aws import free_port, wait_for_port
from tests.conftest import ROOT
from tests.infra.test_stack import Template

ASSETS_BUCKET = "cdk-hnb659fds-assets-000000000000-us-east-1"


@dataclass
class Cloud:
    """An AWS emulator with the deployed stack, and clients that use the owner's credentials."""

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
        """Return the host name of the API. Browsers resolve *.localhost to this machine."""
        return f"{gateway_of(self.outputs)}.execute-api.localhost:{self.url.rpartition(':')[2]}"

    @property
    def queues(self):
        """Return a dictionary of queue URLs. The keys are the names of the CDK constructs."""
        urls = self.client("sqs").list_queues(QueueNamePrefix="Steno-")["QueueUrls"]
        return {re.search(r"/Steno-([A-Za-z]+?)[0-9A-F]{8}", url)[1]: url for url in urls}

    def deploy(self, folder):
        """Upload the assets, then create or update the stack, as the CDK CLI does.

        `folder` contains the output of `cdk synth`.
        """
        s3, stacks = self.client("s3"), self.client("cloudformation")
        for asset_id, asset in json.loads((folder / "Steno.assets.json").read_text())[
            "files"
        ].items():
            if asset["source"]["packaging"] == "zip":
                s3.put_object(
                    Bucket=ASSETS_BUCKET,
                    Key=f"{asset_id}.zip",
                    Body=zip_folder(folder / asset["source"]["path"]),
                )
        template = json.loads((folder / "Steno.template.json").read_text())
        adapted = adapt_template(
            template, set(resources_of_type(template, "AWS::SecretsManager::Secret"))
        )
        # The template is too large for a request (51,200 bytes). The CDK also uploads it.
        s3.put_object(
            Bucket=ASSETS_BUCKET, Key="Steno.template.json", Body=json.dumps(adapted).encode()
        )
        arguments = {
            "StackName": "Steno",
            "TemplateURL": f"{self.url}/{ASSETS_BUCKET}/Steno.template.json",
            "Capabilities": ["CAPABILITY_IAM"],
        }
        if self.outputs:
            stacks.update_stack(**arguments)
        else:
            stacks.create_stack(**arguments)
        waiter = stacks.get_waiter(
            "stack_update_complete" if self.outputs else "stack_create_complete"
        )
        waiter.wait(StackName="Steno", WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        (stack,) = stacks.describe_stacks(StackName="Steno")["Stacks"]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        # The emulator's CloudFormation ignores the CORS configuration.
        (gateway,) = resources_of_type(template, "AWS::ApiGatewayV2::Api").values()
        self.client("apigatewayv2").update_api(
            ApiId=gateway_of(self.outputs), CorsConfiguration=gateway["CorsConfiguration"]
        )

    def secret(self, output):
        return re.search(r"--secret-id (\S+)", self.outputs[output])[1]


@contextmanager
def deployed_cloud(folder, **choices):
    """Deploy the stack with these context options to a new AWS emulator. Yield its Cloud."""
    Template(folder, Target.here(), **choices)
    with local_cloud(folder) as cloud:
        cloud.deploy(folder)
        cloud.client("secretsmanager").put_secret_value(
            SecretId=cloud.secret("SetOpenAIKey"), SecretString="offline"
        )
        yield cloud


@contextmanager
def local_cloud(folder):
    """Start an AWS emulator that enforces IAM and has only what `cdk bootstrap` creates."""
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
        log.open("wb") as log_file,
        subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=log_file,
            stderr=log_file,
            env=environment,
        ) as process,
    ):
        wait_for_port(port, process, str(log))
        cloud = Cloud(f"http://127.0.0.1:{port}", {})
        cloud.client("s3").create_bucket(Bucket=ASSETS_BUCKET)
        cloud.client("ssm").put_parameter(
            Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String"
        )
        yield cloud
        cloud.http.close()
        process.stdin.close()


def gateway_of(outputs):
    return re.search(r"//(\w+)\.execute-api", outputs["Url"])[1]


def zip_folder(folder):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return target.getvalue()


def adapt_template(value, secrets):
    """Return the template, adapted to the AWS emulator, which differs from AWS in three ways.

    The emulator does not support TLS. It resolves the `Ref` of a secret to the secret's name
    instead of its ARN. Its gateway adds its own CORS headers but, unlike API Gateway, does not
    remove those of the function.
    """
    if isinstance(value, list):
        return [adapt_template(item, secrets) for item in value if not requires_tls(item)]
    if not isinstance(value, dict):
        return value
    if value.get("Ref") in secrets:
        return {"Fn::GetAtt": [value["Ref"], "Id"]}
    adapted = {name: adapt_template(item, secrets) for name, item in value.items()}
    if "ALLOWED_ORIGINS" in adapted:
        adapted["ALLOWED_ORIGINS"] = "https://app.example"  # the functions add no CORS headers
    return adapted


def requires_tls(statement):
    return isinstance(statement, dict) and "aws:SecureTransport" in str(statement.get("Condition"))


def resources_of_type(template, resource_type):
    """Map the logical id of each resource of this type to the properties of the resource."""
    found = template["Resources"].items()
    return {
        name: resource["Properties"]
        for name, resource in found
        if resource["Type"] == resource_type
    }


def upload(cloud, token, content, **options):
    """Upload a recording and return the path of its job."""
    created = cloud.http.post("/api/uploads", headers=token, json={"size": len(content), **options})
    form = created.json()["upload"]
    httpx2.post(form["url"], data=form["fields"], files={"file": content}).raise_for_status()
    return created.headers["Location"]


def stored_folders(cloud):
    """Return the first path segment of each key in the bucket."""
    keys = (
        cloud.client("s3").list_objects_v2(Bucket=cloud.outputs["BucketName"]).get("Contents", [])
    )
    return [item["Key"].split("/")[0] for item in keys]


def wait_until_finished(cloud, token, job_path):
    deadline = time.monotonic() + 120
    while (job := cloud.http.get(job_path, headers=token).json())["status"] not in (
        "completed",
        "failed",
    ):
        assert time.monotonic() < deadline, job
    return job
