"""Tests of budget.py: the daily cap counts each reservation once, even if responses are lost."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from moto import mock_aws
from moto.core.models import botocore_stubber

from handler.aws.clients import AWS
from handler.billing.budget import Budget
from handler.errors import BudgetExhausted

DAY = "spent#2026-11-21"


@pytest.fixture
def table(monkeypatch):
    """Emulate DynamoDB in this process."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        yield Table()


class LostError(Exception):
    """Raised instead of returning a response to the AWS client."""


class Table:
    """A table that simulates lost responses and failed writes.

    While `lossy` is True, each write is executed twice, as if its first response had been lost.
    `loses` is the number of a write that is executed, but whose response is lost. `fails` is the
    number of a write that is not executed.
    """

    def __init__(self):
        self.client = AWS().table_client()
        names = {"pk": "HASH", "sk": "RANGE"}
        self.client.create_table(
            TableName="steno",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in names.items()],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
        )
        self.lossy = False
        self.loses = self.fails = 0
        self.writes = 0
        self.client.meta.events.register_first("before-send.dynamodb.UpdateItem", self._write)

    def _write(self, request, **_):
        self.writes += 1
        if self.lossy:
            assert botocore_stubber("before-send", request).status_code in (200, 400)
        if self.loses == self.writes:
            assert botocore_stubber("before-send", request).status_code == 200
            raise LostError
        if self.fails == self.writes:
            raise LostError

    def budget(self, everyone=100.0, each=None):
        return Budget(self.client, "steno", everyone, each, lambda: 1_795_219_200.0)

    def items(self):
        found = self.client.scan(TableName="steno")["Items"]
        return {item["sk"].partition("#")[0]: item for item in found if item["pk"] == DAY}

    def spent(self):
        return {name: float(item["seconds"]) for name, item in self.items().items()}


def test_a_write_that_is_repeated_after_a_lost_response_counts_once(table):
    budget = table.budget(100, 50)
    table.lossy = True
    reservation = budget.reserve("ada", 40)
    assert table.spent() == {"all": 40, "caller": 40}
    budget.settle(reservation, 10)
    assert table.spent() == {"all": 10, "caller": 10}
    budget.settle(budget.reserve("ada", 40), 40)
    assert table.spent() == {"all": 50, "caller": 50}


def test_a_reservation_of_the_last_seconds_is_valid_after_a_lost_response(table):
    table.lossy = True
    table.budget(10).reserve("ada", 10)
    with pytest.raises(BudgetExhausted, match="00:00 UTC"):
        table.budget(10).reserve("ada", 1)
    assert table.spent() == {"all": 10}


@pytest.mark.parametrize("write", [1, 2])
def test_a_reservation_whose_response_is_lost_is_released(table, write):
    table.loses = write
    with pytest.raises(LostError):
        table.budget(100, 50).reserve("ada", 40)
    assert set(table.spent().values()) == {0}


def test_settling_is_idempotent(table):
    budget = table.budget()
    reservation = budget.reserve("ada", 40)
    for _ in range(3):
        budget.settle(reservation, 10)
    assert table.spent() == {"all": 10}


def test_a_named_reservation_is_made_once_and_settled_by_its_name(table):
    budget = table.budget(100, 50)
    for _ in range(3):
        budget.reserve("ada", 40, "a job", "2026-11-21")
    assert table.spent() == {"all": 40, "caller": 40}
    for _ in range(3):
        budget.settle(budget.existing_reservation("ada", 40, "a job", "2026-11-21"), 10)
    assert table.spent() == {"all": 10, "caller": 10}


def test_a_named_reservation_remains_in_an_outage_until_it_is_settled(table):
    """It remains because requests for parts of the job may still be in flight."""
    budget = table.budget(100, 50)
    budget.reserve("ada", 40, "a job", "2026-11-21")
    table.fails = 3
    with pytest.raises(LostError):
        budget.reserve("ada", 40, "a job", "2026-11-21")
    budget.settle(budget.existing_reservation("ada", 40, "a job", "2026-11-21"), 30)
    assert table.spent() == {"all": 30, "caller": 30}


def test_a_rejected_named_reservation_is_released_when_it_is_settled(table):
    budget = table.budget(5, 50)
    with pytest.raises(BudgetExhausted):
        budget.reserve("ada", 6, "a job", "2026-11-21")
    budget.settle(budget.existing_reservation("ada", 6, "a job", "2026-11-21"), 0)
    assert set(table.spent().values()) <= {0}


def test_a_reservation_of_an_earlier_day_is_settled_on_that_day(table):
    budget = table.budget(100)
    budget.reserve("ada", 40, "a job", "2026-11-20")
    budget.settle(budget.existing_reservation("ada", 40, "a job", "2026-11-20"), 10)
    assert table.spent() == {}
    (item,) = table.client.scan(TableName="steno")["Items"]
    assert (item["pk"], item["seconds"]) == ("spent#2026-11-20", 10)


def test_an_unsettled_reservation_counts_as_spent_and_does_not_block_others(table):
    budget = table.budget(10)
    budget.reserve("ada", 4)
    for _ in range(3):
        budget.settle(budget.reserve("bob", 2), 2)
    with pytest.raises(BudgetExhausted):
        budget.reserve("bob", 1)
    assert table.spent() == {"all": 10}


def test_a_settled_reservation_is_removed_from_the_item(table):
    budget = table.budget()
    kept = budget.reserve("ada", 1)
    for _ in range(3):
        budget.settle(budget.reserve("ada", 1), 1)
    assert table.items()["all"]["unsettled"] == {kept.id}
    budget.settle(kept, 1)
    assert set(table.items()["all"]) == {"pk", "sk", "seconds", "expires"}


def test_a_reservation_over_the_shared_cap_is_returned_to_the_caller(table):
    budget = table.budget(5, 50)
    with pytest.raises(BudgetExhausted):
        budget.reserve("ada", 6)
    budget.reserve("ada", 5)
    with pytest.raises(BudgetExhausted):
        budget.reserve("ada", 5)
    assert table.spent() == {"all": 5, "caller": 5}


def test_reserving_and_settling_are_one_write_per_cap(table):
    budget = table.budget(100, 50)
    budget.settle(budget.reserve("ada", 40), 10)
    assert table.writes == 4
    budget.check("ada")
    assert table.writes == 4


def test_a_check_fails_only_if_the_budget_is_exhausted(table):
    budget = table.budget(100, 50)
    budget.check("ada")
    budget.reserve("ada", 49.9)
    budget.check("ada")
    budget.reserve("ada", 0.1)
    with pytest.raises(BudgetExhausted, match="Your daily limit of 50 seconds"):
        budget.check("ada")
    budget.check("bob")


def test_concurrent_reservations_do_not_exceed_the_cap(aws):
    """This test uses the AWS emulator, because conditional writes in moto are not atomic."""
    client = AWS().table_client()
    budget = Budget(client, aws["table_name"], 10, None, lambda: 1_795_219_200.0)

    def reserve(_):
        try:
            return budget.reserve("ada", 3)
        except BudgetExhausted:
            return None

    with ThreadPoolExecutor(8) as pool:
        reservations = [one for one in pool.map(reserve, range(8)) if one]
    assert len(reservations) == 3
    (item,) = client.scan(TableName=aws["table_name"])["Items"]
    assert (item["sk"], item["seconds"]) == ("all", 9)
