"""A worker as a process of its own, for tests that kill it: `python -m tests.attacks.crashing_worker`."""

import boto3

from handler.jobs import Jobs
from handler.settings import read_settings
from handler.transcription import Pacing
from handler.wiring import Wiring
from handler.worker import Worker
from infra.local_worker import Context

LEASE_SECONDS = 2
PART_SECONDS = 30.0  # with shorter ones, and speech that repeats, two parts may be the same, and are paid once


def main() -> None:
    settings = read_settings()
    worker = Worker(Wiring(settings, jobs=Jobs(settings, lease_seconds=LEASE_SECONDS)), Pacing(part=PART_SECONDS))
    sqs = boto3.client("sqs")
    queue = sqs.get_queue_url(QueueName="steno")["QueueUrl"]
    while True:
        for message in sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages", []):
            record = {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:steno",
            }
            if not worker.handle({"Records": [record]}, Context())["batchItemFailures"]:
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


if __name__ == "__main__":
    main()
