"""Converts the upstream's response to a transcript."""

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from handler.errors import UpstreamFailed
from handler.transcripts.transcript import Segment, Transcript, WordTime
from handler.upstream.profiles import Model

# A transcript that uses more than this share of the model's maximum output tokens is treated as cut
# off.
_CUT_OFF_RATIO = 0.95
_TOKENS_PER_SECOND = 10  # of audio
# The estimated number of tokens per character, for code points below each limit: Latin letters,
# most other scripts, and Chinese characters.
_TOKENS_PER_CHARACTER = (
    (0x80, 0.25),
    (0x2E80, 0.4),
    (sys.maxunicode + 1, 1.0),
)
_MAX_SECONDS = 1e6  # the latest timestamp that is accepted


def parse_response(body: bytes, model: Model, parameters: dict[str, Any]) -> Transcript:
    """Return the transcript in the body of a response with status 200.

    `parameters` are the parameters of the request. Raises UpstreamFailed if the body is not valid.
    """
    response_format = parameters.get("response_format", "json")
    timestamps = response_format != "json" or "timestamp_granularities" in parameters
    try:
        response = json.loads(
            body, parse_constant=_reject_constant, parse_float=_parse_finite_float
        )
        return _read_response(response, model, response_format, timestamps=timestamps)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise UpstreamFailed(
            f"The speech service returned HTTP 200, but the body is not valid {response_format}."
            " If this error persists, the server's owner should check OPENAI_BASE_URL."
        ) from None


def _read_response(
    response: dict[str, Any], model: Model, response_format: str, *, timestamps: bool
) -> Transcript:
    text = response["text"].strip()
    segments = sorted(map(_segment, response.get("segments") or ()), key=attrgetter("start"))
    words = _words(response.get("words") or ())
    if timestamps and text and not segments and not response.get("words"):
        raise ValueError("timestamps are missing")
    if words and not segments:
        segments = [Segment(words[0].start, max(word.end for word in words), text)]
    usage = response.get("usage") or {}
    languages = [language["code"] for language in response.get("languages") or ()]
    tokens = usage.get("output_tokens") or _estimate_tokens(text)
    seconds_billed = _billed_seconds(usage)
    return Transcript(
        text=text,
        model=model.full_name,
        segments=_add_words(segments, words),
        language=response.get("language") or next(iter(languages), None),
        languages=tuple(languages),
        duration=response.get("duration") or seconds_billed,
        seconds_billed=seconds_billed,
        cut_off=tokens > _CUT_OFF_RATIO * (model.max_output_tokens or math.inf),
        answer={name: value for name, value in response.items() if name != "words"},
        answer_format=response_format,
        aligned=(),
    )


def _segment(fields: dict[str, Any]) -> Segment:
    start, end = _interval(fields)
    text = "" + fields["text"]  # raises TypeError if the text is not a string
    # Mistral names the field `speaker_id`.
    return Segment(start, end, text, fields.get("speaker") or fields.get("speaker_id"))


def _words(stored: Iterable[dict[str, Any]]) -> list[WordTime]:
    """Return the words in chronological order.

    Some servers return words without times. The result is then empty, because the transcript is
    paid for, and Steno can compute the times of the words.
    """
    try:
        words = [WordTime(word["word"].strip(), *_interval(word)) for word in stored]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        return []
    return sorted(filter(attrgetter("text"), words), key=attrgetter("start"))


def _interval(fields: dict[str, Any]) -> tuple[float, float]:
    """Return the start and the end of a segment or word, in seconds."""
    start, end = max(float(fields["start"]), 0.0), float(fields["end"])
    if not (start <= _MAX_SECONDS and math.isfinite(end)):
        raise ValueError("a timestamp is out of range")
    return start, min(max(end, start), _MAX_SECONDS)


def _add_words(segments: Sequence[Segment], words: Iterable[WordTime]) -> tuple[Segment, ...]:
    """Return the segments with their words.

    A word belongs to the segment that contains its midpoint.
    """
    words_by_segment: list[list[WordTime]] = [[] for _ in segments]
    index = 0
    for word in words:
        middle = (word.start + word.end) / 2
        while index + 1 < len(segments) and segments[index + 1].start <= middle:
            index += 1
        words_by_segment[index].append(word.within(segments[index]))
    return tuple(
        replace(segment, words=tuple(inside))
        for segment, inside in zip(segments, words_by_segment, strict=True)
    )


def _parse_finite_float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _reject_constant(text)  # such as 1e400


def _reject_constant(text: str) -> float:
    raise ValueError(f"{text} is not a finite number")


def _billed_seconds(usage: dict[str, Any]) -> float | None:
    """Return the billed seconds, or None if `usage` contains neither seconds nor audio tokens."""
    seconds = usage.get("seconds", usage.get("prompt_audio_seconds"))  # the latter at Mistral
    if tokens := (usage.get("input_token_details") or {}).get("audio_tokens"):
        seconds = tokens / _TOKENS_PER_SECOND
    is_valid = isinstance(seconds, int | float) and math.isfinite(seconds) and seconds >= 0
    return seconds if is_valid else None


def _estimate_tokens(text: str) -> float:
    return sum(
        next(tokens for end, tokens in _TOKENS_PER_CHARACTER if ord(character) < end)
        for character in text
    )
