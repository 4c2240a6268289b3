"""Test that cdk-nag and cfn-lint report no findings, except those with a documented reason."""

from aws_cdk import Validations
from cdk_nag import AwsSolutionsChecks, ServerlessChecks
from cfnlint.api import ManualArgs, lint

from infra.app import app
from infra.stack import Bundles


def bundles(folder):
    folder.mkdir()
    (folder / "code.py").touch()
    return Bundles(folder, folder)


def test_cdk_nag_has_no_unexplained_finding(tmp_path):
    cdk_app = app(out=str(tmp_path / "out"), bundles=bundles(tmp_path / "code"))
    Validations.of(cdk_app).add_plugins(AwsSolutionsChecks(cdk_app), ServerlessChecks(cdk_app))
    cdk_app.synth()  # raises if a plugin reports a finding


def test_cfn_lint_has_no_finding(tmp_path):
    app(out=str(tmp_path / "out"), bundles=bundles(tmp_path / "code")).synth()
    template = (tmp_path / "out" / "Steno.template.json").read_text()
    # W3005: CDK also declares dependencies that CloudFormation can infer.
    assert lint(template, config=ManualArgs(ignore_checks=["W3005"])) == []
