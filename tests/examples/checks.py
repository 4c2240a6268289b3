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
    """Have the AWS CLI parse the arguments and print an example of its output. It sends nothing."""
    if arguments[0] == "logs" and arguments[1] == "tail":  # has no example
        return
    done = subprocess.run(
        [sys.executable, "-m", "awscli", *arguments, "--generate-cli-skeleton", "output"],
        env={"PATH": "", "HOME": "/", "AWS_DEFAULT_REGION": "eu-west-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"aws {shlex.join(arguments)}: {done.stderr}"
