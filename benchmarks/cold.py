"""Measure the cold starts of Steno and the tutorial app in new processes that import their bundles.

    python -m benchmarks.cold

All values are relative to the time that the tutorial app takes to become ready to transcribe.
`floor` in the table is the time it takes to import the libraries, without OpenAI's SDK. The bounds
take into account that Steno also imports OpenAI's SDK at the first transcription, and
pydantic-settings at every start.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks import processes
from benchmarks.row import TUTORIAL_RATIO, Row, table
from benchmarks.warm import event
from infra.bundle import API, ROOT, Target
from infra.local.aws import local_aws

RUNS = 11
_ENVIRONMENT = {
    "PATH": os.defpath,
    "AUTH": "open",
    "OPENAI_API_KEY": "offline",
    "AWS_LAMBDA_FUNCTION_NAME": "steno",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
}
_JOB_SETTINGS = {"BUCKET_NAME": "steno", "TABLE_NAME": "steno"}
_FIRST_BYTES = 50_000
_REQUEST = (
    "import json; response = {module}.lambda_handler(json.load(open('{event}')), None); "
    "assert response['statusCode'] == 200; "
)
_EXIT = "import os; os._exit(0)"  # skip the shutdown, which is not part of a cold start

_STENO = "import anyio, handler.main; services = handler.main.app.state.services; "
_SPEECH, _JOBS, _FORM = (
    "anyio.run(services.clients[''].ready); ",
    "services.jobs.client; ",
    "services.jobs.objects.presigned_post('k', '', 1, 1); ",
)
_FLOOR = "import fastapi, mangum; "
_UPSTREAM_FLOOR = _FLOOR + "import httpx2; httpx2.Client(); "
_AWS_FLOOR = "import boto3; session = boto3.session.Session(); session.client('dynamodb'); "


@dataclass(frozen=True)
class Start:
    """A program to measure. It uses Steno's bundle, or the tutorial app's if `naive` is true.

    `environment` is added to the variables in _ENVIRONMENT.
    """

    program: str
    naive: bool = False
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Case:
    """A row of the table, with the programs to measure.

    `floor` is a program that only imports the libraries.
    """

    what: str
    must: float
    stretch: float
    steno: Start
    naive: Start
    floor: Start


def cases(upstream: str, aws: Mapping[str, str], request: Path) -> Iterator[Case]:
    """Yield the cases.

    `upstream` is the URL of the upstream, `aws` contains the environment variables for the AWS
    emulator, and `request` is a file with the event of a request.
    """
    fake_upstream, jobs = {"OPENAI_BASE_URL": f"{upstream}/v1"}, {**_JOB_SETTINGS, **aws}
    secret = {**jobs, "OPENAI_API_KEY": "", "OPENAI_SECRET_ARN": "steno"}
    naive = Start("import naive; ", naive=True)
    yield Case(
        "cold start, ready for a transcription",
        0.58,
        0.5,
        Start(_STENO + _SPEECH),
        naive,
        Start(_UPSTREAM_FLOOR),
    )
    yield Case(
        "cold start and first response (50 KB)",
        0.62,
        0.5,
        Start(
            "import handler.main; " + _REQUEST.format(module="handler.main", event=request),
            environment=fake_upstream,
        ),
        Start(
            "import naive; " + _REQUEST.format(module="naive", event=request),
            naive=True,
            environment=fake_upstream,
        ),
        Start(_UPSTREAM_FLOOR),
    )
    yield Case(
        "cold start that reads the secret and presigns a form",
        0.8,
        0.55,
        Start(_STENO + "services.clients[''].key.get(); " + _SPEECH + _FORM, environment=secret),
        Start("import naive; naive.upload(); ", naive=True, environment=secret),
        Start(
            _UPSTREAM_FLOOR
            + _AWS_FLOOR
            + "session.client('s3'); session.client('secretsmanager'); "
        ),
    )
    yield Case(
        "cold start of a status poll",
        0.6,
        0.45,
        Start(_STENO + _JOBS, environment=jobs),
        naive,
        Start(_FLOOR + _AWS_FLOOR),
    )
    yield Case(
        "cold start of an upload form",
        0.62,
        0.45,
        Start(_STENO + _JOBS + _FORM, environment=jobs),
        naive,
        Start(_FLOOR + _AWS_FLOOR + "session.client('s3'); "),
    )


def naive_bundle(folder: Path) -> Path:
    """Build the tutorial app's bundle in `folder`: its module and all packages, plus bytecode."""
    packages = ["fastapi", "mangum", f"openai=={version('openai')}", "boto3", "python-multipart"]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        "install",
        "--no-compile",
    ]
    constraints = ["-c", str(ROOT / "handler" / "requirements.txt")]
    subprocess.run(
        [*pip, "--target", str(folder), *constraints, *packages],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    shutil.copy(ROOT / "benchmarks" / "naive.py", folder)
    command = [
        sys.executable,
        "-m",
        "compileall",
        "-q",
        "-j",
        "0",
        "--invalidation-mode",
        "unchecked-hash",
    ]
    subprocess.run([*command, str(folder)], check=True)
    return folder


def seconds(start: Start, bundles: Mapping[bool, Path]) -> float:
    """Return how many seconds a new process takes to run `start.program`."""
    folder = bundles[start.naive]
    environment = {**_ENVIRONMENT, **(start.environment or {}), "PYTHONPATH": str(folder)}
    command = [sys.executable, "-S", "-c", start.program + _EXIT]
    started = time.perf_counter()
    subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def rows() -> Iterator[Row]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        request = folder / "event.json"
        request.write_text(json.dumps(event(_FIRST_BYTES)))
        bundles = {
            True: naive_bundle(folder / "naive"),
            False: API.build(ROOT / ".bundles", Target.here()),
        }
        upstream = stack.enter_context(processes.upstream())
        aws = stack.enter_context(local_aws(folder / "aws"))
        all_cases = list(cases(upstream, aws, request))
        starts = {
            id(start): start for case in all_cases for start in (case.steno, case.naive, case.floor)
        }
        runs: dict[int, list[float]] = {key: [] for key in starts}
        for _ in range(RUNS):  # alternate, because the speed of the machine varies over time
            for key, start in starts.items():
                runs[key].append(seconds(start, bundles))
    ready = statistics.median(runs[id(all_cases[0].naive)])
    for case in all_cases:
        steno, naive, floor = (
            statistics.median(runs[id(start)]) / ready
            for start in (case.steno, case.naive, case.floor)
        )
        ratio = Row(case.what, TUTORIAL_RATIO, steno, case.must, case.stretch, naive, floor)
        yield from (ratio, ratio.scaled(1000 * ready, "ms"))


if __name__ == "__main__":
    print(table(rows()))
