"""Converts numbers for DynamoDB, and selects the known fields of stored data."""

from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def to_decimal(value: float) -> Decimal:
    """Return a number as a Decimal for DynamoDB, rounded to three decimal places."""
    return Decimal(str(round(value, 3)))


def known_fields(model: "type[DataclassInstance]", stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `stored` whose names are fields of the dataclass `model`.

    Other entries are ignored: during a deployment, a newer release may have stored new fields.
    """
    return {field.name: stored[field.name] for field in fields(model) if field.name in stored}
