"""The table of what was tried: a run rewrites its own lines and no others."""

from tests.attacks.reliability import FILE, Row, rewritten


def test_a_run_rewrites_its_own_lines_and_no_others():
    first = rewritten(
        "Before.\n\n",
        [Row("Bits", "9 times", "held", "test_b.py -k b"), Row("Kills", "1", "-", "test_a.py")],
    )
    again = rewritten(first, [Row("Bits", "10 times", "held", "test_b.py -k b")])
    lines = again.splitlines()
    assert lines[0] == "Before."
    assert lines[-2:] == [
        "| Kills | 1 | - | `test_a.py` |",
        "| Bits | 10 times | held | `test_b.py -k b` |",
    ]
    assert rewritten(again, []) == again


def test_the_file_is_one_that_a_run_can_rewrite():
    text = FILE.read_text()
    assert rewritten(text, []) == text
