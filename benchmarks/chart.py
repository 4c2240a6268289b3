"""Draw a bar chart that compares each result with its bound."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot
from matplotlib.patches import Patch

from benchmarks.row import Row, short

_INK, _STENO, _NAIVE, _FLOOR, _BOUND = "#333333", "#2a6f97", "#c9c9c9", "#e9a23b", "#b3261e"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw a chart that compares Steno with the tutorial app, and save it as the PNG file `path`.

    The length of a bar is the value divided by its bound. If higher values are better, it is the
    bound divided by the value. A shorter bar is therefore always better.
    """
    figure, axes = pyplot.subplots(figsize=(9, 0.38 * len(rows) + 1), dpi=110)
    for number, row in enumerate(rows):
        for offset, value, colour in ((-0.2, row.steno, _STENO), (0.2, row.naive, _NAIVE)):
            if value is not None:
                length = min(_relative(row, value), _MAX_BAR)
                axes.barh(number + offset, length, 0.38, color=colour)
        if row.floor:
            floor, ends = _relative(row, row.floor), [number - 0.4, number + 0.4]
            axes.plot([floor] * 2, ends, color=_FLOOR, linewidth=2)
        axes.text(_MAX_BAR + 0.05, number, _figures(row), va="center", fontsize=7.5, color=_INK)
    axes.axvline(1, color=_BOUND, linewidth=1)
    axes.set_yticks(range(len(rows)), [row.what.strip() for row in rows], fontsize=8, color=_INK)
    axes.set_xlim(0, _MAX_BAR)
    axes.set_xticks([0, 1, 2], ["0", "bound", "2 x bound"], fontsize=8, color=_INK)
    axes.set_xlabel(
        "figure / bound (bound / figure if more is better); a shorter bar is better",
        fontsize=8,
    )
    axes.invert_yaxis()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    series = (
        (_STENO, "Steno"),
        (_NAIVE, "tutorial app"),
        (_FLOOR, "floor (libraries alone or optimum)"),
    )
    handles = [Patch(color=colour, label=name) for colour, name in series]
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


_MAX_BAR = 2.5  # longer bars are cut off


def _relative(row: Row, value: float) -> float:
    return row.must / value if row.more_is_better else value / row.must


def _figures(row: Row) -> str:
    text = f"{short(row.steno)} {row.unit}"
    return text if row.naive is None else f"{text} (tutorial app: {short(row.naive)})"
