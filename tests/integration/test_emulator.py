"""Test the functions, with only their bundles, in the Lambda Runtime Interface Emulator."""

import base64
import json
import os
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from infra.bundle import API, CUTTER, ROOT, Target
from infra.local.aws import free_port, wait_for_port
from tests.harness import Harness
from tests.samples import asset, long_recording

SITE = Path(httpx2.__file__).parent.parent


RUNTIME = ("awslambdaric", "runtime_client*.so", "simplejson", "snapshot_restore_py.py")


EMULATOR = "samcli/local/rapid/aws-lambda-rie-x86_64"


@pytest.fixture(scope="session")
def emulator(once):
    """Return the path of the Runtime Interface Emulator that the wheel of AWS SAM CLI contains."""
    return once("emulator", _download) / EMULATOR


def _download(folder):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "download", "--no-deps", "-d", str(folder), "aws-sam-cli==1.170.0"],
        check=True,
        stderr=-3,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        binary = Path(archive.extract(EMULATOR, folder))
    binary.chmod(0o755)


@pytest.fixture(scope="session")
def runtime(tmp_path_factory):
    """Return a folder for PYTHONPATH that contains only Lambda's Python runtime client."""
    folder = tmp_path_factory.mktemp("runtime")
    for pattern in RUNTIME:
        for path in SITE.glob(pattern):
            (folder / path.name).symlink_to(path)
    return folder


@contextmanager
def running_function(emulator, runtime, bundle, entry, log=Path(os.devnull), **environment):
    """Run a bundle as a function. Yield a callable that invokes it with an event.

    The log of the function is appended to the file `log`.
    """
    folder = bundle.build(ROOT / ".bundles", Target.here())
    port, api_port = free_port(), free_port()
    addresses = [
        "--runtime-interface-emulator-address",
        f"127.0.0.1:{port}",
        "--runtime-api-address",
        f"127.0.0.1:{api_port}",
    ]
    command = [str(emulator), *addresses, sys.executable, "-S", "-m", "awslambdaric", entry]
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(map(str, (runtime, folder))),
        "AWS_LAMBDA_FUNCTION_NAME": "steno",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": "28",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        **environment,
    }
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command, cwd=folder, env=variables, stdout=output, stderr=output
        ) as process,
    ):
        try:
            wait_for_port(port, process, "its output")
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                yield lambda event: client.post(
                    "/2015-03-31/functions/function/invocations", json=event
                ).json()
        finally:
            process.kill()


def event(name):
    return json.loads((ROOT / "events" / f"{name}.json").read_text())


def upload_event(recording):
    """Return the event of a request that uploads this recording."""
    request_event = event("transcribe")
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="blob"\r\n\r\n'
        + recording
        + b"\r\n--b--\r\n"
    )
    request_event["headers"] |= {
        "content-type": "multipart/form-data; boundary=b",
        "content-length": str(len(body)),
    }
    return {**request_event, "body": base64.b64encode(body).decode()}


OPEN = {"AUTH": "open", "OPENAI_API_KEY": "offline", "MAX_AUDIO_BYTES": "4500000"}


def test_the_api_runs_in_the_emulator_with_only_its_bundle(emulator, runtime, engine):
    with running_function(
        emulator, runtime, API, "handler.main.lambda_handler", OPENAI_BASE_URL=engine.url, **OPEN
    ) as invoke:
        health = event("health")
        assert json.loads(invoke(health)["body"])["status"] == "ok"
        swagger_ui = json.loads(json.dumps(health).replace("/api/health", "/page/swagger-ui.css"))
        assert ".swagger-ui" in invoke(swagger_ui)["body"]  # from the package fastapi-offline
        response = invoke(event("transcribe"))
        assert (response["statusCode"], json.loads(response["body"])) == (
            200,
            {"transcript": "Ever tried."},
        )
        large_recording = long_recording("wav", 45)[:4_400_000]
        response = invoke(upload_event(large_recording))
        assert response["statusCode"] == 200
        assert "best of times" in json.loads(response["body"])["transcript"]


def test_a_hanging_upstream_gives_a_504_before_the_function_times_out(emulator, runtime, engine):
    engine.script({"delay": 4, "status": 503})
    environment = {**OPEN, "REQUEST_DEADLINE_SECONDS": "2"}
    with running_function(
        emulator,
        runtime,
        API,
        "handler.main.lambda_handler",
        OPENAI_BASE_URL=engine.url,
        **environment,
    ) as invoke:
        response = invoke(event("transcribe"))
    assert (response["statusCode"], json.loads(response["body"])["code"]) == (
        504,
        "upstream_timeout",
    )


def local_aws_environment(engine):
    """Return the environment variables for functions that use the AWS emulator, as in env.json."""
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return {
        "OPENAI_BASE_URL": engine.url,
        "AWS_LAMBDA_FUNCTION_TIMEOUT": "420",
        **{name: os.environ[name] for name in names},
        **json.loads((ROOT / "env.json").read_text())["Parameters"],
    }


def test_each_step_of_a_job_runs_in_the_emulator_with_only_its_bundle(
    emulator, runtime, engine, aws
):
    harness = Harness(aws, openai_base_url=engine.url)
    job_id = harness.upload(asset("beckett.wav"), response_format="srt")
    environment = local_aws_environment(engine)
    no_failures = {"batchItemFailures": []}
    with running_function(
        emulator, runtime, CUTTER, "handler.worker.lambda_handler", **environment
    ) as invoke:
        assert invoke({"Records": [harness.upload_record(job_id)]}) == no_failures
        for name in ("recording", "s3"):  # events for an unknown job
            assert invoke(event(name)) == no_failures
    (part,) = harness.part_messages()
    with running_function(
        emulator, runtime, API, "handler.worker.lambda_handler", **environment
    ) as invoke:
        assert invoke({"Records": [part]}) == no_failures
        assert invoke(event("part")) == no_failures
    assert harness.job(job_id)["transcript"].startswith("Ever tried.")
    assert "-->" in harness.transcript(job_id, response_format="srt").text
    failed_job = harness.upload(asset("beckett.wav"))
    with running_function(
        emulator, runtime, API, "handler.worker.dead_letters_handler", **environment
    ) as invoke:
        assert invoke({"Records": [harness.upload_record(failed_job)]}) == no_failures
        assert invoke(event("dead_letter")) == no_failures
    assert harness.job(failed_job)["status"] == "failed"


def upload_request_event(size):
    request_event = event("transcribe")
    body = json.dumps({"size": size})
    request_event["requestContext"]["http"]["path"] = request_event["rawPath"] = "/api/uploads"
    request_event["headers"] |= {
        "content-type": "application/json",
        "content-length": str(len(body)),
    }
    return {**request_event, "body": body, "isBase64Encoded": False}


def test_the_request_id_links_the_logs_of_all_functions_to_the_failure(
    emulator, runtime, engine, aws, tmp_path
):
    harness, environment, log = Harness(aws), local_aws_environment(engine), tmp_path / "log"
    content = asset("beckett.wav")
    error = {"message": "no", "code": "invalid_api_key"}
    engine.script(
        {
            "status": 401,
            "body": {"error": error},
            "headers": {"x-request-id": "req_1"},
            "times": 2,
        }
    )
    with running_function(
        emulator, runtime, API, "handler.main.lambda_handler", log, **environment
    ) as invoke:
        response = invoke(upload_request_event(len(content)))
    job = json.loads(response["body"])
    harness.post(job["upload"], content)
    with running_function(
        emulator, runtime, CUTTER, "handler.worker.lambda_handler", log, **environment
    ) as invoke:
        invoke({"Records": [harness.upload_record(job["id"])]})
    with running_function(
        emulator, runtime, API, "handler.worker.lambda_handler", log, **environment
    ) as invoke:
        invoke({"Records": harness.part_messages()})
    log_lines = [
        json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"timestamp"')
    ]
    assert {line["level"] for line in log_lines} == {"INFO", "WARNING"}
    request = response["headers"]["x-request-id"]
    request_lines = [line for line in log_lines if line.get("request") == request]
    assert {line["job"] for line in request_lines} == {job["id"]}
    # Lambda's own log lines and the access log of the gateway have the same id.
    assert request_lines[0]["requestId"] == request
    job_messages = [line["message"] for line in log_lines if line.get("job") == job["id"]]
    assert any("was cut into 1 parts" in message for message in job_messages)
    assert any("part 0 of" in message.lower() for message in job_messages)
    assert "upstream_credentials" in job_messages[-1]
    assert request_lines[-1]["message"] == job_messages[-1]
