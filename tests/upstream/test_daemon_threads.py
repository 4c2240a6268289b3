"""daemon_threads.py: as many calls at once as asked for, and no wait for them when the process ends."""

import gc
import socket
import subprocess
import sys
import threading

import pytest

from handler.upstream.daemon_threads import DaemonThreads
from tests.conftest import ROOT


def test_results_and_errors_come_back():
    threads = DaemonThreads(2, "test")
    assert threads.submit(int, "7").result(10) == 7
    with pytest.raises(ValueError, match="invalid literal"):
        threads.submit(int, "seven").result(10)


def test_as_many_calls_run_at_once_as_there_may_be_threads_and_no_more():
    threads, together = DaemonThreads(3, "test"), threading.Barrier(3)
    for _ in range(2):
        names = [
            threads.submit(lambda: (together.wait(10), threading.current_thread().name))
            for _ in range(9)
        ]
        assert {name.result(10)[1] for name in names} == {"test_1", "test_2", "test_3"}


def test_a_call_does_not_wait_for_a_thread_that_is_busy():
    threads, gate, running = DaemonThreads(9, "test"), threading.Event(), threading.Event()
    first = threads.submit(lambda: (running.set(), gate.wait(10), threading.current_thread().name))
    assert running.wait(10)
    second = threads.submit(lambda: threading.current_thread().name).result(10)
    gate.set()
    assert (first.result(10)[2], second) == ("test_1", "test_2")


def test_a_call_that_was_cancelled_before_it_ran_does_not_run():
    threads, gate = DaemonThreads(1, "test"), threading.Event()
    first, ran = threads.submit(gate.wait, 10), []
    second = threads.submit(ran.append, 1)
    assert second.cancel()
    gate.set()
    assert first.result(10)
    threads.submit(ran.append, 2).result(10)
    assert ran == [2]


def test_the_threads_end_when_nobody_uses_them_any_more():
    threads, together = DaemonThreads(3, "test"), threading.Barrier(3)
    used = {one.result(10) for one in [threads.submit(_joined, together) for _ in range(3)]}
    del threads
    gc.collect()
    for thread in used:
        thread.join(10)
    assert not any(thread.is_alive() for thread in used)


def _joined(together):
    together.wait(10)
    return threading.current_thread()


_GIVES_UP = """
import anyio, sys, tempfile
from handler.recordings.container import WEBM
from handler.settings import Settings
from handler.services import build_services

async def main():
    speech = await build_services(Settings(openai_api_key="sk", openai_base_url=sys.argv[1])).client.ready()
    parameters = {"model": "gpt-transcribe", "response_format": "json"}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(speech.transcribe, tempfile.TemporaryFile(), WEBM, parameters, 600.0)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        tasks.cancel_scope.cancel()

anyio.run(main)
"""


def test_a_process_ends_though_the_speech_service_has_not_answered_a_call_that_was_given_up():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        command = [sys.executable, "-c", _GIVES_UP, address]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, text=True) as process:
            try:
                connection, _ = listener.accept()
                with connection:
                    assert connection.recv(1)
                    process.communicate("given up\n", timeout=20)
            finally:
                process.kill()
    assert process.returncode == 0
