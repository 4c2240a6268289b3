"""When each sentence of a text was said, told by where in the recording somebody speaks, without a model.

Each stretch of speech holds some of the text's words, in their order: as many as its syllables leave room for, and best
with a pause behind a full stop, well behind a comma, and seldom behind any other word. Of all the ways to lay the
text on the stretches the likeliest is taken. Shorter recordings give exacter times: an error does not travel far.
"""

from bisect import bisect_right
from collections.abc import Sequence
from heapq import nsmallest
from itertools import accumulate
from math import log
from operator import itemgetter

from handler.loudness import Stretch
from handler.transcript import Segment
from handler.words import Word, words

_DIGIT, _WIDE, _BETWEEN = 4.0, 3.0, 0.2  # as long to say as so many letters: a digit, a Chinese character, a new word

# Costs: how unlikely something is, as a negative logarithm.
_SPREAD = 0.22  # of the logarithm of how fast syllables are spoken
_BLUR = 0.2  # seconds by which a stretch's length is uncertain
_TIME = 0.25  # how much a stretch's length counts for the words in it; the rest is its syllables
_EMPTY, _EMPTY_SECOND = 1.7, 7.0  # a stretch that holds a cough, a laugh, a neighbour, music
_NO_PAUSE = (0.0, 0.25, 2.2)  # inside a stretch: behind a word, a comma, a full stop
_PAUSE = ((1.6, 2.7), (0.0, 2.0), (0.0, 0.0))  # between two: at least, and for each second of the pause
_LONGEST_PAUSE = 1.3
_FASTEST, _LEAST_SECONDS = 3.5, 1.5  # no stretch holds more words than at so many times the usual speed
_WAYS = 100  # that are followed at once

_BREATH_SECONDS = 0.6  # a pause that ends a segment wherever it is


def lay(text: str, stretches: Sequence[Stretch]) -> tuple[Segment, ...]:
    """The text's sentences and clauses, each with the time of the speech that it is laid on.

    Together they are the whole text; they never overlap. None where there is no text or no speech.
    """
    spoken = words(text)
    if not spoken or not stretches:
        return ()
    behind = _laid(spoken, stretches)
    segments: list[Segment] = []
    first, start = 0, 0.0
    for number, (stretch, begin, end) in enumerate(zip(stretches, [0, *behind], behind, strict=False)):
        if begin == end:
            continue
        start = stretch.start if first == begin else start
        pause = stretches[number + 1].start - stretch.end if end < len(spoken) else _BREATH_SECONDS
        if spoken[end - 1].ending or pause >= _BREATH_SECONDS:
            said = text[spoken[first].first : spoken[end - 1].last]
            segments.append(Segment(round(start, 3), round(stretch.end, 3), said))
            first = end
    return tuple(segments)


def _laid(spoken: Sequence[Word], stretches: Sequence[Stretch]) -> list[int]:
    """For each stretch, how many words have been said at its end."""
    seconds = sum(stretch.end - stretch.start for stretch in stretches)
    syllables = sum(stretch.syllables for stretch in stretches)
    rooms = [
        _TIME * (stretch.end - stretch.start) + (1 - _TIME) * stretch.syllables * seconds / syllables
        for stretch in stretches
    ]
    length = sum(_length(word) for word in spoken)
    return _likeliest(spoken, stretches, rooms, seconds / length)


def _likeliest(spoken: Sequence[Word], stretches: Sequence[Stretch], rooms: Sequence[float], pace: float) -> list[int]:
    """What `_laid` says, where a word of length 1 takes `pace` seconds; each stretch has room for some seconds."""
    seconds = [0.0, *accumulate(_length(word) * pace for word in spoken)]
    unpaused = [0.0, *accumulate(_NO_PAUSE[word.ending] for word in spoken)]
    endings = [word.ending for word in spoken]
    ways, steps = {0: 0.0}, []
    for stretch, after, room in zip(stretches, [*stretches[1:], None], rooms, strict=True):
        pause = min(after.start - stretch.end, _LONGEST_PAUSE) if after else 0.0
        paused = [least + more * pause for least, more in _PAUSE]
        reached: dict[int, tuple[float, int]] = {}
        for first, cost in ways.items():
            most = bisect_right(seconds, seconds[first] + _FASTEST * room + _LEAST_SECONDS)
            for last in range(first, most) if after else (len(spoken),):
                if last == first:
                    total = cost + _EMPTY + _EMPTY_SECOND * room
                else:
                    odd = log((room + _BLUR) / (seconds[last] - seconds[first] + _BLUR)) / _SPREAD
                    total = cost + odd * odd / 2 + unpaused[last - 1] - unpaused[first]
                    total += paused[endings[last - 1]] if last < len(spoken) else 0.0
                if last not in reached or total < reached[last][0]:
                    reached[last] = total, first
        ways = {last: total for last, (total, _) in nsmallest(_WAYS, reached.items(), key=itemgetter(1))}
        steps.append(reached)
    behind = [len(spoken)]
    for reached in reversed(steps[1:]):
        behind.append(reached[behind[-1]][1])
    return behind[::-1]


def _length(word: Word) -> float:
    return _BETWEEN + sum(map(_letter_length, word.text))


def _letter_length(letter: str) -> float:
    if not letter.isalnum():
        return 0.0
    if letter.isdigit():
        return _DIGIT
    return _WIDE if "\u2e80" <= letter <= "\u9fff" else 1.0
