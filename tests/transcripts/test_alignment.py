"""Tests of alignment.py: aligning text to speech intervals, based on punctuation and length."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handler.recordings.speech_activity import SpeechInterval
from handler.transcripts.alignment import align, align_words
from handler.transcripts.transcript import Segment

SENTENCES = [
    ("Ever tried.", 0.4, 1.2),
    ("No matter, try again.", 1.9, 3.4),
    ("In short, the period was so far like the present period.", 4.0, 7.1),
    ("Laughed.", 9.0, 9.5),
]


def text_and_intervals(*sentences):
    """Join the texts of (text, start, end) triples. Return the text and its speech intervals."""
    intervals = [
        SpeechInterval(start, end, round((end - start) * 5)) for _, start, end in sentences
    ]
    return " ".join(text for text, _, _ in sentences), intervals


def as_tuples(segments):
    return [(segment.text, segment.start, segment.end) for segment in segments]


def test_each_sentence_is_aligned_to_its_interval():
    assert as_tuples(align(*text_and_intervals(*SENTENCES))) == SENTENCES


def test_a_sentence_with_a_pause_is_one_segment_over_both_intervals():
    text, intervals = text_and_intervals(
        ("We laugh less", 1.0, 1.8), ("heartily.", 2.1, 2.7), ("Yes.", 4.0, 4.5)
    )
    assert as_tuples(align(text, intervals)) == [
        ("We laugh less heartily.", 1.0, 2.7),
        ("Yes.", 4.0, 4.5),
    ]


def test_a_clause_after_a_comma_and_a_pause_is_a_segment():
    text, intervals = text_and_intervals(
        ("We had everything before us,", 0.5, 2.1), ("we had nothing before us.", 2.5, 4.0)
    )
    assert [segment.start for segment in align(text, intervals)] == [0.5, 2.5]


def test_a_pause_is_aligned_to_punctuation_rather_than_to_the_nearest_word():
    """If only durations were considered, "It was" would be assigned to the first interval."""
    text = "I never saw the city again. It was burnt."
    segments = align(text, [SpeechInterval(0, 2.4, 10), SpeechInterval(3.0, 3.8, 3)])
    assert as_tuples(segments) == [
        ("I never saw the city again.", 0, 2.4),
        ("It was burnt.", 3.0, 3.8),
    ]


def test_a_cough_has_no_words():
    text, intervals = text_and_intervals(*SENTENCES)
    coughs = [SpeechInterval(1.4, 1.55, 1), SpeechInterval(8.0, 8.1, 1)]
    assert as_tuples(align(text, sorted([*intervals, *coughs]))) == SENTENCES


def test_a_text_without_punctuation_is_split_at_long_pauses():
    text, intervals = text_and_intervals(
        ("ever tried ever failed", 0.5, 2.2), ("no matter try again fail again", 3.5, 6.0)
    )
    assert as_tuples(align(text, intervals)) == [
        ("ever tried ever failed", 0.5, 2.2),
        ("no matter try again fail again", 3.5, 6.0),
    ]


def test_numbers_are_as_long_as_their_words():
    text, intervals = text_and_intervals(
        ("It was 1859.", 0.5, 2.9), ("I was there.", 3.2, 4.0), ("You were not.", 4.3, 5.1)
    )
    assert [segment.start for segment in align(text, intervals)] == [0.5, 3.2, 4.3]


def test_a_script_without_spaces_is_aligned_by_characters():
    first, second, third = (
        "吾輩は猫である。",
        "名前はまだ無い。",
        "どこで生れたかとんと見当がつかぬ。",
    )
    intervals = [
        SpeechInterval(0.5, 2.0, 8),
        SpeechInterval(2.6, 4.0, 8),
        SpeechInterval(4.5, 8.0, 18),
    ]
    assert as_tuples(align(first + second + third, intervals)) == [
        (first, 0.5, 2.0),
        (second, 2.6, 4.0),
        (third, 4.5, 8.0),
    ]


def test_a_text_in_one_long_interval_is_split_at_its_sentences():
    """For example, no pauses are detected in speech with background music."""
    text = "We laugh less heartily, but we have still that resource. " * 4
    segments = align(text, [SpeechInterval(2.0, 22.0, 70)])
    assert [segment.start for segment in segments] == pytest.approx([2.0, 12.0], abs=0.1)
    assert segments[-1].end == 22.0


def test_a_long_text_without_punctuation_is_split_at_pauses():
    sentences = [
        ("we laugh less heartily but we have still", 5.0 * part, 5.0 * part + 4.6)
        for part in range(8)
    ]
    text, intervals = text_and_intervals(*sentences)
    segments = align(text, intervals)
    assert len(segments) >= 4
    assert all(segment.end - segment.start < 12 for segment in segments)


def test_music_before_the_speech_has_no_words():
    text, intervals = text_and_intervals(
        *[(text, start + 20, end + 20) for text, start, end in SENTENCES]
    )
    assert align(text, [SpeechInterval(0.0, 15.0, 50), *intervals])[0].start == pytest.approx(20.4)


@pytest.mark.parametrize(
    ("text", "intervals"),
    [("", [SpeechInterval(0, 1, 3)]), (" \n", [SpeechInterval(0, 1, 3)]), ("Yes.", [])],
)
def test_without_words_or_without_speech_there_are_no_segments(text, intervals):
    assert align(text, intervals) == ()


@given(
    st.text("abc .,!?09\n今日はสวัดี。", max_size=500),
    st.lists(
        st.tuples(st.floats(0.16, 9), st.floats(0.02, 30), st.integers(1, 200)),
        min_size=1,
        max_size=40,
    ),
)
def test_segments_contain_the_whole_text_in_order_within_the_speech(text, speech):
    intervals, at = [], 0.0
    for pause, length, syllables in speech:
        intervals.append(SpeechInterval(at + pause, at + pause + length, syllables))
        at += pause + length
    segments = align(text, intervals)
    assert "".join("".join(segment.text.split()) for segment in segments) == "".join(text.split())
    assert all(
        intervals[0].start - 0.001 <= segment.start < segment.end <= at + 0.001
        for segment in segments
    )
    assert all(before.end <= after.start for before, after in itertools.pairwise(segments))


WORDS = "we tried, 1859. 今日は晴れ。 สวัสดี مرحبا، नमस्ते। — (...) e\u0301"
# Texts of many scripts. Those of the second strategy have more words.
ANY_TEXT = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from(WORDS.split()), max_size=60).map(" ".join),
)
SAMPLE_SECONDS = 1 / 16_000


@st.composite
def any_intervals(draw, min_size):
    """Return consecutive intervals, some of which are empty or not separated by a pause."""
    intervals, at = [], 0
    samples = st.one_of(st.just(0), st.integers(0, 400), st.integers(0, 600_000))
    for pause, length, syllables in draw(
        st.lists(st.tuples(samples, samples, st.integers(1, 200)), min_size=min_size, max_size=20)
    ):
        start, at = at + pause, at + pause + length
        intervals.append(SpeechInterval(start * SAMPLE_SECONDS, at * SAMPLE_SECONDS, syllables))
    return intervals


def assert_words_are_inside(segment):
    """Assert that the words are the segment's text, and that their times are inside the segment."""
    times = [time for word in segment.words for time in (word.start, word.end)]
    assert "".join(word.text for word in segment.words) == "".join(segment.text.split())
    assert times == sorted(times)
    assert all(segment.start <= time <= segment.end for time in times)


TOUCHING_INTERVALS = [SpeechInterval(0.0, 1.5585, 7), SpeechInterval(1.5585, 3.357, 4)]


@given(ANY_TEXT, any_intervals(min_size=1))
@example("we tried, no. more of it! than that", TOUCHING_INTERVALS)
def test_words_are_in_order_and_within_their_segment_and_the_speech(text, intervals):
    segments = align(text, intervals)
    for segment in segments:
        assert_words_are_inside(segment)
    words = [word for segment in segments for word in segment.words]
    times = [time for word in words for time in (word.start, word.end)]
    assert "".join(word.text for word in words) == "".join(text.split())
    assert times == sorted(times)
    # The times are rounded to milliseconds.
    first, last = intervals[0].start - 0.001, intervals[-1].end + 0.001
    assert all(first <= time <= last for time in times)


@given(
    ANY_TEXT,
    st.integers(0, 1_000_000),
    st.one_of(st.just(0), st.integers(0, 400), st.integers(0, 1_000_000)),
    any_intervals(min_size=0),
)
def test_words_of_a_segment_of_the_model_are_within_it(text, start, length, intervals):
    segment = Segment(start * SAMPLE_SECONDS, (start + length) * SAMPLE_SECONDS, text)
    assert_words_are_inside(align_words(segment, intervals))


def test_words_of_a_segment_of_the_model_are_aligned_with_the_speech_in_it():
    """The segment contains half a second of each interval."""
    intervals = [SpeechInterval(0.0, 1.5, 6), SpeechInterval(2.5, 9.0, 26)]
    words = align_words(Segment(1.0, 3.0, "Ever tried. Ever failed."), intervals).words
    assert [word.text for word in words] == ["Ever", "tried.", "Ever", "failed."]
    assert [word.start for word in words] == pytest.approx([1.0, 1.2, 2.5, 2.7], abs=0.05)
    assert [word.end for word in words] == pytest.approx([1.2, 1.5, 2.7, 3.0], abs=0.05)
