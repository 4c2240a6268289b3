"""Test that the bundles are small, complete, reproducible and free of secrets (infra/bundle.py)."""

import re
import zipfile
from io import BytesIO

import pytest

from infra.bundle import (
    API,
    CUTTER,
    LOCK,
    MAX_GLIBC_MINOR,
    ROOT,
    Target,
    _install,
    required_glibc_minor,
    sources_without_byte_code,
)
from infra.lock import locked_requirements
from tests.attacks.test_egress import AWS_SECRET, KEY, TOKEN
from tests.infra.test_stack import Template

MOST_BYTES = {"api": 16_000_000, "cutter": 50_000_000}


@pytest.fixture(scope="session", params=[API, CUTTER], ids=lambda bundle: bundle.name)
def built(request):
    """Build a bundle for Lambda. Return the bundle and its folder."""
    return request.param, request.param.build(ROOT / ".bundles", Target())


def test_a_zipped_bundle_is_small(built):
    bundle, folder = built
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for path in folder.rglob("*"):
            target.write(path, path.relative_to(folder))
    assert len(archive.getvalue()) <= MOST_BYTES[bundle.name]


def test_all_wheels_support_the_glibc_and_the_architecture_of_lambda(built):
    _, folder = built
    assert 0 < required_glibc_minor(folder) <= MAX_GLIBC_MINOR
    # The `e_machine` field of the ELF header.
    machines = {path.read_bytes()[18:20] for path in folder.rglob("*.so*")}
    assert machines == {(183).to_bytes(2, "little")}  # AArch64


def test_builds_of_the_same_inputs_are_identical(tmp_path):
    folders = [API.build(tmp_path / name, Target.here()) for name in ("here", "there")]
    assert folders[0].name == folders[1].name
    here, there = (
        {path.relative_to(folder): content(path) for path in folder.rglob("*")}
        for folder in folders
    )
    assert here == there


def content(path):
    return path.stat().st_mode, path.read_bytes() if path.is_file() else None


@pytest.mark.parametrize("bundle", [API, CUTTER], ids=lambda bundle: bundle.name)
def test_every_source_has_unchecked_byte_code(bundle):
    """Lambda cannot write bytecode, because its code folder is read-only."""
    assert sources_without_byte_code(bundle.build(ROOT / ".bundles", Target.here())) == []


def test_no_secret_is_in_the_template_or_the_bundles(tmp_path, monkeypatch):
    """All secrets are set as environment variables on the machine that builds the bundles."""
    for name, secret in (
        ("OPENAI_API_KEY", KEY),
        ("ACCESS_TOKEN", TOKEN),
        ("AWS_SECRET_ACCESS_KEY", AWS_SECRET),
    ):
        monkeypatch.setenv(name, secret)
    Template(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 100
    assert not [path for path in files if path.name.startswith(".env")]
    for path in files:
        content = path.read_bytes()
        assert not any(secret.encode() in content for secret in (KEY, TOKEN, AWS_SECRET)), path


def test_a_wheel_with_a_wrong_hash_is_not_installed(tmp_path):
    (line,) = locked_requirements(["six"], LOCK.read_text(), Target().markers())
    altered = re.sub(r"sha256:\w+", "sha256:" + "0" * 64, line)
    with pytest.raises(SystemExit, match="THESE PACKAGES DO NOT MATCH THE HASHES"):
        _install([altered], tmp_path, Target.here())
    _install([line], tmp_path, Target.here())
    assert (tmp_path / "six.py").exists()
