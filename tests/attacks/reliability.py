"""The table of docs/reliability.md: a line for each attack, written from the run that made it."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.conftest import ROOT

FILE = ROOT / "docs" / "reliability.md"
_HEAD = "| what was tried | how often | what survived | again with |\n| --- | --- | --- | --- |\n"


@dataclass(frozen=True)
class Row:
    """`test` is what pytest takes to make the same attack again."""

    what: str
    times: str
    outcome: str
    test: str

    @property
    def line(self) -> str:
        return f"| {self.what} | {self.times} | {self.outcome} | `{self.test}` |"


def rewritten(text: str, rows: Iterable[Row]) -> str:
    """The file with those lines new and the others as they were, each attack's beside its own."""
    before, _, table = text.partition(_HEAD)
    lines, _, after = table.partition("\n\n")
    kept = {_what(line): line for line in lines.splitlines()}
    kept |= {row.what: row.line for row in rows}
    listed = sorted(kept.values(), key=lambda line: line.rpartition(" | ")[2])
    return before + _HEAD + "\n".join(listed) + "\n" + ("\n" + after if after else "")


def _what(line: str) -> str:
    return line.removeprefix("| ").partition(" | ")[0]
