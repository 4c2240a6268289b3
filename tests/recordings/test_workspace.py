"""Tests of workspace.py: folders of killed processes are deleted, but folders in use are not."""

import tempfile

import pytest

from handler.recordings.workspace import scratch_folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_deleted_at_the_end_of_its_block(folder):
    with scratch_folder() as created:
        (created / "part.flac").touch()
        assert list(folder.iterdir()) == [created]
    assert list(folder.iterdir()) == []


def test_folders_of_killed_processes_are_deleted(folder):
    (folder / "steno-job-just-made").mkdir()
    (folder / "steno-job-at-work").mkdir()
    (folder / "steno-job-at-work" / "part.flac").touch()
    with scratch_folder() as created:
        assert list(folder.iterdir()) == [created]


def test_a_folder_in_use_is_not_deleted(folder):
    with scratch_folder() as one, scratch_folder() as other:
        assert sorted(folder.iterdir()) == sorted([one, other])
    assert list(folder.iterdir()) == []
