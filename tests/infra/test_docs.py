"""Test that the generated pages match the code, and that the other pages describe all of it."""

import json
import re
from typing import get_type_hints

import openai
import pytest
from openai.types.audio import transcription_create_params

from handler.upstream.profiles import servers
from infra.docs.pages import pages
from tests.conftest import ROOT


@pytest.mark.parametrize("path", pages())
def test_a_generated_page_is_up_to_date(path):
    assert (ROOT / path).read_text() == pages()[path], "Run: .venv/bin/python -m infra.docs"


def test_each_error_code_is_explained():
    codes = json.loads((ROOT / "tests" / "public_contract.json").read_text())["codes"]
    texts = json.loads((ROOT / "infra" / "docs" / "errors.json").read_text())
    assert texts.keys() == codes.keys()


def test_each_parameter_of_openais_sdk_is_documented():
    documented = (ROOT / "docs" / "reference" / "openai.md").read_text()
    for parameters in (
        transcription_create_params.TranscriptionCreateParamsNonStreaming,
        transcription_create_params.TranscriptionCreateParamsStreaming,
    ):
        names = get_type_hints(parameters)
        assert {name for name in names if f"| `{name}` |" not in documented} == set()


def test_the_versions_of_tested_clients_are_documented():
    tests = ROOT / "tests"
    versions = {"openai": {openai.__version__}}
    for folder in (tests / "browsers" / "npm", tests / "clients" / "vercel"):
        packages = json.loads((folder / "package.json").read_text())
        for kind in ("dependencies", "devDependencies"):
            for name, version in packages.get(kind, {}).items():
                versions.setdefault(name, set()).add(version)
    for file in (tests / "clients" / "python").glob("*.txt"):
        for name, version in re.findall(r"^(\S+)==(\S+)$", file.read_text(), re.MULTILINE):
            if name != "openai":  # here, it is only a dependency of the client
                versions.setdefault(name, set()).add(version)
    page = (ROOT / "docs" / "reference" / "openai.md").read_text().partition("## Tested clients")[2]
    documented = re.findall(r"\(https://\S+/(?:project|package)/(\S+?)/?\) \| (\S+) \|", page)
    assert len(documented) == 6
    assert [row for row in documented if row[1] not in versions[row[0]]] == []


def test_each_field_of_a_profile_is_documented():
    documented = (ROOT / "docs" / "how-to" / "other-servers.md").read_text()
    (model, *_) = servers()["openai"].models.values()
    fields = vars(model).keys() - {"name", "upstream", "base_url", "is_documented"}
    assert {field for field in fields if f"`{field}`" not in documented} == set()
