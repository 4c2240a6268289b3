"""Test that the documentation site can be built."""

import subprocess
import sys

from tests.conftest import ROOT


def build(folder, configuration=ROOT / "mkdocs.yml"):
    command = ["mkdocs", "build", "--strict", "--config-file", configuration, "--site-dir", folder]
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False
    )


def test_the_site_has_no_broken_links_or_anchors_and_contains_every_page(tmp_path):
    built = build(tmp_path)
    assert built.returncode == 0, built.stderr
    assert "#budget_exhausted" in (tmp_path / "reference" / "errors.html").read_text()


def test_a_broken_link_fails(tmp_path):
    pages = tmp_path / "docs"
    pages.mkdir()
    (pages / "index.md").write_text("# Start\n\n[Broken](index.md#none)\n")
    configuration = tmp_path / "mkdocs.yml"
    text = (ROOT / "mkdocs.yml").read_text()
    configuration.write_text(text[: text.index("nav:\n  - Start")] + "nav:\n  - index.md\n")
    built = build(tmp_path / "site", configuration)
    assert built.returncode != 0
    assert "there is no such anchor" in built.stderr
