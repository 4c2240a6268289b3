"""lazy_types.py: the SDK's packages of types have the same names as without it, and are imported on first use."""

import importlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from handler.upstream.lazy_types import LazyPackages
from tests.conftest import ROOT

# Prints what each name of each of the SDK's packages of types is; in the eager way, all of them are there.
_ATTRIBUTES = """
import importlib, json, pkgutil, sys, types, typing
way, known = sys.argv[1], json.loads(sys.stdin.read())
if way != "eager":
    from handler.upstream import lazy_types
    lazy_types.install()
import openai
packages = [found.name for found in pkgutil.walk_packages(openai.types.__path__, "openai.types.") if found.ispkg]
packages = [importlib.import_module(name) for name in ["openai.types", *packages]]

def described(value):
    if isinstance(value, types.ModuleType):
        return value.__name__
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else repr(value)

if way == "eager":
    known = {one.__name__: [name for name in vars(one) if not name.startswith("__")] for one in packages}
names = [(package, name) for package in packages for name in known[package.__name__]]
if way == "lazy, backwards":
    names.reverse()
found = {f"{package.__name__} {name}": described(getattr(package, name)) for package, name in names}
print(json.dumps([known, found]))
"""


def attributes(way, known=None):
    command = [sys.executable, "-c", _ATTRIBUTES, way]
    run = subprocess.run(
        command, cwd=ROOT, input=json.dumps(known), stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(run.stdout)


def test_every_name_of_the_sdks_packages_of_types_is_the_same_in_whatever_order_it_is_used():
    known, eager = attributes("eager")
    with ThreadPoolExecutor(2) as pool:
        forwards, backwards = pool.map(attributes, ["lazy", "lazy, backwards"], [known] * 2)
    assert len(eager) > 1700
    assert forwards[1] == eager
    assert backwards[1] == eager


def test_a_transcription_imports_few_of_the_sdks_types():
    program = "import sys, handler.upstream.client; print(sum(name.startswith('openai.types') for name in sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    assert int(run.stdout) < 120


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes a package of these modules, of which the lazy finder is in charge."""
    finder = LazyPackages("example")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])

    def make(**modules):
        for name, source in modules.items():
            path = tmp_path / "example" / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(source)
        importlib.invalidate_caches()
        return importlib.import_module("example")

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] == "example"]:
        del sys.modules[name]


def test_a_module_is_imported_when_a_name_of_it_is_used(package):
    made = package(
        __init__="from __future__ import annotations\nfrom .a import A as A, B as Renamed\nfrom .c import C",
        a="class A: ...\nclass B: ...",
        c="raise AssertionError('nobody asked for it')",
    )
    assert "example.a" not in sys.modules
    assert made.Renamed.__name__ == "B"
    assert made.A is made.a.A is sys.modules["example.a"].A
    assert {"A", "Renamed", "C"} <= set(dir(made))
    with pytest.raises(AttributeError, match="module 'example' has no attribute 'D'"):
        made.D  # noqa: B018
    with pytest.raises(AssertionError):
        made.C  # noqa: B018


def test_all_names_are_imported_where_all_are_asked_for(package):
    package(__init__="from .a import A as A\nfrom .b import B", a="A = 1", b="B = 2")
    names = {}
    exec("from example import *", names)
    assert (names["A"], names["B"]) == (1, 2)


@pytest.mark.parametrize(
    "more",
    [
        "X = 1",
        "import os",
        "from . import b",
        "from .b import *",
        "from .b import a",
        "if True:\n    from .b import B",
    ],
)
def test_a_package_that_holds_more_than_such_imports_is_run_as_it_is(package, more):
    made = package(__init__=f"from .a import A\n{more}", a="A = 1", b="B = a = 2")
    assert "example.a" in sys.modules
    assert made.A == 1


def test_modules_and_everything_outside_are_left_to_the_usual_finders(package):
    package(__init__="from .a import A", a="A = 1")
    assert type(importlib.import_module("example.a").__loader__).__name__ == "SourceFileLoader"
    assert LazyPackages("example").find_spec("examples", None) is None


def test_a_module_that_cannot_be_imported_for_another_reason_says_so(package):
    made = package(__init__="from .a import A", a="A = 1", broken="import nowhere_to_be_found")
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        made.broken  # noqa: B018
