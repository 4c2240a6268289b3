"""Tests that workflows, templates, hooks and docs refer only to things that exist."""

import re

import pytest

from tests.conftest import ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
TEXTS = [
    WORKFLOW,
    ROOT / ".github" / "pull_request_template.md",
    ROOT / ".pre-commit-config.yaml",
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
# Matches `make` commands in a code span, an indented block, or a `run:` step of a workflow.
MAKE = re.compile(r"(?:`|^ {4,}(?:\$ )?|run: )(?:[A-Z]+=\S+ )*make ([a-z][a-z-]*)", re.MULTILINE)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_make_target_that_a_document_names_exists(path):
    assert set(MAKE.findall(path.read_text())) <= TARGETS


def test_the_workflow_runs_the_oldest_and_the_newest_python_on_both_architectures():
    workflow = WORKFLOW.read_text()
    assert 'python: ["3.11", "3.13"]' in workflow
    assert "runner: [ubuntu-24.04, ubuntu-24.04-arm]" in workflow


def test_the_hooks_use_the_same_ruff_as_make_lint():
    pinned = re.search(r"^ruff==(.+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"ruff==([\d.]+)", hooks)) == {pinned[1]}


def test_the_changelog_uses_the_headings_of_keep_a_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.+)$", changelog, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", name) for name in versions[1:])
    kinds = {"Upgrading", "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", changelog, re.MULTILINE)) <= kinds
