"""How often the upstream is asked, after it has refused a request because it is busy.

All functions share one item:

upstream#HASH  busy   until    when the next request may be sent (seconds since 1970)
                      gap      the seconds between two requests, at the end of the last pause
                      paused   when the last pause ended, or will end
                      pause    its seconds
                      sent     how many requests were sent since then
"""

import hashlib
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from handler.aws.items import to_decimal
from handler.durations import DAY_SECONDS

_KEPT_SECONDS = DAY_SECONDS
_FORGOTTEN_SECONDS = 600.0  # without a request
_LONGEST_PAUSE = 60.0  # unless the upstream asks for more
_FIRST_GAP, _LONGEST_GAP = 0.25, 10.0
# `python -m benchmarks.limiter` shows what these lead to for several limits.
_SLOWER = 1.4  # the gap after a refused request
_FASTER = 0.97  # the gap after each other request
_SPREAD = 0.25  # so that the waiting messages do not all come back at the same moment


class Throttle:
    """Gives requests their turns, as often as a busy upstream admits them."""

    def __init__(
        self, client: Any, table: str, base_url: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._table = table
        self._key = {
            "pk": f"upstream#{hashlib.sha256(base_url.encode()).hexdigest()[:32]}",
            "sk": "busy",
        }
        self._clock = clock

    def turn(self) -> float:
        """Take a turn. Return 0 if a request can be sent now, else after how many seconds to try again."""
        item, now = self._item(), self._clock()
        if _is_old(item, now):
            return 0.0
        until, gap = float(item["until"]), _gap(item)
        if until > now:
            return until - now
        values = {":next": to_decimal(max(until + gap, now)), ":until": item["until"], ":one": 1}
        try:
            self._update("SET #until = :next ADD sent :one", "#until = :until", values)
        except self._client.exceptions.ConditionalCheckFailedException:
            return gap  # another request has this turn
        return 0.0

    def slow_down(self, seconds: float) -> None:
        """Let no request be sent for so many seconds, and send them less often after that.

        If not even the first request after a pause is admitted, the pause becomes longer instead.
        """
        item, now = self._item(), self._clock()
        if now < float(item.get("paused", 0)):
            return  # this request was sent before the pause began
        known = {} if _is_old(item, now) else item
        gap, sent = _gap(known), int(known.get("sent", 0))
        if sent > 1:
            gap = min(max(_SLOWER * gap, _FIRST_GAP), _LONGEST_GAP)
        elif sent == 1:
            seconds = max(seconds, min(2 * float(known["pause"]), _LONGEST_PAUSE))
        then = now + seconds
        values = {
            ":then": to_decimal(then),
            ":gap": to_decimal(gap),
            ":seconds": to_decimal(seconds),
            ":zero": 0,
            ":expires": int(then + _KEPT_SECONDS),
            ":paused": item.get("paused"),
        }
        # Another request that is refused at the same moment may have made a pause already.
        with suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._update(
                "SET #until = :then, gap = :gap, paused = :then, pause = :seconds, sent = :zero, expires = :expires",
                "attribute_not_exists(paused) OR paused = :paused",
                values,
            )

    def _item(self) -> dict[str, Any]:
        found = self._client.get_item(TableName=self._table, Key=self._key, ConsistentRead=True)
        item: dict[str, Any] = found.get("Item", {})
        return item

    def _update(self, change: str, condition: str, values: dict[str, Any]) -> None:
        self._client.update_item(
            TableName=self._table,
            Key=self._key,
            UpdateExpression=change,
            ConditionExpression=condition,
            ExpressionAttributeNames={"#until": "until"},
            ExpressionAttributeValues=values,
        )


def _is_old(item: dict[str, Any], now: float) -> bool:
    return float(item.get("until", 0)) + _FORGOTTEN_SECONDS < now


def _gap(item: dict[str, Any]) -> float:
    """Return the seconds between two requests now."""
    return float(item.get("gap", 0)) * _FASTER ** int(item.get("sent", 0))


def with_jitter(seconds: float) -> float:
    """Return a random time that is at least `seconds`."""
    return seconds * random.uniform(1, 1 + _SPREAD)  # noqa: S311 - no secret
