"""infra/local: what `make run` starts and prints, and how it refuses to start."""

import fcntl
import signal
import socket

import httpx2

from tests.local_run import address, first_lines, started
from tests.samples import asset

WORDS = "Ever tried. Ever failed."


def test_the_first_lines_say_what_is_where_and_show_the_samples_words():
    with started() as process:
        lines = first_lines(process)
        assert lines.startswith("Steno   http://127.0.0.1:")
        assert "offline engine" in lines
        assert WORDS in lines
        answer = httpx2.post(
            f"{address(lines)}/api/transcribe", files={"file": asset("beckett.wav")}
        )
        assert answer.json()["transcript"].startswith(WORDS)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert rest.endswith("Stopped.\n")


def test_a_port_in_use_is_one_sentence():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        started(PORT=str(listener.getsockname()[1])) as process,
    ):
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 1
        assert errors.count("\n") == 1
        assert "PORT=8001 make run" in errors


def test_a_second_one_in_the_same_folder_disturbs_nothing_and_says_so(tmp_path):
    (tmp_path / ".steno").mkdir()
    with (tmp_path / ".steno/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with started(tmp_path) as process:
            _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "running from this folder already" in said
    assert not (tmp_path / ".steno/tmp").exists()
