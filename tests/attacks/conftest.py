"""How often an attack is made, and where its outcome is written.

`make test-all` makes each a few times, `make soak` as often as docs/reliability.md says.
"""

import pytest

from tests.attacks.reliability import FILE, Row, rewritten


@pytest.fixture
def often(request):
    """`often(3, 200)` is 3, and 200 when soaked."""
    return lambda few, many: many if request.config.getoption("--soak") else few


@pytest.fixture
def tried(request):
    """Notes what was tried, how often and what survived, for docs/reliability.md; only what passes gets there."""
    notes = request.config.stash.setdefault(_NOTES, [])

    def note(what, times, outcome):
        made = Row(
            what, times, outcome, f"{request.node.path.stem}.py -k {request.node.originalname}"
        )
        notes.append((request.node.nodeid, made))
        print(f"\n{made.what}: {made.times}; {made.outcome}")  # noqa: T201 - `pytest -s` shows it

    return note


_NOTES = pytest.StashKey[list]()
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
    rows = [row for test, row in config.stash.get(_NOTES, []) if test in passed]
    if config.getoption("--soak") and rows:
        FILE.write_text(rewritten(FILE.read_text(), rows))
