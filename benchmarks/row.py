"""One result of a benchmark, and its line in the table."""

from collections.abc import Iterable
from dataclasses import dataclass

HEAD = f"{'':58} {'Steno':>8} {'tutorial':>8} {'floor':>8} {'bound':>8} {'goal':>8}  unit"


TUTORIAL_RATIO = "ratio to tutorial app"


@dataclass(frozen=True)
class Row:
    """A figure of Steno, in `unit`, with figures to compare it with.

    `naive` is the figure of the tutorial app (benchmarks/naive.py). `floor` is the figure of the
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
        """Return whether the figure meets its bound."""
        return self.steno >= self.must if self.more_is_better else self.steno <= self.must


def table(rows: Iterable[Row]) -> str:
    """Return the table as text."""
    return "\n".join([HEAD, *map(line, rows)])


def line(row: Row) -> str:
    """Return the row of the table as text, marked with `!` if it misses its bound."""
    figures = (row.steno, row.naive, row.floor, row.must, row.stretch)
    mark = " " if row.holds else "!"
    cells = " ".join(f"{short(figure):>8}" for figure in figures)
    return f"{row.what:57} {mark}{cells}  {row.unit}"


def short(figure: float | None) -> str:
    """Return the figure with two decimals below 10, otherwise as a whole number."""
    if figure is None:
        return ""
    return f"{figure:.2f}" if abs(figure) < 10 else f"{figure:,.0f}"
