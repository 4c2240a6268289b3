"""Tests of infra/local: what `make run` prints at startup, and its error messages."""

import fcntl
import signal
import socket

import httpx2

from tests.local_run import address, first_lines, local_process
from tests.samples import asset

WORDS = "Ever tried. Ever failed."


def test_the_first_lines_show_the_addresses_and_a_sample_transcript():
    with local_process() as process:
        lines = first_lines(process)
        assert lines.startswith("Steno   http://127.0.0.1:")
        assert "offline engine" in lines
        assert WORDS in lines
        response = httpx2.post(
            f"{address(lines)}/api/transcribe", files={"file": asset("beckett.wav")}
        )
        assert response.json()["transcript"].startswith(WORDS)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert rest.endswith("Stopped.\n")


def test_a_port_in_use_is_reported_in_one_line():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        local_process(PORT=str(listener.getsockname()[1])) as process,
    ):
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 1
        assert errors.count("\n") == 1
        assert "PORT=8001 make run" in errors


def test_a_second_instance_in_the_same_folder_is_rejected_and_changes_nothing(tmp_path):
    """The port is also in use. Another port would not help, so the message does not suggest it."""
    (tmp_path / ".steno").mkdir()
    with (
        (tmp_path / ".steno/lock").open("w") as lock,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        with local_process(tmp_path, PORT=str(listener.getsockname()[1])) as process:
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "already running in this folder" in errors
    assert not (tmp_path / ".steno/tmp").exists()
