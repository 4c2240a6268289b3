"""Tests of daemon_threads.py: the threads are limited in number and do not delay the exit."""

import gc
import socket
import subprocess
import sys
import threading

import pytest

from handler.upstream.daemon_threads import DaemonThreads
from tests.conftest import ROOT


def test_results_and_errors_are_returned():
    threads = DaemonThreads(2, "test")
    assert threads.submit(int, "7").result(10) == 7
    with pytest.raises(ValueError, match="invalid literal"):
        threads.submit(int, "seven").result(10)


def test_calls_run_concurrently_up_to_the_thread_limit():
    threads, together = DaemonThreads(3, "test"), threading.Barrier(3)
    for _ in range(2):
        names = [
            threads.submit(lambda: (together.wait(10), threading.current_thread().name))
            for _ in range(9)
        ]
        assert {name.result(10)[1] for name in names} == {"test_1", "test_2", "test_3"}


def test_a_call_does_not_wait_for_a_busy_thread():
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


def test_the_threads_end_when_the_pool_is_garbage_collected():
    threads, together = DaemonThreads(3, "test"), threading.Barrier(3)
    workers = {
        one.result(10)
        for one in [threads.submit(_wait_and_return_thread, together) for _ in range(3)]
    }
    del threads
    gc.collect()
    for thread in workers:
        thread.join(10)
    assert not any(thread.is_alive() for thread in workers)


def _wait_and_return_thread(together):
    together.wait(10)
    return threading.current_thread()


_ABANDON_CALL = """
import anyio, sys, tempfile
from handler.recordings.container import WEBM
from handler.settings import Settings
from handler.services import build_services

async def main():
    settings = Settings(openai_api_key="sk", openai_base_url=sys.argv[1])
    services = build_services(settings)
    client, model = await services.clients[""].ready(), services.models.get()
    parameters = {"model": "gpt-transcribe", "response_format": "json"}
    recording = tempfile.TemporaryFile()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.transcribe, recording, WEBM, model, parameters, 600.0)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        tasks.cancel_scope.cancel()

anyio.run(main)
"""


def test_a_process_ends_while_an_abandoned_upstream_call_hangs():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        command = [sys.executable, "-c", _ABANDON_CALL, address]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, text=True) as process:
            try:
                listener.settimeout(60)  # the process may fail to start
                connection, _ = listener.accept()
                with connection:
                    assert connection.recv(1)
                    process.communicate("given up\n", timeout=20)
            finally:
                process.kill()
    assert process.returncode == 0
