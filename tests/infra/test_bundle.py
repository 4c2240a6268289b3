"""Tests of infra/bundle.py: the modules in each bundle, and the checks of a bundle's files."""

import os
import py_compile
import sys

from infra.bundle import (
    API,
    CUTTER,
    HANDLER,
    MAX_GLIBC_MINOR,
    Target,
    _compile,
    required_glibc_minor,
    sources_without_byte_code,
)


def test_a_binary_that_needs_a_newer_glibc_is_detected(tmp_path):
    (tmp_path / "new.so").write_bytes(b"\x7fELF GLIBC_2.17 GLIBC_2.39 GLIBC_2.4")
    assert required_glibc_minor(tmp_path) == 39 > MAX_GLIBC_MINOR


def test_each_bundle_has_only_the_modules_that_its_entry_points_need():
    api, cutter = (
        {str(path.relative_to(HANDLER)) for path in bundle.modules()} for bundle in (API, CUTTER)
    )
    assert {
        "__init__.py",
        "main.py",
        "worker.py",
        "web/__init__.py",
        "web/app.py",
        "upstream/client.py",
    } <= api
    assert "recordings/decoder.py" not in api  # the only module that needs FFmpeg
    assert {
        "worker.py",
        "recordings/decoder.py",
        "recordings/cutting.py",
        "transcripts/alignment.py",
    } <= cutter
    assert not [name for name in cutter if name.startswith(("main", "web"))]
    assert api | cutter == {str(path.relative_to(HANDLER)) for path in HANDLER.rglob("*.py")}


def test_missing_stale_and_checked_byte_code_is_detected(tmp_path):
    modules = {name: tmp_path / f"{name}.py" for name in ("missing", "stale", "checked", "good")}
    for path in modules.values():
        path.write_text("1")
    for name, mode in (
        ("stale", "UNCHECKED_HASH"),
        ("checked", "CHECKED_HASH"),
        ("good", "UNCHECKED_HASH"),
    ):
        py_compile.compile(modules[name], invalidation_mode=py_compile.PycInvalidationMode[mode])
    modules["stale"].write_text("2")
    assert {path.stem for path in sources_without_byte_code(tmp_path)} == {
        "missing",
        "stale",
        "checked",
    }


def test_byte_code_is_compiled_by_an_interpreter_behind_a_shim(tmp_path, monkeypatch):
    """The shims of pyenv and asdf need environment variables. PYTHON* variables are ignored."""
    code, shims, elsewhere = (tmp_path / name for name in ("code", "shims", "elsewhere"))
    for folder in (code, shims):
        folder.mkdir()
    (code / "module.py").write_text("assert True")
    shim = shims / "python3.99"
    shim.write_text(f'#!/bin/sh\n[ "$SHIM_ROOT" ] && exec {sys.executable} "$@"\nexit 1\n')
    shim.chmod(0o755)
    monkeypatch.setenv("SHIM_ROOT", "given")
    monkeypatch.setenv("PATH", str(shims), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(elsewhere))
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    _compile(code, Target("3.99", "x86_64"))
    assert sources_without_byte_code(code) == []
    assert not elsewhere.exists()
    (compiled,) = code.glob("__pycache__/*")
    assert ".opt-" not in compiled.name
