"""Tests of infra/release.py in a temporary repository."""

import subprocess
import tarfile
from datetime import date

import pytest

from infra.release import CannotRelease, Release

CHANGELOG = "# Changelog\n\n## Unreleased\n\n- Something new.\n\n## 0.1.0 - 2026-01-01\n\n- All.\n"


def git(folder, *arguments):
    done = subprocess.run(
        ["git", "-c", "user.name=Test", "-c", "user.email=test@example.com", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "test@example.com")
    (tmp_path / "handler").mkdir()
    (tmp_path / "handler" / "__init__.py").write_text('__version__ = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / ".gitignore").write_text("dist/\n")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=all")
    return tmp_path


def test_a_release_writes_the_version_and_the_date_and_tags_the_commit(repository):
    release = Release(repository, "0.2.0")
    release.check()
    archive = release.write(date(2026, 12, 24))
    assert git(repository, "show", "v0.2.0:handler/__init__.py") == '__version__ = "0.2.0"'
    changelog = git(repository, "show", "v0.2.0:CHANGELOG.md")
    assert "## Unreleased\n\n## 0.2.0 - 2026-12-24\n\n- Something new." in changelog
    assert git(repository, "log", "-1", "--format=%s") == "release: 0.2.0"
    assert git(repository, "status", "--porcelain") == ""
    with tarfile.open(archive) as packed:
        assert "steno-0.2.0/CHANGELOG.md" in packed.getnames()


@pytest.mark.parametrize("version", ["0.1.0", "0.0.9"])
def test_a_version_that_is_not_later_than_the_current_one_is_refused(repository, version):
    with pytest.raises(CannotRelease, match=r"current version is 0\.1\.0"):
        Release(repository, version).check()


@pytest.mark.parametrize("version", ["", "1.0", "v1.0.0", "1.0.0rc1"])
def test_a_version_has_three_numbers(repository, version):
    with pytest.raises(CannotRelease, match=r"VERSION=1\.2\.3"):
        Release(repository, version)


def test_a_changed_tree_cannot_be_released(repository):
    (repository / "new.txt").write_text("new")
    with pytest.raises(CannotRelease, match="tree has changes"):
        Release(repository, "0.2.0").check()


def test_another_branch_than_main_cannot_be_released(repository):
    git(repository, "switch", "--quiet", "--create", "feature")
    with pytest.raises(CannotRelease, match="branch is `feature`"):
        Release(repository, "0.2.0").check()


def test_a_tag_is_not_made_twice(repository):
    git(repository, "tag", "v0.2.0")
    with pytest.raises(CannotRelease, match=r"tag v0\.2\.0 exists"):
        Release(repository, "0.2.0").check()


def test_a_release_needs_a_description_of_its_changes(repository):
    (repository / "CHANGELOG.md").write_text(CHANGELOG.replace("- Something new.\n", ""))
    git(repository, "commit", "--quiet", "--all", "--message=none")
    with pytest.raises(CannotRelease, match="has no changes"):
        Release(repository, "0.2.0").check()
