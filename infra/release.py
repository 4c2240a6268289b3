"""Make a release: check the repository, update the version, then commit, tag and archive it.

`make release VERSION=X.Y.Z` runs this module. It changes only the local repository. The maintainer
pushes the branch and the tag.
"""

import re
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

_VERSION_LINE = re.compile(r'^__version__ = "(\d+)\.(\d+)\.(\d+)"$', re.MULTILINE)
_UNRELEASED = re.compile(r"^## Unreleased\n(.*?)(?=^## )", re.MULTILINE | re.DOTALL)


class CannotRelease(Exception):
    """The reason why the release cannot be made, and the remedy."""


class Release:
    """One release of the repository at `root`. Raises CannotRelease if `version` is not valid."""

    def __init__(self, root: Path, version: str) -> None:
        match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version)
        if not match:
            raise CannotRelease(
                f"`{version}` is not a version. Use three numbers: make release VERSION=1.2.3"
            )
        self.version = version
        self._numbers = tuple(map(int, match.groups()))
        self._root = root
        self._code = root / "handler" / "__init__.py"
        self._changelog = root / "CHANGELOG.md"

    def check(self) -> None:
        """Raise CannotRelease if the repository is not ready for this release."""
        branch = self._git("branch", "--show-current").strip()
        if branch != "main":
            raise CannotRelease(f"The current branch is `{branch}`. Releases are made from main.")
        if changed := self._git("status", "--porcelain"):
            raise CannotRelease(f"The working tree has changes. Commit or discard them:\n{changed}")
        if self._git("tag", "--list", self._tag):
            raise CannotRelease(f"The tag {self._tag} exists. Choose a later version.")
        current = _VERSION_LINE.search(self._code.read_text())
        if current and self._numbers <= tuple(map(int, current.groups())):
            raise CannotRelease(
                f"The current version is {'.'.join(current.groups())}. Choose a later one."
            )
        changes = _UNRELEASED.search(self._changelog.read_text())
        if not changes or not changes[1].strip():
            raise CannotRelease("CHANGELOG.md has no changes below `## Unreleased`. Describe them.")

    def write(self, today: date) -> Path:
        """Update the version. Create a commit, a tag and an archive. Return the archive's path."""
        code = _VERSION_LINE.sub(f'__version__ = "{self.version}"', self._code.read_text())
        self._code.write_text(code)
        heading = f"## Unreleased\n\n## {self.version} - {today.isoformat()}\n"
        changelog = self._changelog.read_text().replace("## Unreleased\n", heading, 1)
        self._changelog.write_text(changelog)
        self._git("commit", "--all", "--message", f"release: {self.version}")
        self._git("tag", "--annotate", self._tag, "--message", f"Steno {self.version}")
        archive = self._root / "dist" / f"steno-{self.version}.tar.gz"
        archive.parent.mkdir(exist_ok=True)
        self._git("archive", f"--prefix=steno-{self.version}/", f"--output={archive}", self._tag)
        return archive

    @property
    def _tag(self) -> str:
        return f"v{self.version}"

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],  # noqa: S607 - git is found on PATH
            cwd=self._root,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout


def main() -> None:
    """Run one step: `check VERSION` or `write VERSION`."""
    step, version = sys.argv[1:]
    root = Path(__file__).parent.parent
    try:
        release = Release(root, version)
        release.check()
    except CannotRelease as reason:
        sys.exit(str(reason))
    if step == "write":
        archive = release.write(datetime.now(UTC).date())
        print(f"Steno {version} is committed, tagged and archived as {archive.relative_to(root)}.")
        print(f"Publish it: git push origin main v{version}")


if __name__ == "__main__":
    main()
