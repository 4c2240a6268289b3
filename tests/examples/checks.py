"""Check the recorded calls of programs that need an AWS account, or that would not end."""

import re
import shlex
import subprocess
import sys
from functools import cache
from itertools import pairwise

from handler.settings import Settings
from infra.choices import Choices
from tests.conftest import ROOT

RECORDED_PROGRAMS = ("make", "npx", "aws", "git", "sam")
_NO_ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_MAX_ATTEMPTS": "1",
}


class _Context:
    """The context of a CDK app, for `Choices.of`."""

    def __init__(self, options):
        self.options = options

    def get_all_context(self):
        return self.options

    def try_get_context(self, name):
        return self.options.get(name)


def check(call):
    """Check a call. Raise an exception if the program would reject its arguments."""
    program, arguments = call["program"], call["arguments"]
    if program == "make":
        _check_make(arguments, call["environment"])
    if program == "aws":
        _check_aws(*arguments)
    if program == "npx" and "aws-cdk" in arguments[0]:
        _check_options(arguments)


def _check_make(arguments, environment):
    targets = [argument for argument in arguments if "=" not in argument]
    variables = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    known = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(targets) <= set(known), f"make has no target {targets}"
    _check_options(shlex.split(variables.get("with", "")))
    if targets == ["run"]:
        names = [name.upper() for name in Settings.model_fields]
        given = {name.lower(): environment[name] for name in names if environment.get(name)}
        Settings(**{"openai_api_key": "offline", **given})


def _check_options(arguments):
    """Check the `-c name=value` options of the CDK."""
    pairs = [value for flag, value in pairwise(arguments) if flag == "-c"]
    Choices.of(_Context(dict(pair.split("=", 1) for pair in pairs)))


@cache
def _check_aws(*arguments):
    """Run the AWS CLI with an endpoint that does not exist. It checks its arguments before."""
    done = subprocess.run(
        [sys.executable, "-m", "awscli", *arguments, "--endpoint-url", "http://127.0.0.1:1"],
        env={**_NO_ACCOUNT, "PATH": "", "HOME": "/"},
        input="the value",
        capture_output=True,
        text=True,
        check=False,
    )
    command = f"aws {shlex.join(arguments)}"
    assert "Could not connect to the endpoint" in done.stderr, f"{command}: {done.stderr}"
