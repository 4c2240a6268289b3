"""Keeps paid upstream results for a day, so that no recording or part is billed twice.

The table has one item for each request to the upstream:

    pk: paid#HASH, where HASH is the hash of the request
    sk: answer
    holder: the id of the attempt that has the claim, or of the job that stored the result
    until: when the claim expires, in seconds since 1970
    doubt: the seconds of audio that may have been billed although no result was stored
    transcript, paid: the result and the seconds of audio billed for it, once a result is stored
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

_RETENTION_SECONDS = ANSWER_DAYS * DAY_SECONDS
MAX_ITEM_BYTES = 380_000  # DynamoDB limits an item to 400 KB, including its other attributes


class ClaimHeld(Exception):
    """This request is claimed by another holder, and no result is stored yet."""


@dataclass(frozen=True)
class Claim:
    """The right to send a request to the upstream.

    `possibly_billed_seconds` is the number of seconds of audio that may have been billed for
    earlier requests whose results were not stored.
    """

    possibly_billed_seconds: float


@dataclass(frozen=True)
class PaidAnswer:
    """An upstream result. `seconds` is the duration that may have been billed to `holder`."""

    transcript: Transcript
    holder: str
    seconds: float


def sha256_of(recording: BinaryIO) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    recording.seek(0)
    # BinaryIO does not declare `readinto`, but all file objects have it.
    return hashlib.file_digest(recording, "sha256").hexdigest()  # type: ignore[arg-type]


def answer_key(owner: str, digest: str, parameters: dict[str, Any], upstream: str) -> str:
    """Return the key of a result in the ledger.

    The key depends on the owner of the recording, the SHA-256 `digest` of the recording, the
    parameters of the request, and the base URL of the upstream.
    """
    # Results of release 0.1, which requested only segments, are used for these requests too.
    if parameters.get("timestamp_granularities") == ["word", "segment"]:
        parameters = {**parameters}
        del parameters["timestamp_granularities"]
    request = [owner, digest, {**parameters, "upstream": upstream}]
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


class Ledger:
    """The ledger of paid results, stored in the DynamoDB table `table`."""

    def __init__(self, client: Any, table: str, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    def claim(
        self, key: str, holder: str, seconds: float, claim_seconds: float
    ) -> Claim | PaidAnswer:
        """Return the stored result, or claim the right to request it.

        The claim expires after `claim_seconds`. `seconds` is the number of seconds of audio that
        may be billed for the request. The holder of the claim can call this method again.
        Raises ClaimHeld if another holder has the claim.
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
                    ":until": to_decimal(now + claim_seconds),
                    ":seconds": to_decimal(seconds),
                    ":now": to_decimal(now),
                    ":expires": int(now + _RETENTION_SECONDS),
                },
                ReturnValues="ALL_OLD",
            ).get("Attributes", {})
        except self._client.exceptions.ConditionalCheckFailedException:
            if answer := self.find(key):
                return answer
            raise ClaimHeld from None
        return Claim(float(old.get("doubt", 0)))

    def renew(self, key: str, holder: str, claim_seconds: float) -> None:
        """If `holder` still has the claim, extend it to `claim_seconds` from now."""
        with suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._client.update_item(
                TableName=self._table,
                Key=_key(key),
                UpdateExpression="SET #until = :until",
                ConditionExpression="#holder = :holder AND attribute_not_exists(transcript)",
                ExpressionAttributeNames={"#holder": "holder", "#until": "until"},
                ExpressionAttributeValues={
                    ":until": to_decimal(self._clock() + claim_seconds),
                    ":holder": holder,
                },
            )

    def find(self, key: str) -> PaidAnswer | None:
        """Return the stored result, or None."""
        response = self._client.get_item(TableName=self._table, Key=_key(key), ConsistentRead=True)
        item = response.get("Item", {})
        if "transcript" not in item or item["expires"] < self._clock():
            return None
        transcript = Transcript.from_json(zlib.decompress(item["transcript"].value))
        return PaidAnswer(transcript, item["holder"], float(item["paid"]))

    def store(self, key: str, answer: PaidAnswer) -> None:
        """Store a result for later requests.

        If the result is too large for a DynamoDB item, store it without the times of its words. If
        it is still too large, release the claim instead.
        """
        compressed = zlib.compress(answer.transcript.to_json())
        if len(compressed) > MAX_ITEM_BYTES:
            compressed = zlib.compress(answer.transcript.without_words().to_json())
        if len(compressed) > MAX_ITEM_BYTES:
            self.release(key, answer.holder, 0)
            return
        self._client.put_item(
            TableName=self._table,
            Item={
                **_key(key),
                "holder": answer.holder,
                "paid": to_decimal(answer.seconds),
                "transcript": compressed,
                "expires": int(self._clock() + _RETENTION_SECONDS),
            },
        )

    def release(self, key: str, holder: str, unbilled_seconds: float) -> None:
        """Release a claim.

        `unbilled_seconds` is the number of seconds of audio that cannot have been billed.
        """
        try:
            self._client.update_item(
                TableName=self._table,
                Key=_key(key),
                UpdateExpression="SET #until = :zero ADD doubt :unbilled",
                ConditionExpression="#holder = :holder AND attribute_not_exists(transcript)",
                ExpressionAttributeNames={"#holder": "holder", "#until": "until"},
                ExpressionAttributeValues={
                    ":zero": 0,
                    ":holder": holder,
                    ":unbilled": to_decimal(-unbilled_seconds),
                },
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return  # deleted in the meantime, or claimed by another holder

    def delete_if_paid_by(self, key: str, job: str) -> None:
        """Delete a result if it was paid for during the job with the id `job`."""
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
