"""Test that a test run updates the table in docs/about/reliability.md correctly."""

from tests.attacks.reliability import RELIABILITY_FILE, Row, update_table


def test_a_run_updates_its_own_rows_and_no_others():
    first = update_table(
        "Before.\n\n",
        [Row("Bits", "9 times", "held", "test_b.py -k b"), Row("Kills", "1", "-", "test_a.py")],
    )
    updated = update_table(first, [Row("Bits", "10 times", "held", "test_b.py -k b")])
    lines = updated.splitlines()
    assert lines[0] == "Before."
    assert lines[-2:] == [
        "| Kills | 1 | - | `test_a.py` |",
        "| Bits | 10 times | held | `test_b.py -k b` |",
    ]
    assert update_table(updated, []) == updated


def test_the_table_in_docs_has_the_expected_format():
    text = RELIABILITY_FILE.read_text()
    assert update_table(text, []) == text
