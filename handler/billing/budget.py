"""The seconds of sound that may be paid for in a day (UTC), by each caller and by all together.

spent#2026-11-21  all | caller#HASH   seconds, and the ids of its unsettled reservations

AWS's client sends a write again whose response was lost. The ids make each write count once. A
reservation that is never settled, because its process died, counts as spent: what it was made for
may have been billed. Its id stays in the item of that day.
"""

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from handler.aws.items import to_decimal
from handler.durations import BUDGET_DAYS, DAY_SECONDS
from handler.errors import BudgetExhausted

_KEPT_SECONDS = BUDGET_DAYS * DAY_SECONDS
_AGAIN = "They are there again at 00:00 UTC."


@dataclass(frozen=True)
class Reservation:
    """`seconds` of the day `day` that nobody else can spend, in the accounts `accounts`."""

    id: str
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

    def reserve(
        self, caller: str, seconds: float, identity: str = "", day: str = ""
    ) -> Reservation:
        """BudgetExhausted where so many seconds are not left today.

        With the identity and the day of an earlier reservation, that one is made again or left
        as it is, if it is not settled. The caller then settles it, also after an error.
        """
        reservation = Reservation(identity or token_hex(8), day or self.today(), (), seconds)
        taken = []
        try:
            for account, cap in self._caps(caller):
                taken.append(account)  # before it is: the response may be lost
                self._take(reservation, account, cap)
        except Exception as error:
            if isinstance(error, BudgetExhausted):
                taken.pop()
            if not identity:  # else parts of a job may be under way, for which it was made
                self.settle(replace(reservation, accounts=tuple(taken)), 0)
            raise
        return replace(reservation, accounts=tuple(taken))

    def reserved(self, caller: str, seconds: float, identity: str, day: str) -> Reservation:
        """Return the reservation that `reserve` has made, to settle it."""
        return Reservation(
            identity, day, tuple(account for account, _ in self._caps(caller)), seconds
        )

    def settle(self, reservation: Reservation, seconds: float) -> None:
        """Replace the reserved seconds by the spent ones. Settling a reservation again changes nothing."""
        for account in reservation.accounts:
            with suppress(self._client.exceptions.ConditionalCheckFailedException):
                self._update(
                    reservation,
                    account,
                    "DELETE unsettled :ids ADD seconds :seconds",
                    "contains(unsettled, :id)",
                    {":seconds": to_decimal(seconds - reservation.seconds)},
                )

    def check(self, caller: str) -> None:
        """BudgetExhausted where nothing is left today."""
        for account, cap in self._caps(caller):
            if self._item(self.today(), account).get("seconds", 0) >= cap:
                raise BudgetExhausted(
                    f"{_whose(account)} {cap:g} seconds of sound a day are spent. {_AGAIN}"
                )

    def _caps(self, caller: str) -> list[tuple[str, float]]:
        name = hashlib.sha256(caller.encode()).hexdigest()[:32]
        caps = (f"caller#{name}", self._each), ("all", self._everyone)
        return [(account, cap) for account, cap in caps if cap is not None]

    def _take(self, reservation: Reservation, account: str, cap: float) -> None:
        seconds = reservation.seconds
        if seconds > cap:
            raise BudgetExhausted(
                f"{_whose(account)} {cap:g} seconds of sound a day are less than the {seconds:.0f}"
                " that are asked for at once."
            )
        try:
            self._update(
                reservation,
                account,
                "ADD seconds :seconds, unsettled :ids",
                "NOT contains(unsettled, :id) AND (attribute_not_exists(seconds) OR seconds <= :most)",
                {":seconds": to_decimal(seconds), ":most": to_decimal(cap - seconds)},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            if reservation.id in self._item(reservation.day, account).get("unsettled", ()):
                return  # by the same write, whose response was lost
            raise BudgetExhausted(
                f"Of {_whose(account).lower()} {cap:g} seconds of sound a day fewer than {seconds:.0f} are left."
                f" {_AGAIN}"
            ) from None

    def _update(
        self,
        reservation: Reservation,
        account: str,
        change: str,
        condition: str,
        values: dict[str, Any],
    ) -> None:
        self._client.update_item(
            TableName=self._table,
            Key=_key(reservation.day, account),
            UpdateExpression=f"SET expires = :expires {change}",
            ConditionExpression=condition,
            ExpressionAttributeValues={
                ":id": reservation.id,
                ":ids": {reservation.id},
                ":expires": int(self._clock() + _KEPT_SECONDS),
                **values,
            },
        )

    def _item(self, day: str, account: str) -> dict[str, Any]:
        found = self._client.get_item(
            TableName=self._table, Key=_key(day, account), ConsistentRead=True
        )
        item: dict[str, Any] = found.get("Item", {})
        return item

    def today(self) -> str:
        """Return the day (UTC) whose seconds are spent now."""
        return datetime.fromtimestamp(self._clock(), UTC).date().isoformat()


def _key(day: str, account: str) -> dict[str, str]:
    return {"pk": f"spent#{day}", "sk": account}


def _whose(account: str) -> str:
    return "This server's" if account == "all" else "Your"
