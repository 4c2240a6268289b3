"""The models that Steno can use. Selects the model and the upstream for each request."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cache
from urllib.parse import urlsplit

from handler.errors import InvalidOption
from handler.upstream.profiles import Model, Profiles, Server, find_profile, servers

OPENAI_URL = "https://api.openai.com/v1"
DEFAULT_MODEL = "gpt-transcribe"
MODEL_NAME = re.compile(r"[!-~]{1,200}")  # the name is sent in a response header
_WARNING_PERIOD = timedelta(days=180)


@cache
def server_at(base_url: str) -> str | None:
    """Return the name, such as `groq`, of the built-in server that has this URL, or None."""
    host = (urlsplit(base_url).hostname or "").removesuffix(".")
    return next((name for name, server in servers().items() if server.runs_on(host)), None)


def is_openai(base_url: str) -> bool:
    """Return whether this is a URL of OpenAI's API, such as https://eu.api.openai.com/v1."""
    return server_at(base_url) == "openai"


@dataclass(frozen=True)
class Upstream:
    """A server that transcribes recordings.

    `profiles` are the profiles from the setting `MODELS`, which take precedence over the built-in
    ones. `name` is empty if the setting `UPSTREAMS` is not used. If `offered` contains the names of
    models, only these models are used.
    """

    base_url: str
    profiles: Profiles = field(default_factory=dict)
    name: str = ""
    offered: tuple[str, ...] = ()

    @property
    def server_name(self) -> str | None:
        """Return the name of the built-in server at this upstream's URL, or None."""
        return server_at(self.base_url)

    @property
    def _server(self) -> Server:
        return servers()[self.server_name] if self.server_name else Server((), {})

    @property
    def listed(self) -> list[Model]:
        """Return the models in `offered`.

        If `offered` is empty, return all models that have their own profile.
        """
        if self.offered:
            models = [self.find(name) for name in self.offered]
            return [model for model in models if model]
        profiles = {**self._server.models, **self.profiles}
        return [self._offer(model) for name, model in profiles.items() if "*" not in name]

    def find(self, name: str) -> Model | None:
        """Return the model with this name, even if it is retired.

        A model without a profile gets a minimal profile. Returns None if the model is not in
        `offered`, or if the model is unknown and the upstream is OpenAI.
        """
        if self.offered and name not in self.offered:
            return None
        model = find_profile(self.profiles, name) or find_profile(self._server.models, name)
        if model is None and self.server_name == "openai":
            return None
        if model is None and self.server_name is None:
            model = _find_anywhere(name)
        return self._offer(model or Model(name=name, is_documented=False))

    def _offer(self, model: Model) -> Model:
        return replace(model, upstream=self.name, base_url=self.base_url)


def _find_anywhere(name: str) -> Model | None:
    """Return the profile to use for the model on an unknown host, or None.

    Many servers use the names of OpenAI's models. OpenAI's shutdown dates and prices do not apply
    to these servers.
    """
    for server in servers().values():
        if not server.hosts and (model := find_profile(server.models, name)):
            return model
    model = servers()["openai"].models.get(name)
    return replace(model, shutdown=None, dollars_per_hour=None) if model else None


@dataclass(frozen=True)
class Models:
    """The models of the configured upstreams.

    `default` is the name of the default model. `fallbacks` are the names of the models to try, in
    this order, if a request to another model fails and cannot have been billed.
    """

    default: str
    upstreams: tuple[Upstream, ...]
    today: Callable[[], date]
    fallbacks: tuple[str, ...] = ()

    def find(self, name: str) -> Model | None:
        """Return the model with this name, even if it is retired, or None if no upstream offers it.

        `name` can begin with an upstream's name and a slash. Otherwise, the first upstream that
        lists the model is used. If no upstream lists it, the first upstream that accepts unlisted
        models is used.
        """
        prefix, _, rest = name.partition("/")
        for upstream in self.upstreams:
            if upstream.name and upstream.name == prefix:
                return upstream.find(rest)
        for upstream in self.upstreams:
            if any(model.name == name for model in upstream.listed):
                return upstream.find(name)
        found = (upstream.find(name) for upstream in self.upstreams)
        return next((model for model in found if model), None)

    def fallbacks_for(self, model: Model) -> list[Model]:
        """Return the fallback models whose upstream is not the upstream of `model`."""
        models = [self.get(name) for name in self.fallbacks]
        return [other for other in models if other.upstream != model.upstream]

    def get(self, name: str | None = None) -> Model:
        """Return the model with this name, or the default model if `name` is empty.

        A model that OpenAI has retired is replaced by `DEFAULT_MODEL`. Raises InvalidOption if no
        upstream offers the model.
        """
        name = name or self.default
        model = self.find(name)
        if model and model.is_retired(self.today()):
            model = self.find(f"{model.upstream}/{DEFAULT_MODEL}".removeprefix("/"))
        if model is None:
            names = ", ".join(available.full_name for available in self._listed())
            raise InvalidOption(
                "model", f"`{name[:100]}` is not a supported model. Supported models: {names}."
            )
        return model

    def find_available(self, name: str) -> Model | None:
        """Return the model with this name, or None if no upstream offers it, or it is retired."""
        model = self.find(name) if MODEL_NAME.fullmatch(name) else None
        return None if model is None or model.is_retired(self.today()) else model

    def available(self) -> list[Model]:
        """Return the default model and all models that the upstreams list, except retired ones."""
        models = {model.full_name: model for model in (*self._listed(), self.get())}
        return [model for model in models.values() if not model.is_retired(self.today())]

    def _listed(self) -> list[Model]:
        return [model for upstream in self.upstreams for model in upstream.listed]

    def configured(self) -> Model | None:
        """Return the default model, even if it is retired, or None if no upstream offers it."""
        return self.find(self.default)

    def warning(self) -> str | None:
        """Return a warning, beginning 180 days before OpenAI shuts down the default model."""
        model, today = self.configured(), self.today()
        if model is None or model.shutdown is None or today < model.shutdown - _WARNING_PERIOD:
            return None
        if model.is_retired(today):
            return (
                f"OpenAI shut down {model.name} on {model.shutdown}."
                f" Steno uses {DEFAULT_MODEL} instead. Set WHISPER_MODEL={DEFAULT_MODEL}."
            )
        return (
            f"OpenAI will shut down {model.name} on {model.shutdown}."
            f" Set WHISPER_MODEL={DEFAULT_MODEL} before that date."
        )

    def suggest(self, ability: str) -> str:
        """Return a sentence for error messages that names the available models with `ability`.

        `ability` is the name of an attribute of Model.
        """
        models = self.available()
        for upstream in self.upstreams:
            if upstream.server_name is None and not upstream.offered:  # may offer OpenAI's models
                openai = servers()["openai"].models
                models += [model for name in openai if (model := upstream.find(name))]
        names = dict.fromkeys(model.full_name for model in models if getattr(model, ability))
        return f"Use {' or '.join(names)}." if names else "No available model supports it."
