"""Tests of the layers in handler/: modules import only lower layers, without side effects."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from tests.conftest import ROOT

HANDLER = ROOT / "handler"
# From the highest layer to the lowest. A package or module may import only lower layers. Packages
# in the same layer do not import each other.
LAYERS = [
    {"main", "worker"},
    {"web", "steps"},
    {"services"},
    {"transcription"},
    {"jobs"},
    {"billing"},
    {"settings"},
    {"upstream"},
    {"transcripts"},
    {"recordings"},
    {"aws"},
    {"logs"},
    {"errors"},
    {"durations"},
]
LAYER = {name: number for number, layer in enumerate(LAYERS) for name in layer}
MODULES = [
    ".".join(path.relative_to(HANDLER).with_suffix("").parts)
    for path in HANDLER.rglob("*.py")
    if path.name != "__init__.py"
]
ENTRIES = {"main"}


def imported_names(path):
    """Yield the dotted names that a file imports, including imports inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def file_of(module):
    return HANDLER / (module.replace(".", "/") + ".py")


def imports_of(module):
    """Yield the modules in handler/ that a module imports."""
    for name in imported_names(file_of(module)):
        inside = name.removeprefix("handler.")
        if inside not in (name, "__version__"):
            yield inside if inside in MODULES else inside.rpartition(".")[0]


def layer_of(module):
    return LAYER[module.partition(".")[0]]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_package_and_the_layers_below(module):
    for name in imports_of(module):
        same_package = "." in name and name.partition(".")[0] == module.partition(".")[0]
        assert same_package or layer_of(name) > layer_of(module), name


def test_there_are_no_circular_imports():
    assert list(
        TopologicalSorter({module: set(imports_of(module)) for module in MODULES}).static_order()
    )


def test_a_package_has_a_docstring_and_no_code():
    for path in HANDLER.rglob("*/__init__.py"):
        if path.parent != HANDLER:
            (only,) = ast.parse(path.read_text()).body
            assert isinstance(only, ast.Expr), path


def test_the_stack_imports_only_durations_of_the_handler():
    for path in (ROOT / "infra").glob("*.py"):
        names = [name for name in imported_names(path) if name.startswith("handler")]
        assert all(name.startswith("handler.durations.") for name in names), path


def test_only_one_module_imports_pyav_and_only_the_upstream_package_imports_openai():
    for module in MODULES:
        names = {name.partition(".")[0] for name in imported_names(file_of(module))}
        assert "av" not in names or module == "recordings.decoder"
        assert "openai" not in names or module in ("upstream.openai_sdk", "upstream.errors")
        assert "httpx2" not in names or module.startswith("upstream.") or module == "services"


def test_importing_a_module_reads_no_settings_and_opens_no_connection():
    """Import all modules without environment variables.

    The process exits if a module accesses the network.
    """
    network = "('socket.connect', 'socket.getaddrinfo')"
    watch = f"sys.addaudithook(lambda event, _: event in {network} and os._exit(1))"
    modules = sorted(set(MODULES) - ENTRIES)
    import_module = "importlib.import_module('handler.' + name)"
    each = f"for name in {modules}: print(name, flush=True); {import_module}"
    program = f"import importlib, os, sys; {watch}\n{each}"
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"{run.stdout.split()[-1]}: {run.stderr}"


@pytest.mark.parametrize("entry", ["web.app", "worker"])
def test_a_status_poll_does_not_import_the_upstreams_client(entry):
    clients = "{'openai', 'boto3', 'httpx2'}"
    program = f"import sys, handler.{entry}; assert not {clients} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
