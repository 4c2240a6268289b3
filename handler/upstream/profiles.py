"""Model profiles: which options a model accepts, what it returns, its limits and its price.

Each file in `servers/` contains the profiles of one kind of server, and their source. An option
that is not documented for a model is treated as unsupported, because upstreams ignore unknown
options without an error. The setting `MODELS` can add profiles and replace built-in ones.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

_SERVERS = Path(__file__).parent / "servers"


@dataclass(frozen=True, kw_only=True)
class Model:
    """The profile of one model. Only `language` and `prompt` are sent to a model without a profile.

    `language_field` and `keyword_field` are the names of the upstream's fields for languages and
    keywords, or None if the model does not support them. A field named `languages` takes a list.
    `keyword_space` replaces each space in a keyword. `response_format` is False if the upstream
    does not accept that field. `timestamps` and `diarization` are the parameters that request
    timestamps and speakers, or None if the model does not support them. If
    `timestamps_exclude_language` is True, a request for timestamps must not contain a language. If
    `streaming` is True, the model streams its transcript as OpenAI's events. A transcript longer
    than `max_output_tokens` is cut off without an error. `dollars_per_hour` is the price of an hour
    of audio. `shutdown` is the day on which the upstream shuts the model down. `is_documented` is
    False if the model has no profile. `upstream` is the name of the upstream that offers the model
    (empty if there is only one), and `base_url` is the URL of that upstream.
    """

    name: str
    upstream: str = ""
    base_url: str = ""
    language_field: str | None = "language"
    prompt: bool = True
    keyword_field: str | None = None
    keyword_space: str = " "
    temperature: bool = False
    response_format: bool = True
    timestamps: Mapping[str, Any] | None = None
    timestamps_exclude_language: bool = False
    word_timestamps: bool = False
    diarization: Mapping[str, Any] | None = None
    known_speakers: bool = False
    logprobs: bool = False
    chunking: bool = False
    streaming: bool = False
    max_bytes: int | None = None
    max_seconds: float | None = None
    max_output_tokens: int | None = None
    dollars_per_hour: float | None = None
    shutdown: date | None = None
    is_documented: bool = True

    @property
    def full_name(self) -> str:
        """Return the model's name.

        If there are several upstreams, the upstream's name and a slash precede it.
        """
        return f"{self.upstream}/{self.name}" if self.upstream else self.name

    @property
    def several_languages(self) -> bool:
        """Return whether a request can specify several languages."""
        return self.language_field == "languages"

    def is_retired(self, today: date) -> bool:
        """Return whether the upstream has shut the model down."""
        return self.shutdown is not None and today >= self.shutdown


Profiles = Mapping[str, Model]  # the keys are names, or patterns that contain `*`


@dataclass(frozen=True)
class Server:
    """One kind of server. If `hosts` is empty, it can run on any host."""

    hosts: tuple[str, ...]
    models: Profiles

    def runs_on(self, host: str) -> bool:
        """Return whether `host` is one of the server's hosts, or a subdomain of one."""
        return any(host == own or host.endswith(f".{own}") for own in self.hosts)


def find_profile(profiles: Profiles, name: str) -> Model | None:
    """Return the profile with this name, or the first one whose pattern matches it, or None."""
    if model := profiles.get(name):
        return model
    for pattern, model in profiles.items():
        if "*" in pattern and fnmatchcase(name, pattern):
            return replace(model, name=name)
    return None


@cache
def servers() -> dict[str, Server]:
    """Return the built-in servers by name."""
    return {path.stem: _read(path) for path in sorted(_SERVERS.glob("*.json"))}


def _read(path: Path) -> Server:
    content = json.loads(path.read_text())
    return Server(tuple(content["hosts"]), parse_profiles(content["models"], {}))


def parse_profiles(given: Mapping[str, Mapping[str, Any]], known: Profiles) -> dict[str, Model]:
    """Return the profiles that are defined by the JSON object `given`.

    Its keys are model names, and its values contain the fields of Model that differ from the
    defaults. If a value contains `like`, this is the name of another profile in `given` or `known`.
    The fields that the value omits are copied from that profile, except the shutdown date. Raises
    ValueError if a profile is invalid.
    """
    profiles: dict[str, Model] = {}
    for name, values in given.items():
        profiles[name] = _parse(name, dict(values), {**known, **profiles})
    return profiles


_FIELDS = {field.name for field in fields(Model)} - {
    "name",
    "upstream",
    "base_url",
    "is_documented",
}


def _parse(name: str, values: dict[str, Any], known: Profiles) -> Model:
    base = Model(name=name)
    if (like := values.pop("like", None)) is not None:
        found = find_profile(known, like)
        if found is None:
            raise ValueError(f"{name}: there is no model `{like}` to copy.")
        base = replace(found, name=name, shutdown=None)
    if unknown := values.keys() - _FIELDS:
        raise ValueError(f"{name}: `{min(unknown)}` is not a field of a profile.")
    if isinstance(values.get("shutdown"), str):
        values["shutdown"] = date.fromisoformat(values["shutdown"])
    return replace(base, **values)
