"""Tests of lazy_types.py: all names in the SDK's type packages are imported on first use."""

import importlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from handler.upstream.lazy_types import LazyPackages
from tests.conftest import ROOT

# Prints each name in the SDK's type packages with its type. In "eager" mode, the program finds the
# names itself. In the other modes, it reads them from stdin.
_ATTRIBUTES = """
import importlib, json, pkgutil, sys, types, typing
mode, package_names = sys.argv[1], json.loads(sys.stdin.read())
if mode != "eager":
    from handler.upstream import lazy_types
    lazy_types.install()
import openai
walked = pkgutil.walk_packages(openai.types.__path__, "openai.types.")
packages = [module.name for module in walked if module.ispkg]
packages = [importlib.import_module(name) for name in ["openai.types", *packages]]

def describe(value):
    if isinstance(value, types.ModuleType):
        return value.__name__
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else repr(value)

if mode == "eager":
    package_names = {
        package.__name__: [name for name in vars(package) if not name.startswith("__")]
        for package in packages
    }
names = [(package, name) for package in packages for name in package_names[package.__name__]]
if mode == "lazy, backwards":
    names.reverse()
described = {
    f"{package.__name__} {name}": describe(getattr(package, name)) for package, name in names
}
print(json.dumps([package_names, described]))
"""


def attributes(mode, package_names=None):
    command = [sys.executable, "-c", _ATTRIBUTES, mode]
    run = subprocess.run(
        command,
        cwd=ROOT,
        input=json.dumps(package_names),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


@pytest.mark.exhaustive  # 8 s
def test_all_names_of_the_sdks_type_packages_are_the_same_in_any_order_of_use():
    package_names, eager = attributes("eager")
    with ThreadPoolExecutor(2) as pool:
        modes = ["lazy", "lazy, backwards"]
        forwards, backwards = pool.map(attributes, modes, [package_names] * 2)
    assert len(eager) > 1700
    assert forwards[1] == eager
    assert backwards[1] == eager


def test_the_client_imports_few_of_the_sdks_types():
    count = "sum(name.startswith('openai.types') for name in sys.modules)"
    program = f"import sys, handler.upstream.client; print({count})"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    assert int(run.stdout) < 120


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that creates a package with the given modules and imports it lazily."""
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


def test_a_module_is_imported_when_one_of_its_names_is_used(package):
    example = package(
        __init__="from __future__ import annotations\n"
        "from .a import A as A, B as Renamed\n"
        "from .c import C",
        a="class A: ...\nclass B: ...",
        c="raise AssertionError('This module must not be imported')",
    )
    assert "example.a" not in sys.modules
    assert example.Renamed.__name__ == "B"
    assert example.A is example.a.A is sys.modules["example.a"].A
    assert {"A", "Renamed", "C"} <= set(dir(example))
    with pytest.raises(AttributeError, match="module 'example' has no attribute 'D'"):
        example.D  # noqa: B018 - reading it imports it
    with pytest.raises(AssertionError):
        example.C  # noqa: B018 - reading it imports it


def test_a_star_import_imports_all_names(package):
    package(__init__="from .a import A as A\nfrom .b import B", a="A = 1", b="B = 2")
    names = {}
    exec("from example import *", names)
    assert (names["A"], names["B"]) == (1, 2)


@pytest.mark.parametrize(
    "line",
    [
        "X = 1",
        "import os",
        "from . import b",
        "from .b import *",
        "from .b import a",
        "if True:\n    from .b import B",
    ],
)
def test_a_package_with_other_statements_is_imported_eagerly(package, line):
    example = package(__init__=f"from .a import A\n{line}", a="A = 1", b="B = a = 2")
    assert "example.a" in sys.modules
    assert example.A == 1


def test_modules_and_other_packages_use_the_default_finders(package):
    package(__init__="from .a import A", a="A = 1")
    assert type(importlib.import_module("example.a").__loader__).__name__ == "SourceFileLoader"
    assert LazyPackages("example").find_spec("examples", None) is None


def test_an_import_error_inside_a_module_is_raised(package):
    example = package(__init__="from .a import A", a="A = 1", broken="import nowhere_to_be_found")
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        example.broken  # noqa: B018 - reading it imports it
