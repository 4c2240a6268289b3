"""How values are stored in DynamoDB, and how stored fields are read."""

from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def to_decimal(value: float) -> Decimal:
    """Return the number as DynamoDB has it, in thousandths: nothing that is stored is more exact."""
    return Decimal(str(round(value, 3)))


def known_fields(kind: "type[DataclassInstance]", stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `stored` that are fields of the dataclass `kind`.

    During a deployment, what is stored may come from a version that has more fields.
    """
    return {field.name: stored[field.name] for field in fields(kind) if field.name in stored}
