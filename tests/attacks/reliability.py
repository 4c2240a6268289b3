"""Update the table of docs/about/reliability.md from the results of a test run."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.conftest import ROOT

RELIABILITY_FILE = ROOT / "docs" / "about" / "reliability.md"
_HEAD = "| Attack | Repetitions | Result | Test |\n| --- | --- | --- | --- |\n"


@dataclass(frozen=True)
class Row:
    """A row of the table. `test` identifies the test that repeats the attack."""

    attack: str
    repetitions: str
    result: str
    test: str

    @property
    def line(self) -> str:
        return f"| {self.attack} | {self.repetitions} | {self.result} | `{self.test}` |"


def update_table(text: str, rows: Iterable[Row]) -> str:
    """Return `text` with these rows added or replaced. All rows are sorted by test."""
    before, _, table = text.partition(_HEAD)
    lines, _, after = table.partition("\n\n")
    rows_by_attack = {_attack_of(line): line for line in lines.splitlines()}
    rows_by_attack |= {row.attack: row.line for row in rows}
    table_lines = sorted(rows_by_attack.values(), key=lambda line: line.rpartition(" | ")[2])
    return before + _HEAD + "\n".join(table_lines) + "\n" + ("\n" + after if after else "")


def _attack_of(line: str) -> str:
    return line.removeprefix("| ").partition(" | ")[0]
