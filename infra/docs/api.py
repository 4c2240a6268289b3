"""Renders docs/reference/api.md from the OpenAPI document, with an example for each route."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from handler.settings import Settings
from handler.web.app import create_app

_EXAMPLES = Path(__file__).parent / "api_examples.md"
_INTRODUCTION = """\
# API

Every server has an OpenAPI document at `/openapi.json`, and an interactive page at `/docs`. This
page is generated from the OpenAPI document. The examples use the server that `make run` starts.

If the server requires a token, send it with each request:
`-H "Authorization: Bearer $ACCESS_TOKEN"`.

Later versions may add fields to any response, so ignore unknown fields. [Errors](errors.md)
explains all error codes.

To generate a client, use one of these commands. `make clients` tests both commands.

- Python: `openapi-python-client generate --url URL/openapi.json`
- TypeScript: `openapi-typescript URL/openapi.json -o schema.ts --default-non-nullable=false`
"""


def render() -> str:
    """Return the page in Markdown."""
    settings = Settings.model_construct()  # the defaults, whatever the environment contains
    document = create_app(settings).openapi()
    examples = _examples()
    sections = [_INTRODUCTION]
    for tag in document["tags"]:
        sections.append(f"## {tag['name']}\n")
        for title, operation in _operations(document, tag["name"]):
            sections.append(_section(title, operation, document))
            sections.append(examples[operation["operationId"]])
    sections.append(_schema_section("Job", document))
    return "\n".join(sections)


def _examples() -> dict[str, str]:
    """Return the examples by operation. In the file, `# NAME` precedes each example."""
    texts = re.split(r"^# (\w+)\n", _EXAMPLES.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _operations(document: dict[str, Any], tag: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if tag in operation["tags"]:
                yield f"{method.upper()} {path}", operation


def _section(title: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    lines = [f"### {title}\n", f"{operation['description']}\n"]
    rows = [
        _row(parameter["name"], parameter["schema"], parameter.get("description"))
        for parameter in operation.get("parameters", [])
    ]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        body = _resolve(content["schema"], document)
        rows += [_row(name, schema) for name, schema in body["properties"].items()]
    if rows:
        lines.append("| field | type | description |\n| --- | --- | --- |\n" + "".join(rows))
    lines.append("| status | response |\n| --- | --- |")
    for status, response in sorted(operation["responses"].items()):
        lines.append(f"| {status} | {_link_codes(response['description'])} |")
    return "\n".join(lines) + "\n"


def _schema_section(name: str, document: dict[str, Any]) -> str:
    schema = document["components"]["schemas"][name]
    rows = "".join(_row(field, content) for field, content in schema["properties"].items())
    return f"## {name} object\n\n| field | type | description |\n| --- | --- | --- |\n{rows}"


def _row(name: str, schema: dict[str, Any], description: str | None = None) -> str:
    text = (description or schema.get("description", "")).replace("|", "\\|")
    return f"| `{name}` | {_type(schema)} | {text} |\n"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return "object"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        kinds = dict.fromkeys(_type(option) for option in schema["anyOf"])
        return " or ".join(kinds)
    if schema.get("format") == "binary":
        return "file"
    return str(schema.get("type", "any"))


def _link_codes(description: str) -> str:
    """Link error codes, which consist of lower-case words in backquotes, to their explanation."""
    if not description.startswith("Error code"):
        return description
    return re.sub(r"`([a-z_]+)`", r"[`\1`](errors.md#\1)", description)


def _resolve(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    resolved: dict[str, Any] = document["components"]["schemas"][name] if name else schema
    return resolved
