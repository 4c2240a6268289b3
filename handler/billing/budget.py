"""Limits how many seconds of audio can be billed per day (UTC).

Each caller has a cap, and there is a cap for all callers together. The table has one item for each
day and account:

    pk: spent#2026-11-21
    sk: all, or caller#HASH
    seconds: the seconds that are spent or reserved
    unsettled: the ids of the reservations that are not settled

The AWS client repeats a write if its response is lost. The ids ensure that such a write is counted
only once. If a process crashes before it settles a reservation, the reserved seconds count as
spent, because the request may have been billed. In that case, the id is never removed from the
item.
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

_RETENTION_SECONDS = BUDGET_DAYS * DAY_SECONDS
_RESET = "The limit resets at 00:00 UTC."


@dataclass(frozen=True)
class Reservation:
    """A reservation of `seconds` of audio for the day `day`.

    `accounts` lists the accounts that the reservation counts against: the account of the caller,
    the account of all callers, or both.
    """

    id: str
    day: str
    accounts: tuple[str, ...]
    seconds: float


class Budget:
    """The daily budget, stored in a DynamoDB table.

    `total_cap` is the cap for all callers together, and `caller_cap` is the cap for each caller.
    Both are in seconds of audio per day. None means no cap.
    """

    def __init__(
        self,
        client: Any,
        table: str,
        total_cap: float | None,
        caller_cap: float | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._table = table
        self._total_cap = total_cap
        self._caller_cap = caller_cap
        self._clock = clock

    def reserve(
        self, caller: str, seconds: float, reservation_id: str = "", day: str = ""
    ) -> Reservation:
        """Reserve `seconds` of audio for a caller on the given day. The default is today.

        A `reservation_id` makes the call idempotent: until the reservation is settled, repeating
        the call has no effect. Such a reservation must be settled even if this method raises an
        error. Without a `reservation_id`, this method undoes a failed reservation.
        Raises BudgetExhausted if fewer than `seconds` are left.
        """
        reservation = Reservation(reservation_id or token_hex(8), day or self.today(), (), seconds)
        accounts = []
        try:
            for account, cap in self._caps(caller):
                # Add it before the write, because a write may succeed even if its response is lost.
                accounts.append(account)
                self._reserve_in_account(reservation, account, cap)
        except Exception as error:
            if isinstance(error, BudgetExhausted):
                accounts.pop()  # this account was not changed
            # A reservation with an id belongs to a job. Parts of this job may be in progress.
            if not reservation_id:
                self.settle(replace(reservation, accounts=tuple(accounts)), 0)
            raise
        return replace(reservation, accounts=tuple(accounts))

    def existing_reservation(
        self, caller: str, seconds: float, reservation_id: str, day: str
    ) -> Reservation:
        """Return the reservation that was made with this id, so that it can be settled.

        The arguments must be the same as those of the earlier call to `reserve`.
        """
        accounts = tuple(account for account, _ in self._caps(caller))
        return Reservation(reservation_id, day, accounts, seconds)

    def settle(self, reservation: Reservation, seconds: float) -> None:
        """Replace the reserved seconds with the seconds that were spent.

        Does nothing if the reservation is already settled.
        """
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
        """Raise BudgetExhausted if the caller's cap or the total cap for today is used up."""
        for account, cap in self._caps(caller):
            if self._item(self.today(), account).get("seconds", 0) >= cap:
                raise BudgetExhausted(f"{_describe_cap(account, cap)} is used up. {_RESET}")

    def _caps(self, caller: str) -> list[tuple[str, float]]:
        name = hashlib.sha256(caller.encode()).hexdigest()[:32]
        caps = (f"caller#{name}", self._caller_cap), ("all", self._total_cap)
        return [(account, cap) for account, cap in caps if cap is not None]

    def _reserve_in_account(self, reservation: Reservation, account: str, cap: float) -> None:
        seconds = reservation.seconds
        if seconds > cap:
            raise BudgetExhausted(
                f"{_describe_cap(account, cap)} is too small: this recording may need"
                f" {seconds:.0f} seconds. Send a shorter recording."
            )
        try:
            self._update(
                reservation,
                account,
                "ADD seconds :seconds, unsettled :ids",
                "NOT contains(unsettled, :id)"
                " AND (attribute_not_exists(seconds) OR seconds <= :max)",
                {":seconds": to_decimal(seconds), ":max": to_decimal(cap - seconds)},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            if reservation.id in self._item(reservation.day, account).get("unsettled", ()):
                return  # already reserved, for example by a write whose response was lost
            raise BudgetExhausted(
                f"{_describe_cap(account, cap)} would be exceeded: this recording may need"
                f" {seconds:.0f} seconds. {_RESET}"
            ) from None

    def _update(
        self,
        reservation: Reservation,
        account: str,
        update: str,
        condition: str,
        values: dict[str, Any],
    ) -> None:
        self._client.update_item(
            TableName=self._table,
            Key=_key(reservation.day, account),
            UpdateExpression=f"SET expires = :expires {update}",
            ConditionExpression=condition,
            ExpressionAttributeValues={
                ":id": reservation.id,
                ":ids": {reservation.id},
                ":expires": int(self._clock() + _RETENTION_SECONDS),
                **values,
            },
        )

    def _item(self, day: str, account: str) -> dict[str, Any]:
        response = self._client.get_item(
            TableName=self._table, Key=_key(day, account), ConsistentRead=True
        )
        item: dict[str, Any] = response.get("Item", {})
        return item

    def today(self) -> str:
        """Return today's date in UTC, such as "2026-11-21"."""
        return datetime.fromtimestamp(self._clock(), UTC).date().isoformat()


def _key(day: str, account: str) -> dict[str, str]:
    return {"pk": f"spent#{day}", "sk": account}


def _describe_cap(account: str, cap: float) -> str:
    owner = "This server's" if account == "all" else "Your"
    return f"{owner} daily limit of {cap:g} seconds of audio"
