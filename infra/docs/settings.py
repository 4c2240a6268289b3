"""Renders the reference pages of the settings and of the deployment options."""

from dataclasses import fields
from typing import Any

from pydantic.fields import FieldInfo

from handler.settings import Settings
from infra.choices import Choices

_SETTINGS = """\
# Settings

Steno reads its settings from environment variables, and from the file `.env` in the working
directory. Steno ignores empty variables. If a setting is invalid, the server does not
start. Instead, it prints a message with the name of the setting and the remedy.

On AWS, the stack sets the environment variables. Use the [deploy options](deploy-options.md) to
change them.
"""
_OPTIONS = """\
# Deploy options

Set options with `-c name=value`:

<!-- test: aws -->
```sh
make deploy with="-c origins=https://app.example.com -c daily_seconds=36000"
```

An option applies only to one deployment. If you omit the option in the next `make deploy`, its
default is used. To keep options, write them into the `context` of `cdk.json`. If an
option is unknown or has an invalid value, `make deploy` prints an error message and exits.
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
