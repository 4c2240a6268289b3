"""workspace.py: what a killed process left is deleted, and nothing that another one works in."""

import tempfile

import pytest

from handler.recordings.workspace import scratch_folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_goes_with_its_block(folder):
    with scratch_folder() as made:
        (made / "part.flac").touch()
        assert list(folder.iterdir()) == [made]
    assert list(folder.iterdir()) == []


def test_what_a_process_left_is_deleted_at_whatever_moment_it_was_killed(folder):
    (folder / "steno-job-just-made").mkdir()
    (folder / "steno-job-at-work").mkdir()
    (folder / "steno-job-at-work" / "part.flac").touch()
    with scratch_folder() as made:
        assert list(folder.iterdir()) == [made]


def test_a_folder_that_another_works_in_stays(folder):
    with scratch_folder() as one, scratch_folder() as other:
        assert sorted(folder.iterdir()) == sorted([one, other])
    assert list(folder.iterdir()) == []
