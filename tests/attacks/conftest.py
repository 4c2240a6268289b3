"""Fixtures that set how often an attack is repeated, and that update docs/about/reliability.md.

`make test-all` repeats each attack a few times. `make soak` repeats it as often as
docs/about/reliability.md states, and updates that file.
"""

import pytest

from tests.attacks.reliability import RELIABILITY_FILE, Row, update_table


@pytest.fixture
def quick_or_soak(request):
    """Return a function that chooses between its two arguments.

    It returns the second argument if `--soak` is set, otherwise the first one.

    `quick_or_soak(3, 200)` is 3 in `make test-all` and 200 in `make soak`.
    """
    return lambda quick, soak: soak if request.config.getoption("--soak") else quick


@pytest.fixture
def record_result(request):
    """Return a function that records an attack, its repetitions and its result.

    If the test passes with `--soak`, these values are added to docs/about/reliability.md as a row.
    """
    rows = request.config.stash.setdefault(_ROWS, [])

    def record(attack, repetitions, result):
        selector = f"{request.node.path.stem}.py -k {request.node.originalname}"
        rows.append((request.node.nodeid, Row(attack, repetitions, result, selector)))
        print(f"\n{attack}: {repetitions}; {result}")  # noqa: T201 - shown by `pytest -s`

    return record


_ROWS = pytest.StashKey[list]()
_PASSED = pytest.StashKey[set]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.when == "call" and report.passed:
        item.config.stash.setdefault(_PASSED, set()).add(item.nodeid)
    return report


def pytest_sessionfinish(session):
    config = session.config
    passed = config.stash.get(_PASSED, set())
    rows = [row for test, row in config.stash.get(_ROWS, []) if test in passed]
    if config.getoption("--soak") and rows:
        RELIABILITY_FILE.write_text(update_table(RELIABILITY_FILE.read_text(), rows))
