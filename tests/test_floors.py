"""The house of handler/: imports go down only, and nothing happens when a module is imported."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [
    {"main", "worker"},
    {"api", "cutter", "cut", "transcribe_part", "dead_letters"},
    {"jobs_api", "direct", "finish", "pages"},
    {"access", "documents", "payment", "pacing"},
    {"answers", "cutting"},
    {"wiring"},
    {"speech", "jobs", "busy"},
    {"stalled", "queues", "progress", "asking"},
    {"messages"},
    {"parts"},
    {"ledger", "budget", "objects", "job", "openai_client", "section"},
    {"form", "gateway", "drain", "settings", "options", "audio", "scratch", "alignment", "subtitles"},
    {
        "bodies",
        "daemon_threads",
        "deadline",
        "field_errors",
        "heartbeat",
        "lazy_types",
        "transcript",
        "models",
        "payload",
        "frames",
        "loudness",
        "words",
        "reader",
        "numbers",
        "metrics",
        "refusals",
        "request_id",
    },
    {"aws", "logs", "outage", "stored"},
    {"errors"},
]
FLOOR = {module: number for number, floor in enumerate(FLOORS) for module in floor}
ENTRIES = {"main"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize("module", [path.stem for path in (ROOT / "handler").glob("*.py") if path.stem != "__init__"])
def test_a_module_imports_only_from_the_floors_below_its_own(module):
    for name in imported(ROOT / "handler" / f"{module}.py"):
        package, _, rest = name.partition(".")
        assert package != "infra"
        if package == "handler" and rest != "__version__":
            assert FLOOR[rest.split(".")[0]] > FLOOR[module], name


def test_infra_knows_the_handler_in_one_place_only():
    for path in (ROOT / "infra").glob("*.py"):
        if path.stem not in ("local", "local_worker"):
            assert not any(name.startswith("handler") for name in imported(path)), path


def test_one_module_knows_the_speech_service_and_one_the_media_library():
    for path in (ROOT / "handler").glob("*.py"):
        names = {name.partition(".")[0] for name in imported(path)}
        assert "av" not in names or path.stem == "cutter"
        assert "openai" not in names or path.stem in ("openai_client", "refusals")  # the latter, for its types
        assert "httpx2" not in names or path.stem in ("speech", "openai_client", "refusals", "wiring")


def test_importing_a_module_reads_no_settings_and_calls_nobody():
    """An interpreter without an environment, which dies at the first connection, imports one after another."""
    watch = "sys.addaudithook(lambda event, _: event in ('socket.connect', 'socket.getaddrinfo') and os._exit(1))"
    modules = sorted(set(FLOOR) - ENTRIES)
    each = f"for name in {modules}: print(name, flush=True); importlib.import_module('handler.' + name)"
    program = f"import importlib, os, sys; {watch}\n{each}"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env={}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{run.stdout.split()[-1]}: {run.stderr}"


@pytest.mark.parametrize("entry", ["api", "worker"])
def test_a_status_poll_does_not_pay_for_the_speech_client(entry):
    program = f"import sys, handler.{entry}; assert not {{'openai', 'boto3', 'httpx2'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
