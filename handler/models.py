"""What each of OpenAI's transcription models can do, and until when.

The table is OpenAI's documentation as of November 2026. Where it is silent about an option, the option
counts as not honoured: the upstream answers 200 to what it ignores.
"""

from dataclasses import dataclass
from datetime import date, timedelta

DEFAULT_MODEL = "gpt-transcribe"
WARN_BEFORE = timedelta(days=180)


@dataclass(frozen=True)
class Model:
    """`timed_format` is the upstream's `response_format` that carries the segments' times, if any does; `most_tokens`
    those beyond which an answer ends without a word about it."""

    name: str
    timed_format: str | None = None
    several_languages: bool = False
    prompt: bool = True
    keywords: bool = False
    speakers: bool = False
    logprobs: bool = False
    chunking: bool = False
    word_times: bool = False
    most_tokens: int | None = 2_000
    shutdown: date | None = None

    def retired(self, today: date) -> bool:
        return self.shutdown is not None and today >= self.shutdown

    def warning(self, today: date) -> str | None:
        """One sentence when the model stops soon or has stopped."""
        if self.shutdown is None or today < self.shutdown - WARN_BEFORE:
            return None
        if self.retired(today):
            return f"OpenAI shut {self.name} down on {self.shutdown}; {DEFAULT_MODEL} answers for it."
        return f"OpenAI shuts {self.name} down on {self.shutdown}; set WHISPER_MODEL={DEFAULT_MODEL} before."


_SHUTDOWN = date(2027, 2, 26)

MODELS = {
    model.name: model
    for model in (
        Model("gpt-transcribe", several_languages=True, keywords=True),
        Model("gpt-4o-transcribe", logprobs=True, chunking=True, shutdown=_SHUTDOWN),
        Model("gpt-4o-mini-transcribe", logprobs=True, chunking=True, shutdown=_SHUTDOWN),
        Model("gpt-4o-mini-transcribe-2025-12-15", logprobs=True, chunking=True, shutdown=_SHUTDOWN),
        Model(
            "gpt-4o-transcribe-diarize",
            timed_format="diarized_json",
            prompt=False,
            speakers=True,
            chunking=True,
            shutdown=_SHUTDOWN,
        ),
        Model("whisper-1", timed_format="verbose_json", word_times=True, most_tokens=None, shutdown=_SHUTDOWN),
    )
}


def serving(name: str, today: date) -> Model | None:
    """The model that answers for `name`: itself, the default once it is retired, none if nobody knows it."""
    model = MODELS.get(name)
    return MODELS[DEFAULT_MODEL] if model and model.retired(today) else model


def able(ability: str, today: date) -> str:
    """The names of the living models that have `ability` (an attribute of Model), for an error's text."""
    names = [model.name for model in MODELS.values() if getattr(model, ability) and not model.retired(today)]
    return f"Ask for {' or '.join(names)} instead." if names else "No model can any more."
