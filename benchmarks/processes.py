"""Start the servers that the benchmarks use, each in its own process and on a free local port."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2


@contextmanager
def upstream(seconds: float = 0.0) -> Iterator[str]:
    """Run a fake upstream that responds after `seconds`, and yield its URL without `/v1`."""
    command = [sys.executable, "-m", "benchmarks.upstream", str(seconds)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process.stdout.readline().strip()  # type: ignore[union-attr] # a pipe
        process.stdin.close()  # type: ignore[union-attr] # a pipe


@contextmanager
def app(upstream: str, module: str = "handler.main") -> Iterator[tuple[int, str]]:
    """Run the app in `module` with this upstream URL, and yield its process id and its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        command = [sys.executable, "-m", "uvicorn", f"{module}:app", "--log-level", "error"]
        process = subprocess.Popen(
            [*command, "--fd", str(listener.fileno())],
            env={**os.environ, "OPENAI_API_KEY": "offline", "OPENAI_BASE_URL": f"{upstream}/v1"},
            pass_fds=[listener.fileno()],
        )
        try:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            httpx2.get(f"{address}/api/health").raise_for_status()
            yield process.pid, address
        finally:
            process.terminate()
            process.wait()
