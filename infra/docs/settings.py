"""Renders the reference pages of the settings and of the deployment options."""

from dataclasses import fields
from typing import Any

from pydantic.fields import FieldInfo

from handler.settings import Settings
from infra.choices import Choices

_SETTINGS = """\
# Settings

Steno reads its settings from environment variables, and from the file `.env` in the working
directory. An empty variable counts as unset. An invalid setting ends the start with one sentence
that names the setting and the remedy.

On AWS, the stack sets the environment variables. Use the [deploy options](deploy-options.md).
"""
_OPTIONS = """\
# Deploy options

Set options with `-c name=value`:

<!-- test: aws -->
```sh
make deploy with="-c origins=https://app.example.com -c daily_seconds=36000"
```

Options are not stored: each `make deploy` uses the default of every option that it is not given.
To keep options, write them into the `context` of `cdk.json`. An unknown option or an invalid value
ends the command with one sentence.
"""


def render_settings() -> str:
    """Return docs/reference/settings.md."""
    sections = [
        _section(name.upper(), _default(field), field.description or "")
        for name, field in Settings.model_fields.items()
        if field.description
    ]
    return "\n".join([_SETTINGS, *sections])


def render_options() -> str:
    """Return docs/reference/deploy-options.md."""
    sections = []
    for option in fields(Choices):
        description = option.metadata["description"]
        sentence = f"{description[:1].upper()}{description[1:]}."
        sections.append(_section(option.name, str(option.default), sentence))
    return "\n".join([_OPTIONS, *sections])


def _section(name: str, default: str, description: str) -> str:
    return f"## {name}\n\nDefault: {f'`{default}`' if default else 'none'}\n\n{description}\n"


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value or "")
