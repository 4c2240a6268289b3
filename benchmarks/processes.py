"""The programs that the benchmarks measure, each a process of its own on a free port of this machine."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2


@contextmanager
def engine() -> Iterator[str]:
    """The offline engine; its address without `/v1`."""
    command = [sys.executable, "-m", "infra.engine", "--port", "0", "--until-stdin-closes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip().removesuffix("/v1")  # type: ignore[union-attr] # a pipe
        process.stdin.close()  # type: ignore[union-attr] # a pipe


@contextmanager
def upstream(seconds: float = 0.0) -> Iterator[str]:
    """A speech service that answers after so many seconds; its address without `/v1`."""
    command = [sys.executable, "-m", "benchmarks.upstream", str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()  # type: ignore[union-attr] # a pipe
        process.stdin.close()  # type: ignore[union-attr] # a pipe


@contextmanager
def app(upstream: str, **environment: str) -> Iterator[tuple[int, str]]:
    """Steno over `upstream`; its process id and its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        command = [sys.executable, "-m", "uvicorn", "handler.main:app", "--log-level", "error"]
        process = subprocess.Popen(
            [*command, "--fd", str(listener.fileno())],
            env={**os.environ, "OPENAI_API_KEY": "offline", "OPENAI_BASE_URL": f"{upstream}/v1", **environment},
            pass_fds=[listener.fileno()],
        )
        try:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            httpx2.get(f"{address}/api/health").raise_for_status()
            yield process.pid, address
        finally:
            process.terminate()
            process.wait()


def say(upstream: str, times: int, delay: float) -> None:
    """The next `times` transcriptions are answered after `delay` seconds, without listening."""
    reply = {"body": {"text": "Ever tried."}, "delay": delay, "times": times}
    httpx2.post(f"{upstream}/script", json=[reply]).raise_for_status()
