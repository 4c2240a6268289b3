"""The table as a picture: how far each figure is from its bound, for Steno and for the tutorial's app."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot
from matplotlib.patches import Patch

from benchmarks.row import Row, short

_INK, _STENO, _NAIVE, _FLOOR, _BOUND = "#333333", "#2a6f97", "#c9c9c9", "#e9a23b", "#b3261e"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Writes a PNG. Each bar is a figure over its bound, upside down where more is better: shorter is better."""
    figure, axes = pyplot.subplots(figsize=(9, 0.38 * len(rows) + 1), dpi=110)
    for place, row in enumerate(rows):
        for offset, value, colour in ((-0.2, row.steno, _STENO), (0.2, row.naive, _NAIVE)):
            if value is not None:
                axes.barh(place + offset, min(_share(row, value), _FURTHEST), 0.38, color=colour)
        if row.floor:
            axes.plot(
                [_share(row, row.floor)] * 2, [place - 0.4, place + 0.4], color=_FLOOR, linewidth=2
            )
        axes.text(_FURTHEST + 0.05, place, _figures(row), va="center", fontsize=7.5, color=_INK)
    axes.axvline(1, color=_BOUND, linewidth=1)
    axes.set_yticks(range(len(rows)), [row.what.strip() for row in rows], fontsize=8, color=_INK)
    axes.set_xlim(0, _FURTHEST)
    axes.set_xticks([0, 1, 2], ["0", "the bound", "2 x"], fontsize=8, color=_INK)
    axes.set_xlabel(
        "the figure over its bound, or the other way round where more is better: shorter is better",
        fontsize=8,
    )
    axes.invert_yaxis()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    named = ((_STENO, "Steno"), (_NAIVE, "a tutorial's app"), (_FLOOR, "the floor"))
    handles = [Patch(color=colour, label=name) for colour, name in named]
    axes.legend(
        handles=handles,
        fontsize=8,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=3,
        frameon=False,
    )
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)


_FURTHEST = 2.5  # longer bars are cut off


def _share(row: Row, value: float) -> float:
    return row.must / value if row.more_is_better else value / row.must


def _figures(row: Row) -> str:
    return f"{short(row.steno)} {row.unit}" + (
        f" (the tutorial's: {short(row.naive)})" if row.naive is not None else ""
    )
