"""What each transcription model can do, and until when.

The table is OpenAI's documentation as of November 2026. Where it is silent about an option, the
option counts as not honoured: the upstream answers 200 to what it ignores. The dates are OpenAI's
own. At another host a model keeps its name, and a name that is not in the table is passed on, with
the options that every server with OpenAI's route takes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from urllib.parse import urlsplit

from handler.errors import InvalidOption

OPENAI_URL = "https://api.openai.com/v1"
DEFAULT_MODEL = "gpt-transcribe"
MODEL_NAME = re.compile(r"[!-~]{1,200}")  # what a header can carry
WARN_BEFORE = timedelta(days=180)


@dataclass(frozen=True)
class Model:
    """`timed_format` is the upstream's `response_format` that carries the segments' times, if any does.

    `most_tokens` are those beyond which an answer ends without a word about it. `known` models are in
    the table; `elsewhere` is a host that is not OpenAI's.
    """

    name: str
    timed_format: str | None = None
    several_languages: bool = False
    prompt: bool = True
    temperature: bool = True
    keywords: bool = False
    speakers: bool = False
    logprobs: bool = False
    chunking: bool = False
    word_times: bool = False
    most_tokens: int | None = 2_000
    shutdown: date | None = None
    known: bool = True
    elsewhere: bool = False

    def retired(self, today: date) -> bool:
        return self.shutdown is not None and today >= self.shutdown

    def warning(self, today: date) -> str | None:
        """One sentence when the model stops soon or has stopped."""
        if self.shutdown is None or today < self.shutdown - WARN_BEFORE:
            return None
        if self.retired(today):
            return (
                f"OpenAI shut {self.name} down on {self.shutdown}; {DEFAULT_MODEL} answers for it."
            )
        return f"OpenAI shuts {self.name} down on {self.shutdown}; set WHISPER_MODEL={DEFAULT_MODEL} before."


_SHUTDOWN = date(2027, 2, 26)

MODELS = {
    model.name: model
    for model in (
        Model("gpt-transcribe", several_languages=True, keywords=True),
        Model("gpt-4o-transcribe", logprobs=True, chunking=True, shutdown=_SHUTDOWN),
        Model("gpt-4o-mini-transcribe", logprobs=True, chunking=True, shutdown=_SHUTDOWN),
        Model(
            "gpt-4o-mini-transcribe-2025-12-15", logprobs=True, chunking=True, shutdown=_SHUTDOWN
        ),
        Model(
            "gpt-4o-transcribe-diarize",
            timed_format="diarized_json",
            prompt=False,
            speakers=True,
            chunking=True,
            shutdown=_SHUTDOWN,
        ),
        Model(
            "whisper-1",
            timed_format="verbose_json",
            word_times=True,
            most_tokens=None,
            shutdown=_SHUTDOWN,
        ),
    )
}


def is_openai(base_url: str) -> bool:
    """Whether the address is OpenAI's own, in any region, such as https://eu.api.openai.com/v1."""
    host = (urlsplit(base_url).hostname or "").removesuffix(".")
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def named(name: str, base_url: str) -> Model | None:
    """Return the model with that name at the upstream; None if OpenAI has no such model."""
    model = MODELS.get(name)
    if is_openai(base_url):
        return model
    if model:
        return replace(model, shutdown=None, elsewhere=True)
    return Model(name, temperature=False, most_tokens=None, known=False, elsewhere=True)


def serving(name: str, today: date, base_url: str = OPENAI_URL) -> Model | None:
    """The model that answers for `name`: itself, the default once it is retired, none if nobody knows it."""
    model = named(name, base_url)
    return MODELS[DEFAULT_MODEL] if model and model.retired(today) else model


@dataclass(frozen=True)
class Models:
    """The models of a server's upstream. `default` is the name of the server's own choice."""

    default: str
    base_url: str
    today: Callable[[], date]

    @property
    def at_openai(self) -> bool:
        return is_openai(self.base_url)

    def get(self, name: str | None = None) -> Model:
        """Return the model that answers today for `name`, or for the default. InvalidOption for an unknown one."""
        name = name or self.default
        model = serving(name, self.today(), self.base_url)
        if model is None:
            raise InvalidOption(
                "model", f"There is no model `{name[:100]}`. There are: {', '.join(MODELS)}."
            )
        return model

    def listed(self) -> list[Model]:
        """Return the models that can be asked for; at another host than OpenAI's, the default alone."""
        known = MODELS.values() if self.at_openai else [self.get()]
        return [model for model in known if not model.retired(self.today())]

    def configured(self) -> Model | None:
        """Return the default, also if it is retired; None if OpenAI has no such model."""
        return named(self.default, self.base_url)

    def warning(self) -> str | None:
        """Return one sentence if the default stops soon or has stopped."""
        model = self.configured()
        return model.warning(self.today()) if model else None


def able(ability: str, today: date, *, elsewhere: bool = False) -> str:
    """The names of the living models that have `ability` (an attribute of Model), for an error's text."""
    living = [model for model in MODELS.values() if elsewhere or not model.retired(today)]
    names = [model.name for model in living if getattr(model, ability)]
    return f"Ask for {' or '.join(names)} instead." if names else "No model can any more."
