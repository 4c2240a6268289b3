"""The CDK app, which the CDK CLI (`npx aws-cdk`) runs as configured in cdk.json.

`python -m infra.app` synthesizes the template without the CDK CLI.
"""

import json
import os

from aws_cdk import App, Environment, Tags

from infra.bundle import API, CUTTER, ROOT, Target
from infra.choices import Choices
from infra.stack import Bundles, Steno

_BUNDLES = ROOT / ".bundles"


def app(
    context: dict[str, str] | None = None,
    out: str | None = None,
    target: Target | None = None,
    bundles: Bundles | None = None,
) -> App:
    """Return the CDK app with its single stack.

    `context` contains the values of `-c name=value` options. `out` is the folder to which the
    template is written. If `bundles` is None, the bundles are built for `target`. If
    `target` is None too, they are built for the architecture given by `-c machine`.
    """
    # The context in cdk.json is otherwise read only by the CDK CLI, but tests call this function
    # without the CLI.
    flags = json.loads((ROOT / "cdk.json").read_text())["context"]
    cdk_app = App(context={**flags, **(context or {})}, outdir=out or os.environ.get("CDK_OUTDIR"))
    choices = Choices.of(cdk_app.node)
    Steno(
        cdk_app,
        choices.name,
        bundles or _build_bundles(target or Target(machine=choices.machine)),
        choices,
        termination_protection=choices.protect == "on",
        env=Environment(
            account=os.environ.get("CDK_DEFAULT_ACCOUNT"),
            region=os.environ.get("CDK_DEFAULT_REGION"),
        ),
    )
    for key, value in choices.tag_list:
        Tags.of(cdk_app).add(key, value)
    return cdk_app


def _build_bundles(target: Target) -> Bundles:
    return Bundles(*(bundle.build(_BUNDLES, target) for bundle in (API, CUTTER)))


if __name__ == "__main__":
    app().synth()
