"""handler/requirements.lock: what is deployed has the versions of the requirements, and pip checks its hashes."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra.bundle import API, CUTTER, HANDLER, LOCK, Target
from infra.lock import NotLocked, locked

LINUX = Target("3.13", "aarch64").markers()
TWO = """\
# made by a tool
one==1.0 ; python_full_version < '3.12' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
one==2.0 ; python_full_version >= '3.12' \\
    --hash=sha256:cc
two-names==3.0 \\
    --hash=sha256:dd
"""


def test_each_package_has_the_version_for_its_target_and_all_hashes():
    assert locked(["one", "Two_Names"], TWO, LINUX) == [
        "one==2.0 --hash=sha256:cc",
        "two-names==3.0 --hash=sha256:dd",
    ]
    older = Target("3.11", "x86_64").markers()
    assert locked(["one"], TWO, older) == ["one==1.0 --hash=sha256:aa --hash=sha256:bb"]


def test_a_package_that_is_not_locked_is_named_with_the_remedy():
    with pytest.raises(
        NotLocked, match=r"three: not in handler/requirements.lock. Run `make lock`"
    ):
        locked(["one", "three"], TWO, LINUX)


@pytest.mark.parametrize("target", [Target("3.13", "aarch64"), Target("3.11", "x86_64")])
def test_what_is_deployed_has_the_versions_that_are_tested(target):
    pins = {}
    for path in (HANDLER / "requirements.txt", HANDLER / "requirements-worker.txt"):
        for line in path.read_text().splitlines():
            if "==" in line:
                pin = Requirement(line)
                if pin.marker is None or pin.marker.evaluate(target.markers()):
                    pins[canonicalize_name(pin.name)] = str(pin.specifier)
    for bundle in (API, CUTTER):
        for line in locked(bundle.packages(), LOCK.read_text(), target.markers()):
            entry, *hashes = line.split(" --hash=")
            name, version = re.fullmatch(r"(.*?)(==.*)", entry).groups()
            assert version == pins[canonicalize_name(name)]
            assert hashes
