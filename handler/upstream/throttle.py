"""The shared rate limit for requests to a busy upstream.

The limit applies after a busy upstream has rejected a request. All Lambda functions share one
DynamoDB item:

upstream#HASH  busy   until    when the next request may be sent (seconds since 1970)
                      gap      the seconds between two requests, right after the last pause
                      paused   when the last pause ends (seconds since 1970)
                      pause    the duration of the last pause in seconds
                      sent     the number of requests since the last pause
                      rest     until this time, other upstreams are preferred (seconds since 1970)
"""

import hashlib
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from handler.aws.items import to_decimal
from handler.durations import DAY_SECONDS

_ITEM_TTL_SECONDS = DAY_SECONDS
_REST_SECONDS = 60.0
_RESET_SECONDS = 600.0  # after this time without a request, the limit no longer applies
_MAX_PAUSE = 60.0  # seconds, unless the upstream requests a longer pause
_MIN_GAP, _MAX_GAP = 0.25, 10.0  # seconds
# `python -m benchmarks.limiter` tests these factors with several simulated rate limits.
_GAP_INCREASE = 1.4  # multiplies the gap after a rejected request
_GAP_DECREASE = 0.97  # multiplies the gap after any other request
_JITTER = 0.25  # spreads the retries of messages that wait at the same time


class Throttle:
    """Limits the rate of requests to an upstream that is busy."""

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

    def acquire(self) -> float:
        """Reserve a slot for a request if it can be sent now.

        Returns 0 if a slot was reserved. Otherwise, returns the number of seconds to wait
        before the next attempt.
        """
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
            return gap  # another process has reserved this request
        return 0.0

    def slow_down(self, seconds: float) -> None:
        """Pause all requests for this many seconds, and increase the gap between later requests.

        Call this method when a busy upstream has rejected a request. If that was the first request
        after a pause, the gap stays the same, but the new pause can be up to twice as long as the
        previous one.
        """
        item, now = self._item(), self._clock()
        if now < float(item.get("paused", 0)):
            return  # the rejected request was sent before the current pause
        current = {} if _is_old(item, now) else item
        gap, sent = _gap(current), int(current.get("sent", 0))
        if sent > 1:
            gap = min(max(_GAP_INCREASE * gap, _MIN_GAP), _MAX_GAP)
        elif sent == 1:
            seconds = max(seconds, min(2 * float(current["pause"]), _MAX_PAUSE))
        pause_end = now + seconds
        values = {
            ":pause_end": to_decimal(pause_end),
            ":gap": to_decimal(gap),
            ":seconds": to_decimal(seconds),
            ":zero": 0,
            ":expires": int(pause_end + _ITEM_TTL_SECONDS),
            ":paused": item.get("paused"),
        }
        # Another request that was rejected at the same time may already have started a pause.
        with suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._update(
                "SET #until = :pause_end, paused = :pause_end, pause = :seconds, gap = :gap,"
                " sent = :zero, expires = :expires",
                "attribute_not_exists(paused) OR paused = :paused",
                values,
            )

    def rest(self) -> None:
        """Prefer other upstreams to this one for a minute. Call this after a request has failed."""
        until = self._clock() + _REST_SECONDS
        self._client.update_item(
            TableName=self._table,
            Key=self._key,
            UpdateExpression="SET rest = :until, expires = :expires",
            ExpressionAttributeValues={
                ":until": to_decimal(until),
                ":expires": int(until + _ITEM_TTL_SECONDS),
            },
        )

    def is_resting(self) -> bool:
        """Return whether other upstreams are currently preferred to this one."""
        return float(self._item().get("rest", 0)) > self._clock()

    def _item(self) -> dict[str, Any]:
        response = self._client.get_item(TableName=self._table, Key=self._key, ConsistentRead=True)
        item: dict[str, Any] = response.get("Item", {})
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
    return float(item.get("until", 0)) + _RESET_SECONDS < now


def _gap(item: dict[str, Any]) -> float:
    """Return the current gap between two requests, in seconds."""
    return float(item.get("gap", 0)) * _GAP_DECREASE ** int(item.get("sent", 0))


def with_jitter(seconds: float) -> float:
    """Return `seconds`, randomly increased by up to 25 %."""
    return seconds * random.uniform(1, 1 + _JITTER)  # noqa: S311 - not used for security
