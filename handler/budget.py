"""The seconds of sound that may be paid for in a day (UTC), by each caller and by all together.

spent#2026-11-21  all | caller#HASH   seconds
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from handler.errors import BudgetExhausted
from handler.numbers import number

_DAY = 86_400
_KEPT_SECONDS = 7 * _DAY


@dataclass(frozen=True)
class Reservation:
    """`seconds` of the day `day` that nobody else can spend, in the accounts `accounts`."""

    day: str
    accounts: tuple[str, ...]
    seconds: float


class Budget:
    """`everyone` and `each` are the caps in seconds a day; None where there is none."""

    def __init__(
        self,
        client: Any,
        table: str,
        everyone: float | None,
        each: float | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._table = table
        self._everyone = everyone
        self._each = each
        self._clock = clock

    def reserve(self, caller: str, seconds: float) -> Reservation:
        """BudgetExhausted where so many seconds are not left today."""
        day, taken = self._today(), []
        try:
            for account, cap in self._caps(caller):
                self._take(day, account, seconds, cap)
                taken.append(account)
        except Exception:
            self.settle(Reservation(day, tuple(taken), seconds), 0)
            raise
        return Reservation(day, tuple(taken), seconds)

    def settle(self, reservation: Reservation, seconds: float) -> None:
        """What was reserved becomes what was spent."""
        for account in reservation.accounts:
            self._add(reservation.day, account, seconds - reservation.seconds)

    def check(self, caller: str) -> None:
        """BudgetExhausted where nothing is left today."""
        self.settle(self.reserve(caller, 0.001), 0)

    def _caps(self, caller: str) -> list[tuple[str, float]]:
        name = hashlib.sha256(caller.encode()).hexdigest()[:32]
        caps = (f"caller#{name}", self._each), ("all", self._everyone)
        return [(account, cap) for account, cap in caps if cap is not None]

    def _take(self, day: str, account: str, seconds: float, cap: float) -> None:
        whose = "This server's" if account == "all" else "Your"
        if seconds > cap:
            raise BudgetExhausted(
                f"{whose} {cap:g} seconds of sound a day are less than the {seconds:.0f} that are asked for at once."
            )
        try:
            self._add(day, account, seconds, most=cap - seconds)
        except self._client.exceptions.ConditionalCheckFailedException:
            raise BudgetExhausted(
                f"Of {whose.lower()} {cap:g} seconds of sound a day fewer than {seconds:.0f} are left."
                " They are there again at 00:00 UTC."
            ) from None

    def _add(self, day: str, account: str, seconds: float, most: float | None = None) -> None:
        """Counts the seconds, unless there are more than `most` already."""
        values = {":seconds": number(seconds), ":expires": int(self._clock() + _KEPT_SECONDS)}
        condition = {}
        if most is not None:
            values[":most"] = number(most)
            condition["ConditionExpression"] = "attribute_not_exists(seconds) OR seconds <= :most"
        self._client.update_item(
            TableName=self._table,
            Key={"pk": f"spent#{day}", "sk": account},
            UpdateExpression="SET expires = :expires ADD seconds :seconds",
            ExpressionAttributeValues=values,
            **condition,
        )

    def _today(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).date().isoformat()
