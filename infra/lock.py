"""Read handler/requirements.lock: the hashes that a bundle's wheels must have."""

import re
from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


class NotLocked(LookupError):
    """A package that the lock does not have for the target."""


def locked(names: Iterable[str], lock: str, environment: dict[str, str]) -> list[str]:
    """Return the lines of a requirements file with one version and its hashes for each package.

    `lock` is the text of the lock; `environment` has the values of environment markers, such as `python_full_version`.
    Markers are not in the result, because pip would evaluate them for the Python that runs it.
    NotLocked for a package that is not in the lock.
    """
    found = {}
    for entry in lock.replace("\\\n", " ").splitlines():
        wanted, *hashes = re.split(r"\s+--hash=", entry.partition("#")[0].strip())
        if not wanted:
            continue
        requirement = Requirement(wanted)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            line = " --hash=".join([f"{requirement.name}{requirement.specifier}", *hashes])
            found[canonicalize_name(requirement.name)] = line
    missing = [name for name in names if canonicalize_name(name) not in found]
    if missing:
        raise NotLocked(f"{', '.join(missing)}: not in handler/requirements.lock. Run `make lock`.")
    return [found[canonicalize_name(name)] for name in names]
