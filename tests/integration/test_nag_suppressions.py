"""What cdk-nag and CloudFormation's linter find in the template: nothing that nobody has given a reason for."""

from aws_cdk import Validations
from cdk_nag import AwsSolutionsChecks, ServerlessChecks
from cfnlint.api import ManualArgs, lint

from infra.app import app
from infra.stack import Bundles


def bundles(folder):
    folder.mkdir()
    (folder / "code.py").touch()
    return Bundles(folder, folder)


def test_cdk_nag_finds_nothing_that_has_no_reason(tmp_path):
    made = app(out=str(tmp_path / "out"), bundles=bundles(tmp_path / "code"))
    Validations.of(made).add_plugins(AwsSolutionsChecks(made), ServerlessChecks(made))
    made.synth()  # raises if a plugin reports a finding


def test_cloudformations_linter_finds_nothing(tmp_path):
    app(out=str(tmp_path / "out"), bundles=bundles(tmp_path / "code")).synth()
    template = (tmp_path / "out" / "Steno.template.json").read_text()
    # W3005: CDK names a dependency also where CloudFormation would find it.
    assert lint(template, config=ManualArgs(ignore_checks=["W3005"])) == []
