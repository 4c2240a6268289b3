"""One caller's many jobs do not keep another's waiting."""

from collections import Counter

from starlette.testclient import TestClient

from tests.place import ARN, Gateway, Place

_BATCH = 10  # SQS gives no more at a time


class FairQueue:
    """The local queue, in the order that AWS's fair queues have: first who has had least, and a message that names
    nobody is somebody new.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues-detailed.html
    """

    def __init__(self, place):
        self._sqs, self._queue = place.sqs, place.queue
        self._served = Counter()

    def next(self):
        """The record that a function would be called with; the others wait in the queue."""
        waiting = self._received()
        chosen = min(waiting, key=lambda message: self._served[message.get("Attributes", {}).get("MessageGroupId")])
        self._put_back([message for message in waiting if message is not chosen])
        if group := chosen.get("Attributes", {}).get("MessageGroupId"):
            self._served[group] += 1
        return {
            "messageId": chosen["MessageId"],
            "receiptHandle": chosen["ReceiptHandle"],
            "body": chosen["Body"],
            "eventSourceARN": ARN,
        }

    def done(self, record):
        self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=record["receiptHandle"])

    def _received(self):
        asked = {"QueueUrl": self._queue, "MaxNumberOfMessages": _BATCH, "MessageSystemAttributeNames": ["All"]}
        found = []
        while more := self._sqs.receive_message(**asked).get("Messages"):
            found += more
        return found

    def _put_back(self, messages):
        for start in range(0, len(messages), _BATCH):
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}
                for number, message in enumerate(messages[start : start + _BATCH])
            ]
            self._sqs.change_message_visibility_batch(QueueUrl=self._queue, Entries=entries)


def test_one_job_is_done_soon_though_another_caller_has_sent_many(aws, often, tried, webm):
    place = Place(aws, auth="jwt", aws_lambda_function_name="steno")
    many = often(20, 200)
    place.http = TestClient(Gateway(place.app, "greedy"))
    for number in range(many):
        place.upload(webm, prompt=f"of many {number}")
    place.http = TestClient(Gateway(place.app, "modest"))
    identity = place.upload(webm, prompt="only one")
    queue = FairQueue(place)
    while place.job(identity)["status"] != "completed":
        record = queue.next()
        assert place.work(record) == []
        queue.done(record)
    before = [call for call in place.wiring._transport.calls if call.fields["prompt"][0] != "only one"]
    assert len(before) <= 2
    tried(
        "One job behind another caller's many, in a queue that serves as AWS's fair queues do",
        f"{many} jobs before it",
        f"it was done after {len(before)} of them",
    )


def test_a_job_for_which_nobody_waits_is_done_at_once_and_so_are_all_with_one_token(aws, webm):
    for given in ({}, {"auth": "token", "access_token": "t"}):
        place = Place(aws, **given)
        place.sqs.purge_queue(QueueUrl=place.queue)
        place.http.headers["authorization"] = "Bearer t"
        identities = [place.upload(webm) for _ in range(2 if given else 1)]
        assert place.work(place.about(identities[0])) == []
        assert place.job(identities[0])["status"] == "completed"
