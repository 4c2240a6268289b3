"""What has been paid for: the speech service's answers, kept so that no recording or part is paid for twice.

In the table, for a day, under the hash of what was asked:

    paid#HASH  answer   the transcript; until it is there, who is getting it and until when
"""

import hashlib
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from handler.transcript import Transcript

_KEPT_SECONDS = 86_400
_MOST_BYTES = 380_000  # DynamoDB stores 400 KB an item


class Taken(Exception):
    """Somebody else is paying for the same right now."""


@dataclass(frozen=True)
class Entry:
    """`transcript` is what is known already; `seconds` those that `holder` has paid for it, or may have."""

    holder: str
    seconds: float
    transcript: Transcript | None = None


def key_of(owner: str, digest: str, parameters: dict[str, Any]) -> str:
    """The name of one question: these bytes, from this owner, asked of this model in this way."""
    return hashlib.sha256(json.dumps([owner, digest, parameters], sort_keys=True).encode()).hexdigest()


class Ledger:
    def __init__(self, client: Any, table: str, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    def claim(self, key: str, holder: str, seconds: float, until: float) -> Entry:
        """The answer, where there is one; else it is `holder`'s to get and pay for, until `until` (since 1970).

        Taken where another holder has that claim. A holder's own earlier claim was cut off by a crash: its seconds may
        have been paid, and stay counted.
        """
        now = self._clock()
        values = {":holder": holder, ":until": _number(until), ":seconds": _number(seconds), ":now": _number(now)}
        try:
            item = self._client.update_item(
                TableName=self._table,
                Key=_key(key),
                UpdateExpression="SET #holder = :holder, #until = :until, expires = :expires ADD seconds :seconds",
                ConditionExpression="attribute_not_exists(transcript)"
                " AND (attribute_not_exists(#until) OR #until < :now OR #holder = :holder)",
                ExpressionAttributeNames={"#holder": "holder", "#until": "until"},
                ExpressionAttributeValues={**values, ":expires": int(now + _KEPT_SECONDS)},
                ReturnValues="ALL_NEW",
            )["Attributes"]
        except self._client.exceptions.ConditionalCheckFailedException:
            if known := self.known(key):
                return known
            raise Taken from None
        return Entry(holder, float(item["seconds"] - _number(seconds)))

    def known(self, key: str) -> Entry | None:
        """The answer, where there is one."""
        item = self._client.get_item(TableName=self._table, Key=_key(key), ConsistentRead=True).get("Item", {})
        if item.get("expires", 0) < self._clock():
            self.forget(key)
        elif "transcript" in item:
            return Entry(item["holder"], float(item["seconds"]), _unpacked(item["transcript"].value))
        return None

    def keep(self, key: str, holder: str, seconds: float, transcript: Transcript) -> None:
        """Puts the answer where the next who asks finds it, if it is not larger than any table takes."""
        packed = zlib.compress(transcript.to_json())
        if len(packed) > _MOST_BYTES:
            self.release(key, holder, 0)
            return
        self._client.put_item(
            TableName=self._table,
            Item={
                **_key(key),
                "holder": holder,
                "seconds": _number(seconds),
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
                UpdateExpression="SET #until = :zero ADD seconds :unpaid",
                ConditionExpression="#holder = :holder AND attribute_not_exists(transcript)",
                ExpressionAttributeNames={"#holder": "holder", "#until": "until"},
                ExpressionAttributeValues={":zero": 0, ":holder": holder, ":unpaid": _number(-unpaid)},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return  # forgotten meanwhile, or another's

    def forget(self, key: str) -> None:
        self._client.delete_item(TableName=self._table, Key=_key(key))


def _unpacked(packed: bytes) -> Transcript:
    return Transcript.from_json(zlib.decompress(packed))


def _key(key: str) -> dict[str, str]:
    return {"pk": f"paid#{key}", "sk": "answer"}


def _number(value: float) -> Decimal:
    return Decimal(str(round(value, 3)))
