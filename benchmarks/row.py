"""One line of the table: what was measured, for Steno, for a tutorial's app and for the least that it can take."""

from collections.abc import Iterable
from dataclasses import dataclass

HEAD = f"{'':58} {'Steno':>8} {'tutorial':>8} {'floor':>8} {'must':>8} {'stretch':>8}  unit"


@dataclass(frozen=True)
class Row:
    """`floor` is what the libraries alone take, or the best that there can be; `must` and `stretch` are aims."""

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
        return self.steno >= self.must if self.more_is_better else self.steno <= self.must


def table(rows: Iterable[Row]) -> str:
    return "\n".join([HEAD, *map(line, rows)])


def line(row: Row) -> str:
    figures = (row.steno, row.naive, row.floor, row.must, row.stretch)
    mark = " " if row.holds else "!"
    return (
        f"{row.what:57} {mark}"
        + " ".join(f"{short(figure):>8}" for figure in figures)
        + f"  {row.unit}"
    )


def short(figure: float | None) -> str:
    if figure is None:
        return ""
    return f"{figure:.2f}" if abs(figure) < 10 else f"{figure:,.0f}"
