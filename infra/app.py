"""The CDK app: what `npx aws-cdk deploy` runs, by cdk.json. `python -m infra.app` alone synthesizes as well."""

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
    """Return the app with its one stack.

    `context` holds what `-c` would, `out` is the folder to synthesize to. The bundles are built
    for `target` (by default the machine that `-c machine` names), unless they are given.
    """
    # The CLI reads cdk.json's context; without it, it is ours to read.
    flags = json.loads((ROOT / "cdk.json").read_text())["context"]
    made = App(context={**flags, **(context or {})}, outdir=out or os.environ.get("CDK_OUTDIR"))
    choices = Choices.of(made.node)
    Steno(
        made,
        choices.name,
        bundles or _built(target or Target(machine=choices.machine)),
        choices,
        termination_protection=choices.protect == "on",
        env=Environment(
            account=os.environ.get("CDK_DEFAULT_ACCOUNT"),
            region=os.environ.get("CDK_DEFAULT_REGION"),
        ),
    )
    for key, value in choices.tag_list:
        Tags.of(made).add(key, value)
    return made


def _built(target: Target) -> Bundles:
    return Bundles(*(bundle.build(_BUNDLES, target) for bundle in (API, CUTTER)))


if __name__ == "__main__":
    app().synth()
