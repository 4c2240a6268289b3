"""Run MiniStack, an AWS emulator, with the bucket, queues, table and secret that Steno needs.

MiniStack checks the conditions of presigned POST forms and sends bucket notifications, as S3 does.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from infra.local.child import exit_with_parent

NAME = "steno"
QUEUES = {  # maps the setting for each queue's URL to the queue's name
    "RECORDINGS_QUEUE_URL": NAME,
    "PARTS_QUEUE_URL": f"{NAME}-parts",
    "EXPRESS_QUEUE_URL": f"{NAME}-express",
}
VISIBILITY_SECONDS = 60  # the queues' default; steps override it for individual messages
_START_SECONDS = 30.0


@contextmanager
def local_aws(state: Path, origins: tuple[str, ...] = ()) -> Iterator[dict[str, str]]:
    """Run the AWS emulator until the block ends.

    Yields the environment variables that boto3 and Steno need to use the emulator. Its data is
    stored in the folder `state`. `origins` are the web origins that may upload to the bucket
    (CORS).
    """
    port = free_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
        "BUCKET_NAME": NAME,
        "TABLE_NAME": NAME,
    }
    with _ministack(port, state):
        yield {**environment, **_create_resources(environment, origins)}


@contextmanager
def _ministack(port: int, state: Path) -> Iterator[None]:
    settings = {
        "BIND_HOST": "127.0.0.1",
        "EDGE_PORT": str(port),  # with GATEWAY_PORT, queue URLs would change on every run
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "LOG_LEVEL": "ERROR",
        "PERSIST_STATE": "1",
        "S3_PERSIST": "1",
        "STATE_DIR": str(state / "state"),
        "S3_DATA_DIR": str(state / "s3"),
    }
    command = [sys.executable, "-m", "infra.local.aws"]
    environment = {**os.environ, **settings}
    # Use a new session, so that Ctrl-C does not stop the emulator before the app has stopped.
    state.mkdir(parents=True, exist_ok=True)
    with (
        (state / "aws.log").open("wb") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        ) as process,
    ):
        try:
            wait_for_port(port, process, log.name)
            yield
        finally:
            assert process.stdin
            process.stdin.close()


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: str) -> None:
    """Wait until the process listens on the port.

    Raises RuntimeError, with the path of the log file, if the process exits or does not open the
    port within 30 seconds.
    """
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"The process on port {port} did not start. Its output is in {log}.")


def _create_resources(environment: dict[str, str], origins: tuple[str, ...]) -> dict[str, str]:
    """Create the resources that do not exist yet.

    Return the queue URLs. The keys are the settings that contain them, such as
    `PARTS_QUEUE_URL`.
    """
    import boto3

    session = boto3.session.Session(
        environment["AWS_ACCESS_KEY_ID"],
        environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    s3, sqs, table, secrets = (
        session.client(service, endpoint_url=environment["AWS_ENDPOINT_URL"])
        for service in ("s3", "sqs", "dynamodb", "secretsmanager")
    )
    with suppress(secrets.exceptions.ResourceExistsException):
        # In some tests, Lambda functions read the API key from Secrets Manager.
        secrets.create_secret(Name=NAME, SecretString="offline")
    attributes = {"VisibilityTimeout": str(VISIBILITY_SECONDS)}
    urls = {
        setting: sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        for setting, name in QUEUES.items()
    }
    queue = sqs.get_queue_attributes(
        QueueUrl=urls["RECORDINGS_QUEUE_URL"], AttributeNames=["QueueArn"]
    )
    arn = queue["Attributes"]["QueueArn"]
    if NAME not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=NAME)
    s3.put_bucket_notification_configuration(
        Bucket=NAME, NotificationConfiguration=_notification_configuration(arn)
    )
    if origins:
        s3.put_bucket_cors(Bucket=NAME, CORSConfiguration=_cors_configuration(origins))
    if NAME not in table.list_tables()["TableNames"]:
        table.create_table(
            TableName=NAME,
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")
            ],
            BillingMode="PAY_PER_REQUEST",
        )
    return urls


def _notification_configuration(queue_arn: str) -> dict[str, Any]:
    only_uploads = {"Key": {"FilterRules": [{"Name": "prefix", "Value": "uploads/"}]}}
    return {
        "QueueConfigurations": [
            {"QueueArn": queue_arn, "Events": ["s3:ObjectCreated:*"], "Filter": only_uploads}
        ]
    }


def _cors_configuration(origins: tuple[str, ...]) -> dict[str, Any]:
    rule = {"AllowedOrigins": list(origins), "AllowedMethods": ["POST"], "AllowedHeaders": ["*"]}
    return {"CORSRules": [rule]}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    from ministack.app import main

    exit_with_parent()
    main()
