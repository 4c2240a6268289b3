"""The result of a benchmark, and how it is printed as a row of the table."""

from collections.abc import Iterable
from dataclasses import dataclass

HEAD = f"{'':58} {'Steno':>8} {'tutorial':>8} {'floor':>8} {'bound':>8} {'goal':>8}  unit"


TUTORIAL_RATIO = "ratio to tutorial app"


@dataclass(frozen=True)
class Row:
    """A value measured for Steno, in `unit`, and the values to compare it with.

    `naive` is the value for the tutorial app (benchmarks/naive.py). `floor` is the value for the
    libraries alone, or the theoretical optimum. `must` is the bound that Steno has to meet, and
    `stretch` is the goal.
    """

    what: str
    unit: str
    steno: float
    must: float
    stretch: float
    naive: float | None = None
    floor: float | None = None
    more_is_better: bool = False

    @property
    def holds(self) -> bool:
        """Return whether Steno meets the bound."""
        return self.steno >= self.must if self.more_is_better else self.steno <= self.must

    def scaled(self, one: float, unit: str) -> "Row":
        """Return the row of absolute values that belongs to a row of ratios. `one` is in `unit`."""
        naive, floor = (value and value * one for value in (self.naive, self.floor))
        values = (self.steno * one, self.must * one, self.stretch * one, naive, floor)
        return Row(f"{self.what}, in {unit}", unit, *values)


def table(rows: Iterable[Row]) -> str:
    """Return the table as text."""
    return "\n".join([HEAD, *map(line, rows)])


def line(row: Row) -> str:
    """Return a row of the table as text, marked with `!` if Steno does not meet the bound."""
    values = (row.steno, row.naive, row.floor, row.must, row.stretch)
    mark = " " if row.holds else "!"
    cells = " ".join(f"{short(value):>8}" for value in values)
    return f"{row.what:57} {mark}{cells}  {row.unit}"


def markdown(rows: Iterable[Row]) -> str:
    """Return the table in Markdown, without the goals."""
    lines = [
        "| | Steno | tutorial | floor | bound | unit |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        values = " | ".join(map(short, (row.steno, row.naive, row.floor, row.must)))
        lines.append(f"| {row.what} | {values} | {row.unit} |")
    return "\n".join(lines) + "\n"


def short(value: float | None) -> str:
    """Format a value with two decimal places if it is below 10, otherwise as a whole number."""
    if value is None:
        return ""
    return f"{value:.2f}" if abs(value) < 10 else f"{value:,.0f}"
