"""Renders the segments of a transcript as subtitles, in the SubRip or WebVTT format.

A cue has at most two lines, is shown for one to seven seconds, and does not overlap other cues. No
subtitle library is used, because the common ones remove text after `{` or `<`, which they treat as
markup.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from unicodedata import category, east_asian_width

from handler.transcripts.transcript import Segment
from handler.transcripts.words import Ending, Word, needs_space, split_words

LINE_COLUMNS = 42  # the usual limit for television; a Chinese character takes 2 columns
MAX_CUE_MS, MIN_CUE_MS = 7000, 1000
MAX_COLUMNS_PER_SECOND = 20  # the reading speed of viewers
_MAX_MS_PER_COLUMN = 200.0  # the slowest speaking rate
_MAX_PAUSE_SECONDS = 1.5  # a longer pause always ends a cue

# The harder a cue is to read, the higher its cost. The text is split into cues at the lowest
# total cost.
_CUE_COST = 1.0
# The cost of a cue depends on the punctuation at its end.
_BREAK_COSTS = {Ending.STOP: 0.0, Ending.COMMA: 1.0, Ending.NONE: 4.0}
_BREAK_DISCOUNT_PER_SECOND = 4.0  # for a pause after the cue
_INNER_PAUSE_COST_PER_SECOND = 2.0
_INNER_SENTENCE_COST = 0.8  # for each sentence that ends before the cue ends
_SQUARED_COLUMN_COST = 0.5 / (2 * LINE_COLUMNS) ** 2  # makes the cues similar in length
_SHORT_COST = 5.0  # for a cue that cannot be shown for a whole second


@dataclass(frozen=True)
class Cue:
    """A subtitle that is shown from `start` to `end`, in milliseconds."""

    start: int
    end: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _TimedWord:
    """A word, or a piece of a word that is too long for one line. Times are in milliseconds."""

    text: str
    ending: Ending
    columns: int
    start: float
    end: float
    has_space_before: bool
    speaker: str | None


def srt(segments: Iterable[Segment]) -> str:
    """Return the segments as SubRip subtitles."""
    return "\n".join(
        f"{number}\n{_format_time(cue.start, ',')} --> {_format_time(cue.end, ',')}\n"
        + "\n".join(cue.lines)
        + "\n"
        for number, cue in enumerate(cues(segments), start=1)
    )


def vtt(segments: Iterable[Segment]) -> str:
    """Return the segments as WebVTT subtitles."""
    blocks = (
        f"{_format_time(cue.start, '.')} --> {_format_time(cue.end, '.')}\n"
        + "\n".join(map(_escape, cue.lines))
        + "\n"
        for cue in cues(segments)
    )
    return "\n".join(["WEBVTT\n", *blocks])


def cues(segments: Iterable[Segment]) -> list[Cue]:
    """Return the cues for the segments, in chronological order.

    No cue begins before the first segment or ends after the last one.
    """
    ordered = sorted(segments, key=lambda segment: segment.start)
    words = list(_timed_words(ordered))
    if not words:
        return []
    groups = _group_words(words)
    speech_end = min(max(segment.end for segment in ordered) * 1000, words[-1].end + MAX_CUE_MS)
    times = _cue_times(groups, round(speech_end))
    return [Cue(*time, _break_lines(group)) for time, group in zip(times, groups, strict=True)]


def _timed_words(segments: Sequence[Segment]) -> Iterator[_TimedWord]:
    """Yield the words of all segments. A word's duration is proportional to its width in columns.

    If a long segment has only a few words, they are all placed at its beginning.
    """
    text_before = ""
    for segment, next_segment in zip(segments, [*segments[1:], None], strict=False):
        start, end = segment.start * 1000, segment.end * 1000
        if next_segment:  # segments overlap if one speaker interrupts another
            end = min(end, next_segment.start * 1000)
        pieces = [
            (piece, _columns(piece.text))
            for word in split_words(segment.text)
            for piece in _split_long_word(word)
        ]
        total_columns = max(sum(columns for _, columns in pieces), 1)
        ms_per_column = min(max(end - start, 0.0) / total_columns, _MAX_MS_PER_COLUMN)
        columns_before, previous_end = 0, 0
        for piece, columns in pieces:
            if previous_end:
                has_space_before = piece.start > previous_end
            else:
                has_space_before = needs_space(text_before, piece.text)
            yield _TimedWord(
                piece.text,
                piece.ending,
                columns,
                start + columns_before * ms_per_column,
                start + (columns_before + columns) * ms_per_column,
                has_space_before,
                segment.speaker,
            )
            columns_before += columns
            previous_end = piece.end
        text_before = segment.text.rstrip() or text_before


def _split_long_word(word: Word) -> Iterator[Word]:
    """Yield the word. If it is longer than a line, yield pieces that each fit on a line."""
    start = 0
    while rest := word.text[start:]:
        length = min(LINE_COLUMNS, len(rest))
        while _columns(rest[:length]) > LINE_COLUMNS:
            length -= 1
        yield Word(rest[:length], word.start + start)
        start += length


def _group_words(words: Sequence[_TimedWord]) -> list[list[_TimedWord]]:
    """Split the words into cues so that the total cost of the cues is as low as possible."""
    # costs[n] is the lowest total cost of splitting the first n words into cues. starts[n] is the
    # index of the first word in the last of these cues.
    costs, starts = [0.0] + [inf] * len(words), [0] * (len(words) + 1)
    for first in range(len(words)):
        for end, cost in _possible_cues(words, first):
            if costs[first] + cost < costs[end]:
                costs[end], starts[end] = costs[first] + cost, first
    groups, end = [], len(words)
    while end:
        groups.append(list(words[starts[end] : end]))
        end = starts[end]
    return groups[::-1]


def _possible_cues(words: Sequence[_TimedWord], first: int) -> Iterator[tuple[int, float]]:
    """Yield the possible cues that begin with the word `first`.

    Each result is a pair: the index of the word after the cue, and the cost of the cue.
    """
    inner_cost, space = 0.0, _CueSpace()
    previous_end = words[first - 1].end if first else words[0].start
    for end in range(first + 1, len(words) + 1):
        word, next_word = words[end - 1], words[end] if end < len(words) else None
        is_too_long = end > first + 1 and word.end - words[first].start > MAX_CUE_MS
        if is_too_long or not space.add(word):
            return
        pause = (next_word.start - word.end) / 1000 if next_word else _MAX_PAUSE_SECONDS
        latest_end = next_word.start if next_word else word.end
        short_cost = _SHORT_COST if latest_end - previous_end < MIN_CUE_MS else 0.0
        break_cost = max(_BREAK_COSTS[word.ending] - _BREAK_DISCOUNT_PER_SECOND * pause, 0)
        length_cost = _SQUARED_COLUMN_COST * space.columns**2
        yield end, _CUE_COST + (break_cost + length_cost) + inner_cost + short_cost
        if not next_word or pause >= _MAX_PAUSE_SECONDS or next_word.speaker != word.speaker:
            return
        sentence_cost = _INNER_SENTENCE_COST if word.ending is Ending.STOP else 0.0
        inner_cost += _INNER_PAUSE_COST_PER_SECOND * pause + sentence_cost


class _CueSpace:
    """Checks whether words fit on the two lines of a cue."""

    def __init__(self) -> None:
        self._line, self._used = 1, 0
        self.columns = 0

    def add(self, word: _TimedWord) -> bool:
        """Add a word. Return False if it does not fit."""
        self.columns += word.columns
        needed = word.columns + (word.has_space_before and self._used > 0)
        if self._used + needed <= LINE_COLUMNS:
            self._used += needed
            return True
        self._line, self._used = self._line + 1, word.columns
        return self._line <= 2


def _break_lines(words: Sequence[_TimedWord]) -> tuple[str, ...]:
    """Return the words as one or two lines.

    The line break is after punctuation if possible, and otherwise near the middle.
    """
    text = _join(words)
    if _columns(text) <= LINE_COLUMNS:
        return (text,)
    breaks = []
    for index in range(1, len(words)):
        upper, lower = _join(words[:index]), _join(words[index:])
        columns = max(_columns(upper), _columns(lower))
        if columns <= LINE_COLUMNS:
            breaks.append((columns + 6 * _BREAK_COSTS[words[index - 1].ending], upper, lower))
    _, *lines = min(breaks)
    return tuple(lines)


def _cue_times(groups: Sequence[Sequence[_TimedWord]], speech_end: int) -> list[tuple[int, int]]:
    """Return the start and end of each cue in milliseconds.

    A cue is shown while its words are spoken. If reading takes longer, it is shown longer.
    """
    starts = [round(group[0].start) for group in groups]
    ends = [
        min(round(group[-1].end), start + MAX_CUE_MS)
        for group, start in zip(groups, starts, strict=True)
    ]
    for index, limit in enumerate([*starts[1:], speech_end]):
        previous_end = ends[index - 1] if index else starts[0]
        start = max(starts[index], previous_end)
        ends[index] = max(ends[index], min(start + MIN_CUE_MS, limit), start + 1)
        # If the cue is still too short, let it begin earlier, during the previous pause.
        starts[index] = max(min(start, ends[index] - MIN_CUE_MS), previous_end)
    for index, limit in enumerate([*starts[1:], speech_end]):
        reading_ms = _columns(_join(groups[index])) * 1000 // MAX_COLUMNS_PER_SECOND
        readable_end = starts[index] + min(reading_ms, MAX_CUE_MS)
        ends[index] = max(ends[index], min(readable_end, limit))
    return list(zip(starts, ends, strict=True))


def _join(words: Sequence[_TimedWord]) -> str:
    return "".join(
        " " * (word.has_space_before and index > 0) + word.text for index, word in enumerate(words)
    )


def _columns(text: str) -> int:
    return sum(_character_columns(character) for character in text)


@cache
def _character_columns(character: str) -> int:
    if category(character) in ("Mn", "Me", "Cf"):  # combining marks and invisible characters
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def _format_time(milliseconds: int, decimal_mark: str) -> str:
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{decimal_mark}{milliseconds % 1000:03}"
    )


def _escape(text: str) -> str:
    """Escape `<` and `&`, which begin markup, and `>`, because a cue must not contain `-->`."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
