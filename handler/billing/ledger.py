"""What has been paid for: the speech service's answers, kept so that no recording or part is paid for twice.

In the table, for a day, under the hash of what was asked:

    paid#HASH  answer   who gets the answer, until when, and the seconds in doubt; then the answer, and what it cost
"""

import hashlib
import json
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from handler.aws.items import to_decimal
from handler.durations import ANSWER_DAYS, DAY_SECONDS
from handler.transcripts.transcript import Transcript

_KEPT_SECONDS = ANSWER_DAYS * DAY_SECONDS
MOST_BYTES = 380_000  # DynamoDB stores 400 KB an item


class ClaimHeld(Exception):
    """Somebody else is getting the answer right now."""


@dataclass(frozen=True)
class Claim:
    """The right to get an answer. `doubt` are the seconds that earlier tries may have cost."""

    possibly_billed_seconds: float


@dataclass(frozen=True)
class PaidAnswer:
    """`seconds` are what its `holder` has paid for it, or may have."""

    transcript: Transcript
    holder: str
    seconds: float


def sha256_of(recording: BinaryIO) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    recording.seek(0)
    return hashlib.file_digest(recording, "sha256").hexdigest()  # type: ignore[arg-type] # all files can readinto


def answer_key(owner: str, digest: str, parameters: dict[str, Any], upstream: str) -> str:
    """Return the key of an answer: to this owner, about the bytes with this SHA-256, with these
    parameters, of the upstream at this address."""
    asked = [owner, digest, {**parameters, "upstream": upstream}]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class Ledger:
    """The answers in the table `table`."""

    def __init__(self, client: Any, table: str, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    def claim(self, key: str, holder: str, seconds: float, within: float) -> Claim | PaidAnswer:
        """The answer, where there is one; else it is `holder`'s to get, at the cost of `seconds`, `within` some time.

        Taken where another holder has that claim. A holder's own earlier claim was cut off by a crash.
        """
        now = self._clock()
        try:
            old = self._client.update_item(
                TableName=self._table,
                Key=_key(key),
                UpdateExpression="SET #holder = :holder, #until = :until, expires = :expires"
                " REMOVE transcript ADD doubt :seconds",
                ConditionExpression="attribute_not_exists(pk) OR expires < :now"
                " OR (attribute_not_exists(transcript) AND (#until < :now OR #holder = :holder))",
                ExpressionAttributeNames={"#holder": "holder", "#until": "until"},
                ExpressionAttributeValues={
                    ":holder": holder,
                    ":until": to_decimal(now + within),
                    ":seconds": to_decimal(seconds),
                    ":now": to_decimal(now),
                    ":expires": int(now + _KEPT_SECONDS),
                },
                ReturnValues="ALL_OLD",
            ).get("Attributes", {})
        except self._client.exceptions.ConditionalCheckFailedException:
            if answer := self.find(key):
                return answer
            raise ClaimHeld from None
        return Claim(float(old.get("doubt", 0)))

    def renew(self, key: str, holder: str, within: float) -> None:
        """Extend a claim, if `holder` still has it."""
        with suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._client.update_item(
                TableName=self._table,
                Key=_key(key),
                UpdateExpression="SET #until = :until",
                ConditionExpression="#holder = :holder AND attribute_not_exists(transcript)",
                ExpressionAttributeNames={"#holder": "holder", "#until": "until"},
                ExpressionAttributeValues={
                    ":until": to_decimal(self._clock() + within),
                    ":holder": holder,
                },
            )

    def find(self, key: str) -> PaidAnswer | None:
        """The answer, where there is one."""
        item = self._client.get_item(TableName=self._table, Key=_key(key), ConsistentRead=True).get(
            "Item", {}
        )
        if "transcript" not in item or item["expires"] < self._clock():
            return None
        transcript = Transcript.from_json(zlib.decompress(item["transcript"].value))
        return PaidAnswer(transcript, item["holder"], float(item["paid"]))

    def store(self, key: str, answer: PaidAnswer) -> None:
        """Puts the answer where the next who asks finds it, if it is not larger than any table takes."""
        packed = zlib.compress(answer.transcript.to_json())
        if len(packed) > MOST_BYTES:
            self.release(key, answer.holder, 0)
            return
        self._client.put_item(
            TableName=self._table,
            Item={
                **_key(key),
                "holder": answer.holder,
                "paid": to_decimal(answer.seconds),
                "transcript": packed,
                "expires": int(self._clock() + _KEPT_SECONDS),
            },
        )

    def release(self, key: str, holder: str, unpaid: float) -> None:
        """Gives a claim up; `unpaid` of its seconds cannot have been billed."""
        try:
            self._client.update_item(
                TableName=self._table,
                Key=_key(key),
                UpdateExpression="SET #until = :zero ADD doubt :unpaid",
                ConditionExpression="#holder = :holder AND attribute_not_exists(transcript)",
                ExpressionAttributeNames={"#holder": "holder", "#until": "until"},
                ExpressionAttributeValues={
                    ":zero": 0,
                    ":holder": holder,
                    ":unpaid": to_decimal(-unpaid),
                },
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return  # forgotten meanwhile, or another's

    def delete_if_paid_by(self, key: str, job: str) -> None:
        """Forget an answer that one of the job's parts has paid for."""
        with suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._client.delete_item(
                TableName=self._table,
                Key=_key(key),
                ConditionExpression="begins_with(#holder, :job)",
                ExpressionAttributeNames={"#holder": "holder"},
                ExpressionAttributeValues={":job": f"{job}/"},
            )

    def delete(self, key: str) -> None:
        self._client.delete_item(TableName=self._table, Key=_key(key))


def _key(key: str) -> dict[str, str]:
    return {"pk": f"paid#{key}", "sk": "answer"}
