"""Tests that handler/__init__.py is the only file that contains Steno's version."""

import pkgutil
import re
import tomllib

from handler import __version__
from infra.bundle import API
from tests.conftest import ROOT


def test_the_version_is_a_release():
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_the_openapi_document_has_the_version(client):
    assert client().get("/openapi.json").json()["info"]["version"] == __version__


def test_pyproject_reads_the_version():
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert configured["project"]["dynamic"] == ["version"]
    assert "version" not in configured["project"]
    read = configured["tool"]["setuptools"]["dynamic"]["version"]
    assert pkgutil.resolve_name(read["attr"].replace(".__version__", ":__version__")) == __version__


def test_the_bundle_has_the_version():
    assert ROOT / "handler" / "__init__.py" in API.modules()


def test_no_other_file_of_the_product_repeats_the_version():
    files = [
        path
        for folder in ("handler", "infra")
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in (".py", ".js", ".html")
    ]
    assert [path.name for path in files if __version__ in path.read_text()] == ["__init__.py"]


def test_the_latest_release_in_the_changelog_has_the_version():
    released = re.findall(
        r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert released[:1] in ([], [__version__])
