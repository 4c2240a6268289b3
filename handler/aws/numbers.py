"""Numbers as DynamoDB has them."""

from decimal import Decimal


def number(value: float) -> Decimal:
    """Decimal, as all of its numbers are; thousandths are exact enough for all of ours."""
    return Decimal(str(round(value, 3)))
