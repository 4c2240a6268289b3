"""Subtitles that can be read, made of a transcript's segments; as SubRip or as WebVTT.

A cue has at most two lines, stands for one to seven seconds, and never while another does. No library writes
them: the known ones take `{` and `<` in what was said for markup, and lose it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from unicodedata import category, east_asian_width

from handler.transcripts.transcript import Segment
from handler.transcripts.words import Ending, Word, are_spaced, words

LINE_COLUMNS = 42  # what television holds itself to; a Chinese character takes two
LONGEST, SHORTEST = 7000, 1000
COLUMNS_A_SECOND = 20
_SLOWEST = 200.0  # milliseconds a column
_APART = 1.5  # seconds of pause that end a cue

# What a reader minds, more or less.
_CUE = 1.0
_BREAK = {
    Ending.STOP: 0.0,
    Ending.COMMA: 1.0,
    Ending.NONE: 4.0,
}  # between two cues, behind such a word
_BREATH = 4.0  # so much less, for each second of pause there
_INSIDE = 2.0  # a second of pause in the middle of a cue
_SENTENCE = 0.8  # another sentence in the same cue
_FULL = 0.5 / (2 * LINE_COLUMNS) ** 2  # a column, times the others: so that cues are of a length
_FLASH = 5.0  # a cue that has no room to stand for a second


@dataclass(frozen=True)
class Cue:
    """`lines` from `start` to `end`, in milliseconds."""

    start: int
    end: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Spoken:
    """A word, or what of a long one goes on a line; from `start` to `end`, in milliseconds."""

    text: str
    ending: Ending
    columns: int
    start: float
    end: float
    spaced: bool  # a space comes before it
    speaker: str | None


def srt(segments: Iterable[Segment]) -> str:
    """The segments as SubRip subtitles."""
    return "\n".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n"
        + "\n".join(cue.lines)
        + "\n"
        for number, cue in enumerate(cues(segments), start=1)
    )


def vtt(segments: Iterable[Segment]) -> str:
    """The segments as WebVTT subtitles."""
    blocks = (
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n"
        + "\n".join(map(_escape, cue.lines))
        + "\n"
        for cue in cues(segments)
    )
    return "\n".join(["WEBVTT\n", *blocks])


def cues(segments: Iterable[Segment]) -> list[Cue]:
    """The segments' text in portions to be read, none before the first segment begins or after the last has ended."""
    ordered = sorted(segments, key=lambda segment: segment.start)
    spoken = list(_spoken(ordered))
    if not spoken:
        return []
    portions = _portions(spoken)
    last = min(max(segment.end for segment in ordered) * 1000, spoken[-1].end + LONGEST)
    times = _times(portions, round(last))
    return [Cue(*time, _lines(portion)) for time, portion in zip(times, portions, strict=True)]


def _spoken(segments: Sequence[Segment]) -> Iterator[_Spoken]:
    """The words of all segments, each as long as it is wide; few words in a long segment are said at its beginning."""
    before = ""
    for segment, after in zip(segments, [*segments[1:], None], strict=False):
        start, end = segment.start * 1000, segment.end * 1000
        if after:  # a speaker who interrupts another
            end = min(end, after.start * 1000)
        pieces = [
            (piece, _columns(piece.text)) for word in words(segment.text) for piece in _pieces(word)
        ]
        each = min(max(end - start, 0.0) / max(sum(columns for _, columns in pieces), 1), _SLOWEST)
        said, behind = 0, 0
        for piece, columns in pieces:
            spaced = piece.first > behind if behind else are_spaced(before, piece.text)
            begin, said = start + said * each, said + columns
            yield _Spoken(
                piece.text,
                piece.ending,
                columns,
                begin,
                start + said * each,
                spaced,
                segment.speaker,
            )
            behind = piece.last
        before = segment.text.rstrip() or before


def _pieces(word: Word) -> Iterator[Word]:
    """A word that is longer than a line, on several."""
    first = 0
    while rest := word.text[first:]:
        length = min(LINE_COLUMNS, len(rest))
        while _columns(rest[:length]) > LINE_COLUMNS:
            length -= 1
        yield Word(rest[:length], word.first + first)
        first += length


def _portions(spoken: Sequence[_Spoken]) -> list[list[_Spoken]]:
    """The words of each cue: of all ways to portion them, the one that is best to read."""
    cost, begins = [0.0] + [inf] * len(spoken), [0] * (len(spoken) + 1)
    for first in range(len(spoken)):
        for last, minded in _cues_from(spoken, first):
            if cost[first] + minded < cost[last]:
                cost[last], begins[last] = cost[first] + minded, first
    portions, last = [], len(spoken)
    while last:
        portions.append(list(spoken[begins[last] : last]))
        last = begins[last]
    return portions[::-1]


def _cues_from(spoken: Sequence[_Spoken], first: int) -> Iterator[tuple[int, float]]:
    """Where a cue that begins with the word `first` may end (before which word), and how much a reader minds it."""
    inside, fit = 0.0, _Fit()
    since = spoken[first - 1].end if first else spoken[0].start
    for last in range(first + 1, len(spoken) + 1):
        word, after = spoken[last - 1], spoken[last] if last < len(spoken) else None
        if (last > first + 1 and word.end - spoken[first].start > LONGEST) or not fit.takes(word):
            return
        pause = (after.start - word.end) / 1000 if after else _APART
        until = after.start if after else word.end
        flash = _FLASH if until - since < SHORTEST else 0.0
        minded = max(_BREAK[word.ending] - _BREATH * pause, 0) + _FULL * fit.columns**2
        yield last, _CUE + minded + inside + flash
        if not after or pause >= _APART or after.speaker != word.speaker:
            return
        inside += _INSIDE * pause + (_SENTENCE if word.ending is Ending.STOP else 0.0)


class _Fit:
    """Whether words find room on two lines."""

    def __init__(self) -> None:
        self._line, self._used = 1, 0
        self.columns = 0

    def takes(self, word: _Spoken) -> bool:
        self.columns += word.columns
        needed = word.columns + (word.spaced and self._used > 0)
        if self._used + needed <= LINE_COLUMNS:
            self._used += needed
            return True
        self._line, self._used = self._line + 1, word.columns
        return self._line <= 2


def _lines(portion: Sequence[_Spoken]) -> tuple[str, ...]:
    """One line, or two, broken where a reader would: behind punctuation, or else in the middle."""
    whole = _text(portion)
    if _columns(whole) <= LINE_COLUMNS:
        return (whole,)
    breaks = []
    for at in range(1, len(portion)):
        upper, lower = _text(portion[:at]), _text(portion[at:])
        longer = max(_columns(upper), _columns(lower))
        if longer <= LINE_COLUMNS:
            breaks.append((longer + 6 * _BREAK[portion[at - 1].ending], upper, lower))
    _, *lines = min(breaks)
    return tuple(lines)


def _times(portions: Sequence[Sequence[_Spoken]], end_of_sound: int) -> list[tuple[int, int]]:
    """From when to when each cue stands: as long as it is said, and longer where it takes longer to read."""
    starts = [round(portion[0].start) for portion in portions]
    ends = [
        min(round(portion[-1].end), start + LONGEST)
        for portion, start in zip(portions, starts, strict=True)
    ]
    for number, limit in enumerate([*starts[1:], end_of_sound]):
        free = ends[number - 1] if number else starts[0]
        start = max(starts[number], free)
        ends[number] = max(ends[number], min(start + SHORTEST, limit), start + 1)
        # What is too short even so may begin in the pause before.
        starts[number] = max(min(start, ends[number] - SHORTEST), free)
    for number, limit in enumerate([*starts[1:], end_of_sound]):
        readable = starts[number] + min(
            _columns(_text(portions[number])) * 1000 // COLUMNS_A_SECOND, LONGEST
        )
        ends[number] = max(ends[number], min(readable, limit))
    return list(zip(starts, ends, strict=True))


def _text(portion: Sequence[_Spoken]) -> str:
    return "".join(
        " " * (word.spaced and number > 0) + word.text for number, word in enumerate(portion)
    )


def _columns(text: str) -> int:
    return sum(_width(letter) for letter in text)


@cache
def _width(letter: str) -> int:
    if category(letter) in ("Mn", "Me", "Cf"):  # accents and vowels over a letter
        return 0
    return 2 if east_asian_width(letter) in "WF" else 1


def _clock(milliseconds: int, decimal_mark: str) -> str:
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{decimal_mark}{milliseconds % 1000:03}"
    )


def _escape(text: str) -> str:
    """WebVTT reads `<` and `&` as markup, and `-->` as a cue's times."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
