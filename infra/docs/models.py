"""Renders docs/reference/models.md from the profiles of the models."""

import json
from collections.abc import Iterator
from pathlib import Path

from handler.upstream import profiles

_SERVERS = Path(profiles.__file__).parent / "servers"
_INTRODUCTION = """\
# Models

The models on this page have a built-in profile. `GET /v1/models` lists the models of your server.
For a model without a profile, Steno supports only the options `language` and `prompt`.
[Use a server other than OpenAI](../how-to/other-servers.md) describes how to add a profile.

| column | meaning |
| --- | --- |
| languages | how many languages a request can specify: no language, one language, or several |
| timestamps | `own`: the model returns them. `aligned`: Steno aligns the text with the speech |
| words | whether the model returns timestamps of words. Steno computes them for other models |
| speakers | whether the model identifies speakers |
| streams | whether the model [streams](openai.md#streaming) its transcript |
| price | the list price in US dollars for an hour of audio, as of November 2026 |
| until | the day on which the model is shut down. The cell is empty if this day is not known |
"""
_HEAD = """\
| model | languages | `prompt` | `keywords` | `temperature` | timestamps | words | speakers | streams | price | until |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""  # noqa: E501 - a table of Markdown
_LANGUAGES = {None: "no", "language": "one", "languages": "several"}


def render() -> str:
    """Return the page in Markdown."""
    known = profiles.servers()
    others = sorted(name for name in known if name != "openai")
    sections = [_section(name, known[name]) for name in ("openai", *others)]
    return "\n".join([_INTRODUCTION, *sections])


def _section(name: str, server: profiles.Server) -> str:
    content = json.loads((_SERVERS / f"{name}.json").read_text())
    rows = "".join(f"| {' | '.join(_cells(*item))} |\n" for item in server.models.items())
    return f"## {content['title']}\n\nSource: {content['source']}\n\n{_HEAD}{rows}"


def _cells(name: str, model: profiles.Model) -> Iterator[str]:
    yield f"`{name}`"
    yield _LANGUAGES[model.language_field]
    yield _yes_or_no(model.prompt)
    yield _yes_or_no(model.keyword_field)
    yield _yes_or_no(model.temperature)
    yield "own" if model.timestamps else "aligned"
    yield _yes_or_no(model.word_timestamps)
    yield _yes_or_no(model.diarization)
    yield _yes_or_no(model.streaming)
    yield "" if model.dollars_per_hour is None else f"${model.dollars_per_hour:g}"
    yield str(model.shutdown or "")


def _yes_or_no(supported: object) -> str:
    return "yes" if supported else "no"
