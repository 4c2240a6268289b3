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
from tests.false_upstream import FalseUpstream
from tests.samples import recording

ROOT = Path(__file__).parent.parent
TODAY = date(2026, 11, 21)


def pytest_addoption(parser):
    parser.addoption(
        "--soak", action="store_true", help="attack for hours, and write docs/reliability.md"
    )


def pytest_xdist_auto_num_workers():
    """Return how many processes `-n auto` starts: the tests wait about half of their time."""
    return 2 * (os.cpu_count() or 1)


# The fixture that is expensive to make, and the files whose tests run in one process because they share it.
_SHARED = {
    "engine": ("test_end_to_end.py", "test_engine.py", "test_lambda.py", "test_times.py"),
    "template": ("test_stack.py",),
    "stack with tokens": ("test_deployment.py",),
    "stack with JWTs": ("test_deployed.py",),
    "emulator": ("test_emulator.py",),
    "browser with recordings": ("test_page.py",),
    "browser": ("test_accessibility.py", "test_clients.py", "test_page_widths.py"),
}


class _Scheduling(LoadScopeScheduling):
    """Gives each process the next test, or all tests that share an expensive fixture."""

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0].rpartition("/")[2]
        return next((fixture for fixture, files in _SHARED.items() if file in files), nodeid)


def pytest_xdist_make_scheduler(config, log):
    return _Scheduling(config, log)


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """Make a folder once for all processes of a run: `once(name, make)` returns it after `make(folder)`."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def folder(name, make):
        made = shared / name
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                unfinished = shared / f"{name}.unfinished"
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(made)
        return made

    return folder


@pytest.fixture(scope="session", autouse=True)
def _temp_folder():
    """A folder for the temporary files of this process and its children, which tests look into."""
    with (
        tempfile.TemporaryDirectory(prefix="tests-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_loader_of_botocore():
    """Each session of botocore reads megabytes of JSON for its clients, and most tests make a session."""
    loader = botocore.loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", lambda _: loader)
        yield


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch):
    """A developer's own environment and `.env` change no test."""
    for name in (*(field.upper() for field in Settings.model_fields), "PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def anyio_backend():
    return "asyncio"


def settings(**given):
    """Settings as they are given; those of the local AWS in the environment are for other processes."""
    none = dict.fromkeys(("bucket_name", "table_name", *(name.lower() for name in QUEUES)))
    return Settings(**{"openai_api_key": "sk-test-key", **none, **given})


def app(upstream=None, today=TODAY, **given):
    """The real app over a false upstream."""
    chosen = settings(**given)
    return create_app(
        chosen, build_services(chosen, transport=upstream or FalseUpstream(), today=lambda: today)
    )


@pytest.fixture
def client():
    """Makes a client of the app over a false upstream; its arguments are those of `app`."""
    with contextlib.ExitStack() as stack:

        def start(*arguments, **given):
            return stack.enter_context(
                TestClient(app(*arguments, **given), raise_server_exceptions=False)
            )

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
        return self._http.post(
            "/v1/audio/transcriptions", files={"file": (filename, recording)}, data=fields
        )

    def close(self):
        self._http.close()


@pytest.fixture(scope="session")
def aws_process(tmp_path_factory):
    """The local AWS; the environment that points at it."""
    with local_aws(tmp_path_factory.mktemp("aws"), ("http://localhost:3000",)) as environment:
        yield environment


@pytest.fixture
def aws(aws_process, monkeypatch):
    """The session's local AWS with an empty table, queue and bucket; the settings that name them."""
    for name, value in aws_process.items():
        monkeypatch.setenv(name, value)
    _empty(aws_process)
    return {name.lower(): aws_process[name] for name in ("BUCKET_NAME", "TABLE_NAME", *QUEUES)}


@cache
def own_client(service, endpoint):
    """A client of the local AWS for what a test itself does; the code under test makes its own."""
    return boto3.client(service, endpoint_url=endpoint)


def _empty(aws_process):
    """Deletes all that another test has left."""
    table, sqs, s3 = (
        own_client(name, aws_process["AWS_ENDPOINT_URL"]) for name in ("dynamodb", "sqs", "s3")
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
            if not idle:
                stack.enter_context(made.at_work())
            return made

        yield start


SHORT_SECONDS = 20  # a call that hangs and is made again takes some of it


@pytest.fixture
def fragile(aws, aws_process, monkeypatch):
    """Makes a server behind a faulty AWS, whose queues deliver a message again after SHORT_SECONDS."""
    from tests.place import PACING, Server  # which builds on this module

    with contextlib.ExitStack() as stack:

        def start(faulty, upstream, pacing=PACING, **given):
            jobs = Jobs(settings(**aws), limits=WORKER_LIMITS)
            chosen = {"request_deadline_seconds": 10, **given}
            short = replace(pacing, claim_seconds=SHORT_SECONDS)
            stack.enter_context(faulty.before(monkeypatch, aws_process))
            server = Server(aws, upstream, jobs=jobs, pacing=short, **chosen)
            # What the test itself does never fails.
            server.s3, server.sqs = (
                own_client(name, aws_process["AWS_ENDPOINT_URL"]) for name in ("s3", "sqs")
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
