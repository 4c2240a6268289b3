"""Aligns a text with the speech in a recording, without a model.

Each speech interval is assigned consecutive words of the text. The number of words depends on the
interval's duration and on its number of syllables. A pause is likely after a full stop, less
likely after a comma, and unlikely after other words. A beam search finds the most likely
assignment. The text of a long recording has more words that can be assigned wrongly, and one wrong
assignment can affect the timestamps of all words. Timestamps are therefore less accurate for long
recordings.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from heapq import nsmallest
from itertools import accumulate, pairwise
from math import inf, log
from operator import itemgetter
from unicodedata import east_asian_width

from handler.recordings.speech_activity import SpeechInterval
from handler.transcripts.transcript import Segment, WordTime
from handler.transcripts.words import Ending, Word, split_words

# The time that it takes to speak a character, as a multiple of the time for a letter. _NEW_WORD is
# added for each word.
_DIGIT, _WIDE_CHARACTER, _NEW_WORD = 4.0, 3.0, 0.2

# Costs are negative logarithms of likelihoods, so unlikely assignments have high costs.
_PACE_DEVIATION = 0.22  # standard deviation of the logarithm of the speaking rate
_DURATION_ERROR_SECONDS = 0.2  # the possible error in the duration of an interval
# An interval's capacity is the speaking time expected in it: a weighted mean of the interval's
# duration and of its share of all syllables. This constant is the weight of the duration.
_DURATION_WEIGHT = 0.25
# The cost of an interval that gets no words: it may be a cough, laughter, music or other voices.
_EMPTY_COST, _EMPTY_COST_PER_SECOND, _MAX_EMPTY_SECONDS = 1.7, 7.0, 2.0
# The next two tuples contain one value for each Ending: none, comma, stop.
_NO_PAUSE_COSTS = (0.0, 0.25, 2.2)  # the next word is in the same interval
_PAUSE_COSTS = ((1.6, 2.7), (0.0, 2.0), (0.0, 0.0))  # a fixed cost, and a cost per second of pause
_MAX_PAUSE_SECONDS = 1.3
# The words in an interval take at most `capacity * ratio + tolerance` seconds.
_MAX_PACE_RATIO, _CAPACITY_TOLERANCE_SECONDS = 3.5, 1.5
_BEAM_WIDTH = 100

# Some of the detected speech may be music or other voices. The share that belongs to the text is
# unknown, so all of these shares are tried.
_SPEECH_SHARES = (1.0, 0.6, 0.35)

_SEGMENT_PAUSE_SECONDS = 0.6  # a pause that always ends a segment
_LONG_SEGMENT_SECONDS = 7.0  # a longer segment ends at the next pause or full stop
_MIN_PAUSE_SECONDS = 0.01  # words of the same interval have no pause between them


def align(text: str, intervals: Sequence[SpeechInterval]) -> tuple[Segment, ...]:
    """Return the sentences and clauses of `text` as segments, with the times of their words.

    The segments contain the whole text in order, and do not overlap. If `text` or `intervals` is
    empty, the result is empty.
    """
    words = split_words(text)
    if not words or not intervals:
        return ()
    times = _word_times(words, intervals)
    segments: list[Segment] = []
    first = 0
    for index, (word, (_, end)) in enumerate(zip(words, times, strict=True)):
        pause = times[index + 1][0] - end if index + 1 < len(words) else inf
        is_long = end - times[first][0] > _LONG_SEGMENT_SECONDS
        ends_at_pause = pause > _MIN_PAUSE_SECONDS and (is_long or word.ending)
        ends_at_stop = is_long and word.ending is Ending.STOP
        if pause >= _SEGMENT_PAUSE_SECONDS or ends_at_pause or ends_at_stop:
            timed = _timed(words[first : index + 1], times[first : index + 1])
            segment_text = text[words[first].start : word.end]
            segments.append(Segment(timed[0].start, timed[-1].end, segment_text, words=timed))
            first = index + 1
    return tuple(segments)


def align_words(segment: Segment, intervals: Sequence[SpeechInterval] = ()) -> Segment:
    """Return the segment with the times of its words, unless it already has them.

    The words are aligned with the parts of `intervals` that are inside the segment. If there are
    none, the whole segment counts as speech.
    """
    words = split_words(segment.text)
    if segment.words or not words:
        return segment
    clipped = (_clip(interval, segment) for interval in intervals)
    inside = [interval for interval in clipped if interval.start < interval.end]
    times = _word_times(words, inside or [SpeechInterval(segment.start, segment.end, 1)])
    # The times are rounded, but those of the segment may not be.
    return replace(segment, words=tuple(word.within(segment) for word in _timed(words, times)))


def _clip(interval: SpeechInterval, segment: Segment) -> SpeechInterval:
    start, end = max(interval.start, segment.start), min(interval.end, segment.end)
    seconds = max(interval.end - interval.start, _MIN_PAUSE_SECONDS)
    return SpeechInterval(start, end, max(round(interval.syllables * (end - start) / seconds), 1))


def _timed(words: Sequence[Word], times: Sequence[tuple[float, float]]) -> tuple[WordTime, ...]:
    return tuple(
        WordTime(word.text, round(start, 3), round(end, 3))
        for word, (start, end) in zip(words, times, strict=True)
    )


def _word_times(
    words: Sequence[Word], intervals: Sequence[SpeechInterval]
) -> list[tuple[float, float]]:
    """Return the start and end of each word, in seconds.

    The duration of an interval is divided among its words in proportion to their lengths.
    """
    times: list[tuple[float, float]] = []
    word_counts = _assign_words(words, intervals)
    for interval, first, end in zip(intervals, [0, *word_counts], word_counts, strict=False):
        offsets = [0.0, *accumulate(map(_length, words[first:end]))]
        seconds_per_length = 0.0
        if offsets[-1]:
            seconds_per_length = (interval.end - interval.start) / offsets[-1]
        # Because of rounding errors, the last word could otherwise end after the interval.
        boundaries = [
            min(interval.start + offset * seconds_per_length, interval.end) for offset in offsets
        ]
        times += pairwise(boundaries)
    return times


def _assign_words(words: Sequence[Word], intervals: Sequence[SpeechInterval]) -> list[int]:
    """For each interval, return the number of words that are spoken up to its end."""
    seconds = sum(interval.end - interval.start for interval in intervals)
    syllables = sum(interval.syllables for interval in intervals)
    capacities = [
        _DURATION_WEIGHT * (interval.end - interval.start)
        + (1 - _DURATION_WEIGHT) * interval.syllables * seconds / syllables
        for interval in intervals
    ]
    pace = seconds / sum(map(_length, words))
    return min(
        _best_assignment(words, intervals, capacities, pace * share) for share in _SPEECH_SHARES
    )[1]


def _best_assignment(
    words: Sequence[Word],
    intervals: Sequence[SpeechInterval],
    capacities: Sequence[float],
    pace: float,
) -> tuple[float, list[int]]:
    """Return the lowest cost, and for each interval the number of words spoken up to its end.

    `pace` is the time in seconds that it takes to say a word of length 1. `capacities` contains the
    expected speaking time in each interval, in seconds.
    """
    seconds = [0.0, *accumulate(_length(word) * pace for word in words)]
    no_pause_costs = [0.0, *accumulate(_NO_PAUSE_COSTS[word.ending] for word in words)]
    endings = [word.ending for word in words]
    # Each key is the number of words assigned so far. Its value is the lowest cost.
    beam, steps = {0: 0.0}, []
    for interval, after, capacity in zip(
        intervals, [*intervals[1:], None], capacities, strict=True
    ):
        pause = min(after.start - interval.end, _MAX_PAUSE_SECONDS) if after else 0.0
        pause_costs = [fixed + per_second * pause for fixed, per_second in _PAUSE_COSTS]
        empty_cost = _EMPTY_COST + _EMPTY_COST_PER_SECOND * min(capacity, _MAX_EMPTY_SECONDS)
        # Each key is the number of words spoken up to the end of this interval. Its value is a
        # pair: the lowest cost, and the number of words spoken up to the start of the interval.
        best: dict[int, tuple[float, int]] = {}
        for first, cost in beam.items():
            max_end = bisect_right(
                seconds, seconds[first] + _MAX_PACE_RATIO * capacity + _CAPACITY_TOLERANCE_SECONDS
            )
            for end in range(first, max_end) if after else (len(words),):
                if end == first:
                    total = cost + empty_cost
                else:
                    duration = seconds[end] - seconds[first] + _DURATION_ERROR_SECONDS
                    deviation = log((capacity + _DURATION_ERROR_SECONDS) / duration)
                    deviation /= _PACE_DEVIATION
                    total = cost + deviation * deviation / 2
                    total = total + no_pause_costs[end - 1] - no_pause_costs[first]
                    total += pause_costs[endings[end - 1]] if end < len(words) else 0.0
                if end not in best or total < best[end][0]:
                    best[end] = total, first
        cheapest = nsmallest(_BEAM_WIDTH, best.items(), key=itemgetter(1))
        beam = {end: total for end, (total, _) in cheapest}
        steps.append(best)
    word_counts = [len(words)]
    for best in reversed(steps[1:]):
        word_counts.append(best[word_counts[-1]][1])
    return beam[len(words)], word_counts[::-1]


def _length(word: Word) -> float:
    return _NEW_WORD + sum(map(_character_length, word.text))


def _character_length(character: str) -> float:
    if not character.isalnum():
        return 0.0
    if character.isdigit():
        return _DIGIT
    return _WIDE_CHARACTER if east_asian_width(character) in "WF" else 1.0
