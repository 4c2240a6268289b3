"""The functions under Lambda's own emulator, with nothing on their path but their bundles."""

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
from infra.local.aws import free_port, wait_for
from tests.place import Place
from tests.samples import asset, long_recording

SITE = Path(httpx2.__file__).parent.parent


RUNTIME = ("awslambdaric", "runtime_client*.so", "simplejson", "snapshot_restore_py.py")


EMULATOR = "samcli/local/rapid/aws-lambda-rie-x86_64"


@pytest.fixture(scope="session")
def emulator(once):
    """The Runtime Interface Emulator, out of the wheel of AWS's own command line for such things."""
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
    """A folder with nothing but Lambda's own Python client, for a path with nothing on it but the bundle."""
    folder = tmp_path_factory.mktemp("runtime")
    for pattern in RUNTIME:
        for found in SITE.glob(pattern):
            (folder / found.name).symlink_to(found)
    return folder


@contextmanager
def invoked(emulator, runtime, bundle, entry, log=Path(os.devnull), **environment):
    """A function that runs its bundle, and what to call it with. Its log goes to the file `log`."""
    folder = bundle.build(ROOT / ".bundles", Target.here())
    port, api_port = free_port(), free_port()
    addresses = [
        "--runtime-interface-emulator-address",
        f"127.0.0.1:{port}",
        "--runtime-api-address",
        f"127.0.0.1:{api_port}",
    ]
    command = [str(emulator), *addresses, sys.executable, "-S", "-m", "awslambdaric", entry]
    given = {
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
        subprocess.Popen(command, cwd=folder, env=given, stdout=output, stderr=output) as process,
    ):
        try:
            wait_for(port, process, "its output")
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                yield lambda event: client.post(
                    "/2015-03-31/functions/function/invocations", json=event
                ).json()
        finally:
            process.kill()


def event(name):
    return json.loads((ROOT / "events" / f"{name}.json").read_text())


def carrying(recording):
    """The event of a request with a recording in it."""
    made = event("transcribe")
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="blob"\r\n\r\n'
        + recording
        + b"\r\n--b--\r\n"
    )
    made["headers"] |= {
        "content-type": "multipart/form-data; boundary=b",
        "content-length": str(len(body)),
    }
    return {**made, "body": base64.b64encode(body).decode()}


OPEN = {"AUTH": "open", "OPENAI_API_KEY": "offline", "MAX_AUDIO_BYTES": "4500000"}


def test_the_api_answers_under_the_emulator_with_nothing_but_its_bundle(emulator, runtime, engine):
    with invoked(
        emulator, runtime, API, "handler.main.lambda_handler", OPENAI_BASE_URL=engine.url, **OPEN
    ) as invoke:
        assert json.loads(invoke(event("health"))["body"])["status"] == "ok"
        answer = invoke(event("transcribe"))
        assert (answer["statusCode"], json.loads(answer["body"])) == (
            200,
            {"transcript": "Ever tried."},
        )
        large = long_recording("wav", 45)[:4_400_000]
        answer = invoke(carrying(large))
        assert answer["statusCode"] == 200
        assert "best of times" in json.loads(answer["body"])["transcript"]


def test_a_service_that_hangs_is_answered_for_before_the_function_is_cut_off(
    emulator, runtime, engine
):
    engine.script({"delay": 4, "status": 503})
    environment = {**OPEN, "REQUEST_DEADLINE_SECONDS": "2"}
    with invoked(
        emulator,
        runtime,
        API,
        "handler.main.lambda_handler",
        OPENAI_BASE_URL=engine.url,
        **environment,
    ) as invoke:
        answer = invoke(event("transcribe"))
    assert (answer["statusCode"], json.loads(answer["body"])["code"]) == (504, "upstream_timeout")


def of_the_local_aws(engine):
    """The environment of functions as the README runs them with `sam local invoke`."""
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return {
        "OPENAI_BASE_URL": engine.url,
        "AWS_LAMBDA_FUNCTION_TIMEOUT": "420",
        **{name: os.environ[name] for name in names},
        **json.loads((ROOT / "env.json").read_text())["Parameters"],
    }


def test_each_step_of_a_job_runs_under_the_emulator_with_nothing_but_its_bundle(
    emulator, runtime, engine, aws
):
    place = Place(aws, openai_base_url=engine.url)
    identity = place.upload(asset("beckett.wav"), response_format="srt")
    environment = of_the_local_aws(engine)
    done = {"batchItemFailures": []}
    with invoked(
        emulator, runtime, CUTTER, "handler.worker.lambda_handler", **environment
    ) as invoke:
        assert invoke({"Records": [place.about(identity)]}) == done
        for name in ("recording", "s3"):  # of a job that is nobody's
            assert invoke(event(name)) == done
    (part,) = place.part_messages()
    with invoked(emulator, runtime, API, "handler.worker.lambda_handler", **environment) as invoke:
        assert invoke({"Records": [part]}) == done
        assert invoke(event("part")) == done
    assert place.job(identity)["transcript"].startswith("Ever tried.")
    assert "-->" in place.transcript(identity, response_format="srt").text
    dead = place.upload(asset("beckett.wav"))
    with invoked(
        emulator, runtime, API, "handler.worker.dead_letters_handler", **environment
    ) as invoke:
        assert invoke({"Records": [place.about(dead)]}) == done
        assert invoke(event("dead_letter")) == done
    assert place.job(dead)["status"] == "failed"


def asking_for_an_upload(size):
    made = event("transcribe")
    body = json.dumps({"size": size})
    made["requestContext"]["http"]["path"] = made["rawPath"] = "/api/uploads"
    made["headers"] |= {"content-type": "application/json", "content-length": str(len(body))}
    return {**made, "body": body, "isBase64Encoded": False}


def test_one_id_leads_through_the_logs_of_all_functions_to_the_reason_of_a_failure(
    emulator, runtime, engine, aws, tmp_path
):
    place, environment, log = Place(aws), of_the_local_aws(engine), tmp_path / "log"
    content = asset("beckett.wav")
    refusal = {"message": "no", "code": "invalid_api_key"}
    engine.script(
        {
            "status": 401,
            "body": {"error": refusal},
            "headers": {"x-request-id": "req_1"},
            "times": 2,
        }
    )
    with invoked(
        emulator, runtime, API, "handler.main.lambda_handler", log, **environment
    ) as invoke:
        answer = invoke(asking_for_an_upload(len(content)))
    job = json.loads(answer["body"])
    place.post(job["upload"], content)
    with invoked(
        emulator, runtime, CUTTER, "handler.worker.lambda_handler", log, **environment
    ) as invoke:
        invoke({"Records": [place.about(job["id"])]})
    with invoked(
        emulator, runtime, API, "handler.worker.lambda_handler", log, **environment
    ) as invoke:
        invoke({"Records": place.part_messages()})
    told = [
        json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"timestamp"')
    ]
    assert {line["level"] for line in told} == {"INFO", "WARNING"}
    request = answer["headers"]["x-request-id"]
    of_request = [line for line in told if line.get("request") == request]
    assert {line["job"] for line in of_request} == {job["id"]}
    assert (
        of_request[0]["requestId"] == request
    )  # as each line of Lambda, and the gateway's access log, has it
    of_job = [line["message"] for line in told if line.get("job") == job["id"]]
    assert any("is cut into 1 parts" in message for message in of_job)
    assert any("Part 0 of" in message for message in of_job)
    assert "upstream_credentials" in of_job[-1]
    assert of_request[-1]["message"] == of_job[-1]
