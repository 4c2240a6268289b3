"""Generate clients from the OpenAPI document, and use them with a running server."""

import json
import subprocess

import pytest

from tests.clients.conftest import install, node, python_environment
from tests.conftest import ROOT, serving
from tests.samples import recording

GENERATOR = "openapi-python-client==0.29.1"
PYTHON_PROGRAM = """
import sys
from io import BytesIO
from steno_client import Client
from steno_client.api.server import config
from steno_client.api.transcription import transcribe
from steno_client.api.uploads_and_jobs import create_upload, transcription
from steno_client.models import Form, Job, Problem, Upload
from steno_client.types import File

url, path = sys.argv[1:]
client = Client(base_url=url)
print(config.sync(client=client).upload_max_bytes)
with open(path, "rb") as file:
    form = Form(file=File(payload=BytesIO(file.read()), file_name="voice.webm"))
print(transcribe.sync(client=client, body=form).transcript)
created = create_upload.sync(client=client, body=Upload(size=1000))
job = transcription.sync(created.id, client=client)
assert isinstance(job, Job)
print(job.status)
problem = transcription.sync("0" * 32, client=client)
assert isinstance(problem, Problem)
print(problem.code)
"""
TYPESCRIPT_PROGRAM = """
import createClient from "openapi-fetch";
import { readFileSync } from "node:fs";
import type { paths } from "./schema.js";

const [url, path] = process.argv.slice(2) as [string, string];
const client = createClient<paths>({ baseUrl: url });
const { data: config } = await client.GET("/api/config");
console.log(config?.upload_max_bytes);
const form = new FormData();
form.append("file", new Blob([readFileSync(path)]), "voice.webm");
const { data: answer } = await client.POST("/api/transcribe", {
  body: { file: "" },
  bodySerializer: () => form,
});
console.log((answer as { transcript: string }).transcript);
const { data: created } = await client.POST("/api/uploads", { body: { size: 1000 } });
const { data: job } = await client.GET("/api/transcriptions/{id}", {
  params: { path: { id: created!.id } },
});
console.log(job?.status);
const { error } = await client.GET("/api/transcriptions/{id}", {
  params: { path: { id: "0".repeat(32) } },
});
console.log(error?.code);
"""
OUTPUT = ["2000000000", "Ever tried.", "awaiting_upload", "not_found"]


@pytest.fixture
def document(server, engine, tmp_path):
    """Serve Steno. Return its URL, its OpenAPI document and a recording, as files."""
    application = server(openai_base_url=engine.url).app
    described, voice = tmp_path / "openapi.json", tmp_path / "voice.webm"
    described.write_text(json.dumps(application.openapi()))
    voice.write_bytes(recording("webm", seconds=1.5))
    with serving(application) as url:
        yield url, described, voice


def test_a_generated_python_client_works(document, tmp_path):
    url, described, voice = document
    python = python_environment(tmp_path / "venv", GENERATOR)
    generate = [tmp_path / "venv" / "bin" / "openapi-python-client", "generate"]
    options = ["--path", described, "--output-path", tmp_path / "client"]
    subprocess.run([*generate, *options], check=True)
    done = subprocess.run(
        [python, "-c", PYTHON_PROGRAM, url, voice],
        cwd=tmp_path / "client",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == OUTPUT, done.stderr


def test_a_generated_typescript_client_is_strict_and_works(document, tmp_path):
    url, described, voice = document
    folder = install(ROOT / "tests" / "clients" / "npm", tmp_path / "client")
    modules = folder / "node_modules"
    # Without this option, each field with a default would be required in requests.
    generate = [described, "-o", "schema.ts", "--default-non-nullable=false"]
    node(modules / "openapi-typescript/bin/cli.js", *generate, folder=folder)
    (folder / "program.mts").write_text(TYPESCRIPT_PROGRAM)
    options = ["--strict", "--module", "nodenext", "--target", "es2022", "--types", "node"]
    node(modules / "typescript/bin/tsc", *options, "program.mts", folder=folder)
    assert node("program.mjs", url, voice, folder=folder).splitlines() == OUTPUT
