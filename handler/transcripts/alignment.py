"""When each sentence of a text was said, told by where in the recording somebody speaks, without a model.

Each stretch of speech holds some of the text's words, in their order: as many as its syllables leave room for, and best
with a pause behind a full stop, well behind a comma, and seldom behind any other word. Of all the ways to lay the
text on the stretches the likeliest is taken. Shorter recordings give exacter times: an error does not travel far.
"""

from bisect import bisect_right
from collections.abc import Sequence
from heapq import nsmallest
from itertools import accumulate, pairwise
from math import inf, log
from operator import itemgetter
from unicodedata import east_asian_width

from handler.recordings.speech_activity import SpeechInterval
from handler.transcripts.transcript import Segment
from handler.transcripts.words import Ending, Word, words

# As long to say as so many letters: a digit, a kana or Chinese character, a new word.
_DIGIT, _WIDE, _BETWEEN = 4.0, 3.0, 0.2

# Costs: how unlikely something is, as a negative logarithm.
_SPREAD = 0.22  # of the logarithm of how fast syllables are spoken
_BLUR = 0.2  # seconds by which a stretch's length is uncertain
_TIME = 0.25  # how much a stretch's length counts for the words in it; the rest is its syllables
_EMPTY, _EMPTY_SECOND, _EMPTY_LONGEST = (
    1.7,
    7.0,
    2.0,
)  # a stretch that holds a cough, a laugh, a neighbour, music
_NO_PAUSE = (0.0, 0.25, 2.2)  # inside a stretch: behind a word, a comma, a full stop
_PAUSE = (
    (1.6, 2.7),
    (0.0, 2.0),
    (0.0, 0.0),
)  # between two: at least, and for each second of the pause
_LONGEST_PAUSE = 1.3
_FASTEST, _LEAST_SECONDS = (
    3.5,
    1.5,
)  # no stretch holds more words than at so many times the usual speed
_WAYS = 100  # that are followed at once

_SHARES = (
    1.0,
    0.6,
    0.35,
)  # of the stretches that may be speech; what remains is music, or a neighbour's

_BREATH_SECONDS = 0.6  # a pause that ends a segment wherever it is
_LONG_SECONDS = 7.0  # a segment that ends at the next pause, or full stop
_HARDLY = 0.01  # words of one stretch follow each other at once


def align(text: str, intervals: Sequence[SpeechInterval]) -> tuple[Segment, ...]:
    """The text's sentences and clauses, each with the time of the speech that it is laid on.

    Together they are the whole text; they never overlap. None where there is no text or no speech.
    """
    spoken = words(text)
    if not spoken or not intervals:
        return ()
    times = _times(spoken, intervals)
    segments: list[Segment] = []
    first = 0
    for number, (word, (_, end)) in enumerate(zip(spoken, times, strict=True)):
        pause = times[number + 1][0] - end if number + 1 < len(spoken) else inf
        long = end - times[first][0] > _LONG_SECONDS
        pauses = pause > _HARDLY and (long or word.ending)
        if pause >= _BREATH_SECONDS or pauses or (long and word.ending is Ending.STOP):
            said = text[spoken[first].first : word.last]
            segments.append(Segment(round(times[first][0], 3), round(end, 3), said))
            first = number + 1
    return tuple(segments)


def _times(
    spoken: Sequence[Word], intervals: Sequence[SpeechInterval]
) -> list[tuple[float, float]]:
    """When each word begins and ends: inside a stretch, each takes its share."""
    times: list[tuple[float, float]] = []
    behind = _assign_words(spoken, intervals)
    for interval, first, last in zip(intervals, [0, *behind], behind, strict=False):
        said = [0.0, *accumulate(map(_length, spoken[first:last]))]
        each = (interval.end - interval.start) / said[-1] if said[-1] else 0.0
        times += (
            (interval.start + begin * each, interval.start + end * each)
            for begin, end in pairwise(said)
        )
    return times


def _assign_words(spoken: Sequence[Word], intervals: Sequence[SpeechInterval]) -> list[int]:
    """For each stretch, how many words have been said at its end."""
    seconds = sum(interval.end - interval.start for interval in intervals)
    syllables = sum(interval.syllables for interval in intervals)
    rooms = [
        _TIME * (interval.end - interval.start)
        + (1 - _TIME) * interval.syllables * seconds / syllables
        for interval in intervals
    ]
    pace = seconds / sum(map(_length, spoken))
    return min(_likeliest(spoken, intervals, rooms, pace * share) for share in _SHARES)[1]


def _likeliest(
    spoken: Sequence[Word], intervals: Sequence[SpeechInterval], rooms: Sequence[float], pace: float
) -> tuple[float, list[int]]:
    """What `_laid` says where a word of length 1 takes `pace` seconds, and how unlikely it is; each stretch has room
    for some seconds of words."""
    seconds = [0.0, *accumulate(_length(word) * pace for word in spoken)]
    unpaused = [0.0, *accumulate(_NO_PAUSE[word.ending] for word in spoken)]
    endings = [word.ending for word in spoken]
    ways, steps = {0: 0.0}, []
    for interval, after, room in zip(intervals, [*intervals[1:], None], rooms, strict=True):
        pause = min(after.start - interval.end, _LONGEST_PAUSE) if after else 0.0
        paused = [least + more * pause for least, more in _PAUSE]
        empty = _EMPTY + _EMPTY_SECOND * min(room, _EMPTY_LONGEST)
        reached: dict[int, tuple[float, int]] = {}
        for first, cost in ways.items():
            most = bisect_right(seconds, seconds[first] + _FASTEST * room + _LEAST_SECONDS)
            for last in range(first, most) if after else (len(spoken),):
                if last == first:
                    total = cost + empty
                else:
                    odd = log((room + _BLUR) / (seconds[last] - seconds[first] + _BLUR)) / _SPREAD
                    total = cost + odd * odd / 2 + unpaused[last - 1] - unpaused[first]
                    total += paused[endings[last - 1]] if last < len(spoken) else 0.0
                if last not in reached or total < reached[last][0]:
                    reached[last] = total, first
        ways = {
            last: total for last, (total, _) in nsmallest(_WAYS, reached.items(), key=itemgetter(1))
        }
        steps.append(reached)
    behind = [len(spoken)]
    for reached in reversed(steps[1:]):
        behind.append(reached[behind[-1]][1])
    return ways[len(spoken)], behind[::-1]


def _length(word: Word) -> float:
    return _BETWEEN + sum(map(_letter_length, word.text))


def _letter_length(letter: str) -> float:
    if not letter.isalnum():
        return 0.0
    if letter.isdigit():
        return _DIGIT
    return _WIDE if east_asian_width(letter) in "WF" else 1.0
