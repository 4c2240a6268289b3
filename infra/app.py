"""The CDK app: what `npx aws-cdk deploy` runs, by cdk.json. `python -m infra.app` alone synthesizes as well."""

import json
import os

from aws_cdk import App, Environment, Validations
from cdk_nag import AwsSolutionsChecks, ServerlessChecks

from infra.bundle import API, ROOT, WORKER, Target
from infra.choices import Choices
from infra.stack import Bundles, Steno

_BUNDLES = ROOT / ".bundles"


def app(context: dict[str, str] | None = None, out: str | None = None, target: Target | None = None) -> App:
    """The app with one stack; `context` holds what `-c` would, `out` is the folder to synthesize to."""
    # The CLI reads cdk.json's context; without it, it is ours to read.
    flags = json.loads((ROOT / "cdk.json").read_text())["context"]
    made = App(context={**flags, **(context or {})}, outdir=out or os.environ.get("CDK_OUTDIR"))
    choices = Choices.of(made.node)
    target = target or Target(machine=choices.machine)
    bundles = Bundles(*(bundle.build(_BUNDLES, target) for bundle in (API, WORKER)))
    Steno(
        made,
        "Steno",
        bundles,
        choices,
        env=Environment(account=os.environ.get("CDK_DEFAULT_ACCOUNT"), region=os.environ.get("CDK_DEFAULT_REGION")),
    )
    Validations.of(made).add_plugins(AwsSolutionsChecks(made))
    Validations.of(made).add_plugins(ServerlessChecks(made))
    return made


if __name__ == "__main__":
    app().synth()
