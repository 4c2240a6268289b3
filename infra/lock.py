"""Read package versions and hashes from handler/requirements.lock."""

import re
from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


class NotLocked(LookupError):
    """handler/requirements.lock has no entry for a package on the target platform."""


def locked_requirements(names: Iterable[str], lock: str, environment: dict[str, str]) -> list[str]:
    """Return a requirements line, with the version and hashes, for each package in `names`.

    `lock` is the text of the lock file. `environment` contains the values of environment markers,
    such as `python_full_version`. The returned lines have no markers, because pip would evaluate
    them for the Python version that runs pip. Raises NotLocked if any of the
    packages is missing from the lock file.
    """
    line_by_package = {}
    for lock_line in lock.replace("\\\n", " ").splitlines():
        pin, *hashes = re.split(r"\s+--hash=", lock_line.partition("#")[0].strip())
        if not pin:
            continue
        requirement = Requirement(pin)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            line = " --hash=".join([f"{requirement.name}{requirement.specifier}", *hashes])
            line_by_package[canonicalize_name(requirement.name)] = line
    missing = [name for name in names if canonicalize_name(name) not in line_by_package]
    if missing:
        raise NotLocked(f"{', '.join(missing)}: not in handler/requirements.lock. Run `make lock`.")
    return [line_by_package[canonicalize_name(name)] for name in names]
