import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path

import boto3
import botocore.loaders
import httpx2
import pytest
import uvicorn
from starlette.testclient import TestClient
from xdist.scheduler import LoadScopeScheduling

from handler.aws.clients import WORKER_LIMITS
from handler.jobs.store import Jobs
from handler.services import build_services
from handler.settings import Settings
from handler.web.app import create_app
from infra.local.aws import QUEUES, VISIBILITY_SECONDS, local_aws
from tests.fake_upstream import FakeUpstream
from tests.node import install_packages
from tests.samples import recording

ROOT = Path(__file__).parent.parent
TODAY = date(2026, 11, 21)


def pytest_addoption(parser):
    parser.addoption(
        "--soak",
        action="store_true",
        help="run the attack tests for hours, and write docs/about/reliability.md",
    )


def pytest_xdist_auto_num_workers():
    """Return the number of processes for `-n auto`.

    There are two processes per CPU, because the tests spend half of their time waiting.
    """
    return 2 * (os.cpu_count() or 1)


# Maps each expensive fixture to the test files that use it. All tests in these files run in the
# same process, so that the fixture is created only once.
_SHARED = {
    "engine": (
        "test_end_to_end.py",
        "test_engine.py",
        "test_lambda.py",
        "test_times.py",
        "test_word_times.py",
    ),
    "template": ("test_stack.py",),
    "stack with tokens": ("test_deployment.py",),
    "stack with JWTs": ("test_deployed.py",),
    "emulator": ("test_emulator.py",),
    "browser with recordings": ("test_page.py",),
    "browser": (
        "test_accessibility.py",
        "test_clients.py",
        "test_docs_page.py",
        "test_page_widths.py",
    ),
    "make run": ("test_examples.py",),
    "generated clients": ("test_generated_clients.py", "test_react.py"),
}


class _Scheduling(LoadScopeScheduling):
    """Distribute tests one by one, but run all tests that share a fixture in the same process."""

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0].rpartition("/")[2]
        return next((fixture for fixture, files in _SHARED.items() if file in files), nodeid)


def pytest_xdist_make_scheduler(config, log):
    return _Scheduling(config, log)


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """Return a function `once(name, make)` that creates a folder once for all test processes.

    The first process that calls `once` fills the folder by calling `make(folder)`. Every call
    returns the folder's path.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def folder(name, make):
        ready = shared / name
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not ready.exists():
                unfinished = shared / f"{name}.unfinished"
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(ready)
        return ready

    return folder


@pytest.fixture(scope="session")
def npm(once):
    """Return a folder whose `node_modules` contains the packages listed in tests/browsers/npm."""
    return once("npm", install_packages)


@pytest.fixture(scope="session", autouse=True)
def _temp_folder():
    """Create an empty folder for the temporary files of this process and its child processes."""
    with (
        tempfile.TemporaryDirectory(prefix="tests-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def _shared_botocore_loader():
    """Share one botocore loader, because each new loader reads megabytes of JSON."""
    loader = botocore.loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", lambda _: loader)
        yield


@pytest.fixture(autouse=True)
def _without_developer_settings(monkeypatch):
    """Remove Steno's settings from the environment, so that they do not affect the tests."""
    for name in (*(field.upper() for field in Settings.model_fields), "PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def anyio_backend():
    return "asyncio"


def settings(**overrides):
    """Return settings with a test API key, and without the environment's bucket and queues."""
    no_aws = dict.fromkeys(("bucket_name", "table_name", *(name.lower() for name in QUEUES)))
    return Settings(**{"openai_api_key": "sk-test-key", **no_aws, **overrides})


def app(upstream=None, today=TODAY, **overrides):
    """Return the real app. Its upstream is a FakeUpstream if `upstream` is omitted."""
    config = settings(**overrides)
    return create_app(
        config, build_services(config, transport=upstream or FakeUpstream(), today=lambda: today)
    )


@pytest.fixture
def client():
    """Return a function that creates a test client. It takes the same arguments as `app()`."""
    with contextlib.ExitStack() as stack:

        def start(*arguments, **overrides):
            return stack.enter_context(
                TestClient(app(*arguments, **overrides), raise_server_exceptions=False)
            )

        yield start


@pytest.fixture(scope="session")
def webm():
    return recording("webm")


@contextlib.contextmanager
def serving(application):
    """Serve an ASGI application over HTTP in a thread. Yield its URL."""
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
    """Run `python -m uvicorn handler.main:app`, as in the docs. Yield the process and its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "handler.main:app",
        "--app-dir",
        str(ROOT),
        "--log-level",
        "error",
    ]
    with tempfile.TemporaryDirectory() as folder:  # this folder contains no `.env` file
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


class EngineClient:
    """A client for the offline engine. It sets the engine's replies and reads its calls."""

    def __init__(self, url):
        self.url = url
        self._http = httpx2.Client(base_url=url.removesuffix("/v1"), timeout=60)

    def script(self, *replies):
        self._http.post("/script", json=replies).raise_for_status()

    def calls(self):
        """Return the calls that the engine has recorded, and delete them from the engine."""
        calls = self._http.get("/calls").json()
        self._http.delete("/calls")
        return calls

    def transcribe(self, recording, filename, **fields):
        return self._http.post(
            "/v1/audio/transcriptions", files={"file": (filename, recording)}, data=fields
        )

    def close(self):
        self._http.close()


@pytest.fixture(scope="session")
def aws_process(tmp_path_factory):
    """Run the AWS emulator during the test session. Yield the environment variables to use it."""
    with local_aws(tmp_path_factory.mktemp("aws"), ("http://localhost:3000",)) as environment:
        yield environment


@pytest.fixture
def aws(aws_process, monkeypatch):
    """Empty the AWS emulator. Return the settings for the emulator's bucket, table and queues."""
    for name, value in aws_process.items():
        monkeypatch.setenv(name, value)
    _empty(aws_process)
    return {name.lower(): aws_process[name] for name in ("BUCKET_NAME", "TABLE_NAME", *QUEUES)}


@cache
def direct_client(service, endpoint):
    """Return an AWS client for the test itself. The code under test creates its own clients."""
    return boto3.client(service, endpoint_url=endpoint)


def _empty(aws_process):
    """Delete the items, messages and objects of earlier tests."""
    table, sqs, s3 = (
        direct_client(name, aws_process["AWS_ENDPOINT_URL"]) for name in ("dynamodb", "sqs", "s3")
    )
    name = aws_process["TABLE_NAME"]
    for key in table.scan(TableName=name, ProjectionExpression="pk, sk")["Items"]:
        table.delete_item(TableName=name, Key=key)
    for name in QUEUES:
        sqs.purge_queue(QueueUrl=aws_process[name])
    for stored in s3.list_objects_v2(Bucket=aws_process["BUCKET_NAME"]).get("Contents", []):
        s3.delete_object(Bucket=aws_process["BUCKET_NAME"], Key=stored["Key"])


@pytest.fixture(scope="session")
def engine_process():
    command = [sys.executable, "-m", "infra.local.engine", "--port", "0", "--until-stdin-closes"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        engine = EngineClient(process.stdout.readline().strip())
        yield engine
        engine.close()
        process.stdin.close()


@pytest.fixture
def engine(engine_process):
    """Clear the engine's recorded calls before a test, and its scripted replies after the test."""
    engine_process.calls()
    yield engine_process
    engine_process.script()


@pytest.fixture
def server(aws):
    """Return a function that creates a Server. The server's worker runs unless `idle` is true."""
    from tests.harness import Server  # imported here because tests.harness imports this module

    with contextlib.ExitStack() as stack:

        def start(upstream=None, *, idle=False, **overrides):
            server = Server(aws, upstream, **{"request_deadline_seconds": 30, **overrides})
            if not idle:
                stack.enter_context(server.running_worker())
            return server

        yield start


SHORT_SECONDS = 20  # long enough for a call that hangs once and is repeated


@pytest.fixture
def faulty_aws_server(aws, aws_process, monkeypatch):
    """Return a function that creates a Server whose calls to AWS can fail.

    The visibility timeout of the queues is SHORT_SECONDS.
    """
    from tests.harness import PACING, Server  # imported here because tests.harness imports this

    with contextlib.ExitStack() as stack:

        def start(faulty, upstream, pacing=PACING, **overrides):
            jobs = Jobs(settings(**aws), limits=WORKER_LIMITS)
            config = {"request_deadline_seconds": 10, **overrides}
            short = replace(pacing, claim_seconds=SHORT_SECONDS)
            stack.enter_context(faulty.install(monkeypatch, aws_process))
            server = Server(aws, upstream, jobs=jobs, pacing=short, **config)
            # Calls that the test itself makes never fail.
            server.s3, server.sqs = (
                direct_client(name, aws_process["AWS_ENDPOINT_URL"]) for name in ("s3", "sqs")
            )
            _set_visibility(server, SHORT_SECONDS)
            stack.callback(_set_visibility, server, VISIBILITY_SECONDS)
            return server

        yield start


def _set_visibility(server, seconds):
    for queue in (server.queue, server.parts_queue, server.express_queue):
        server.sqs.set_queue_attributes(
            QueueUrl=queue, Attributes={"VisibilityTimeout": str(seconds)}
        )
