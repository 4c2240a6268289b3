"""Reads what is stored: during a deployment, it may come from a version that has more fields."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def known_fields(kind: "type[DataclassInstance]", stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `stored` that are fields of the dataclass `kind`."""
    return {field.name: stored[field.name] for field in fields(kind) if field.name in stored}
