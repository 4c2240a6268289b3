"""Test that docs/models.md matches the profiles of the models."""

from handler.upstream.profiles import servers
from infra.model_docs import FILE, render
from tests.conftest import ROOT


def test_the_page_matches_the_profiles():
    assert FILE.read_text() == render(), "Run: python -m infra.model_docs"


def test_each_field_of_a_profile_is_documented():
    documented = (ROOT / "docs" / "other-servers.md").read_text()
    (model, *_) = servers()["openai"].models.values()
    fields = vars(model).keys() - {"name", "upstream", "base_url", "is_documented"}
    assert {field for field in fields if f"`{field}`" not in documented} == set()
