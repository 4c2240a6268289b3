"""The transcription models, their capabilities and their shutdown dates.

The table follows OpenAI's documentation as of November 2026. An option that is not documented for a
model counts as unsupported, because OpenAI ignores such options without an error. Other upstreams
may serve any model. A model that is not in the table gets only the options that every compatible
server accepts.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from urllib.parse import urlsplit

from handler.errors import InvalidOption

OPENAI_URL = "https://api.openai.com/v1"
DEFAULT_MODEL = "gpt-transcribe"
MODEL_NAME = re.compile(r"[!-~]{1,200}")  # it is sent in a response header
_WARNING_PERIOD = timedelta(days=180)


@dataclass(frozen=True)
class Model:
    """A model and its capabilities.

    `timed_format` is the `response_format` that contains timestamps of segments, or None if the
    model does not support one. Longer transcripts than `max_output_tokens` are cut off without an
    error. `documented` means that the model is in the table below. `at_other_host` means that the
    upstream is not OpenAI.
    """

    name: str
    timed_format: str | None = None
    several_languages: bool = False
    prompt: bool = True
    temperature: bool = True
    keywords: bool = False
    diarization: bool = False
    logprobs: bool = False
    chunking: bool = False
    word_timestamps: bool = False
    max_output_tokens: int | None = 2_000
    shutdown: date | None = None
    documented: bool = True
    at_other_host: bool = False

    def retired(self, today: date) -> bool:
        """Return whether OpenAI has shut the model down."""
        return self.shutdown is not None and today >= self.shutdown

    def warning(self, today: date) -> str | None:
        """Return a warning if the model is shut down or will be within 180 days."""
        if self.shutdown is None or today < self.shutdown - _WARNING_PERIOD:
            return None
        if self.retired(today):
            return (
                f"OpenAI shut down {self.name} on {self.shutdown}."
                f" Steno uses {DEFAULT_MODEL} instead. Set WHISPER_MODEL={DEFAULT_MODEL}."
            )
        return (
            f"OpenAI will shut down {self.name} on {self.shutdown}."
            f" Set WHISPER_MODEL={DEFAULT_MODEL} before that date."
        )


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
            diarization=True,
            chunking=True,
            shutdown=_SHUTDOWN,
        ),
        Model(
            "whisper-1",
            timed_format="verbose_json",
            word_timestamps=True,
            max_output_tokens=None,
            shutdown=_SHUTDOWN,
        ),
    )
}


def is_openai(base_url: str) -> bool:
    """Return whether the URL is OpenAI's API, in any region, such as https://eu.api.openai.com/v1."""
    host = (urlsplit(base_url).hostname or "").removesuffix(".")
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def find_model(name: str, base_url: str) -> Model | None:
    """Return the model with this name at the upstream.

    Returns None if the upstream is OpenAI and the model is not in the table.
    """
    model = MODELS.get(name)
    if is_openai(base_url):
        return model
    if model:
        return replace(model, shutdown=None, at_other_host=True)
    return Model(
        name, temperature=False, max_output_tokens=None, documented=False, at_other_host=True
    )


def resolve_model(name: str, today: date, base_url: str = OPENAI_URL) -> Model | None:
    """Return the model to use for `name`, which is the default model if the named one is retired.

    Returns None if the upstream is OpenAI and the model is not in the table.
    """
    model = find_model(name, base_url)
    return MODELS[DEFAULT_MODEL] if model and model.retired(today) else model


@dataclass(frozen=True)
class Models:
    """The models of the configured upstream. `default` is the name of the server's model."""

    default: str
    base_url: str
    today: Callable[[], date]

    @property
    def at_openai(self) -> bool:
        return is_openai(self.base_url)

    def get(self, name: str | None = None) -> Model:
        """Return the model to use today for `name`, or for the default model.

        Raises InvalidOption if the upstream is OpenAI and the model is not in the table.
        """
        name = name or self.default
        model = resolve_model(name, self.today(), self.base_url)
        if model is None:
            raise InvalidOption(
                "model",
                f"`{name[:100]}` is not a supported model. Supported models: {', '.join(MODELS)}.",
            )
        return model

    def available(self) -> list[Model]:
        """Return the models to list: only the default model if the upstream is not OpenAI."""
        models = MODELS.values() if self.at_openai else [self.get()]
        return [model for model in models if not model.retired(self.today())]

    def configured(self) -> Model | None:
        """Return the default model even if it is retired.

        Returns None if the upstream is OpenAI and the model is not in the table.
        """
        return find_model(self.default, self.base_url)

    def warning(self) -> str | None:
        """Return a warning if the default model is shut down or will be within 180 days."""
        model = self.configured()
        return model.warning(self.today()) if model else None


def suggest_models(ability: str, today: date, *, at_other_host: bool = False) -> str:
    """Return a sentence for error messages that names the models with `ability`.

    `ability` is the name of an attribute of Model. Models that OpenAI has retired are named only if
    the upstream is not OpenAI.
    """
    available = [model for model in MODELS.values() if at_other_host or not model.retired(today)]
    names = [model.name for model in available if getattr(model, ability)]
    return f"Use {' or '.join(names)}." if names else "No available model supports it."
