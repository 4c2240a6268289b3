"""Tests of subtitles.py: cues are readable, and other libraries can parse the files."""

import html
import itertools

import pysubs2
import pytest
import srt as strict_srt
import webvtt
from hypothesis import event, example, given
from hypothesis import strategies as st

from handler.recordings.speech_activity import SpeechInterval
from handler.transcripts.alignment import align
from handler.transcripts.subtitles import (
    LINE_COLUMNS,
    MAX_COLUMNS_PER_SECOND,
    MAX_CUE_MS,
    MIN_CUE_MS,
    cues,
    srt,
    vtt,
)
from handler.transcripts.transcript import Segment

SEGMENTS = (
    Segment(0.096, 1.472, " Ever tried."),
    Segment(59.9996, 61.5, "A & B <i> --> C"),
    Segment(3661.001, 3662.02, "Naïve {日本語}"),
)


@pytest.mark.parametrize(("write", "name"), [(srt, "srt"), (vtt, "vtt")])
def test_subtitles_have_the_times_and_the_text(write, name):
    read = pysubs2.SSAFile.from_string(write(SEGMENTS), name)
    assert [(event.start, event.end) for event in read] == [
        (96, 1472),
        (60000, 61500),
        (3661001, 3662020),
    ]
    assert read[0].plaintext == "Ever tried."


def test_subrip_cues_are_numbered_from_one():
    assert srt(SEGMENTS[:1]) == "1\n00:00:00,096 --> 00:00:01,472\nEver tried.\n"


def test_webvtt_markup_is_escaped():
    assert "A &amp; B &lt;i&gt; --&gt; C" in vtt(SEGMENTS)
    assert vtt(()) == "WEBVTT\n"


def shown(*segments):
    return [cue.lines for cue in cues(segments)]


def test_a_line_is_broken_at_a_natural_point():
    assert shown(Segment(0, 4, "In short, the period was so far like it, that I wept.")) == [
        ("In short, the period was so far like it,", "that I wept.")
    ]
    assert shown(Segment(0, 4, "It was the season of light and of darkness in the city")) == [
        ("It was the season of light", "and of darkness in the city")
    ]


def test_a_long_sentence_is_split_into_cues_at_clauses():
    sentence = (
        "We had everything before us, we had nothing before us, "
        "we were all going direct to heaven, we were all going direct the other way."
    )
    assert shown(Segment(0, 9, sentence)) == [
        ("We had everything before us,", "we had nothing before us,"),
        ("we were all going direct to heaven,", "we were all going direct the other way."),
    ]


def test_a_pause_or_another_speaker_ends_a_cue():
    assert shown(Segment(0, 1, "Ever tried."), Segment(4, 5, "No matter.")) == [
        ("Ever tried.",),
        ("No matter.",),
    ]
    dialogue = Segment(0, 1, "Ever tried?", "A"), Segment(1.1, 2.1, "Never.", "B")
    assert shown(*dialogue) == [("Ever tried?",), ("Never.",)]


def test_a_very_short_segment_is_joined_with_its_neighbour():
    assert shown(
        Segment(0, 2, "Do you hear me?"), Segment(2.1, 2.4, "Yes."), Segment(2.5, 4, "Do you?")
    ) == [
        ("Do you hear me?",),
        ("Yes. Do you?",),
    ]


def test_a_short_cue_extends_into_the_next_pause_or_the_last_one_into_the_previous_pause():
    first, last = cues([Segment(1, 1.4, "Yes."), Segment(5, 5.4, "No.")])
    assert (first.start, first.end) == (1000, 2000)
    assert (last.start, last.end) == (4400, 5400)


def test_a_cue_of_fast_speech_extends_into_a_pause():
    cue, _ = cues(
        [Segment(0, 1, "That some of its noisiest authorities insisted"), Segment(5, 6, "On.")]
    )
    assert (cue.start, cue.end) == (0, 46 * 1000 // 20)


def test_scripts_without_spaces_break_between_characters_of_two_columns():
    (cue,) = cues(
        [Segment(0, 6, "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。")]
    )
    assert cue.lines == ("吾輩は猫である。名前はまだ無い。", "どこで生れたかとんと見当がつかぬ。")


def test_overlapping_or_empty_segments_become_consecutive_cues():
    shown_cues = cues(
        [
            Segment(0, 2, "Ever tried."),
            Segment(1.8, 1.8, "Ever failed."),
            Segment(1.7, 9, "No matter."),
        ]
    )
    shown_cues += cues(
        [Segment(9, 9, "Try again. Fail again. Fail better. " * 5), Segment(9, 9, "No.")]
    )
    assert all(before.end <= after.start for before, after in itertools.pairwise(shown_cues))
    assert all(cue.start < cue.end for cue in shown_cues)
    assert " ".join(line for cue in shown_cues for line in cue.lines).startswith(
        "Ever tried. No matter. Ever failed. Try"
    )


def test_an_interruption_is_shown_at_its_time():
    shown_cues = cues(
        [Segment(0, 20, "I was saying that it is late.", "A"), Segment(5, 6.2, "Really?", "B")]
    )
    assert [(cue.start, cue.lines) for cue in shown_cues][-1] == (5000, ("Really?",))
    assert shown_cues[0].end <= 5000


def test_few_words_in_a_long_segment_are_shown_together_at_its_beginning():
    (cue,) = cues([Segment(3, 33, "Thank you.")])
    assert (cue.start, cue.lines) == (3000, ("Thank you.",))


def test_a_segment_without_an_end_is_shown_for_the_maximum_time():
    cue, after = cues([Segment(0, 1e300, "Ever tried."), Segment(50, 51, "No matter.")])
    assert (cue.start, after.start) == (0, 50_000)
    assert cue.end <= MAX_CUE_MS


def test_chinese_segments_are_joined_without_a_space():
    assert shown(Segment(0, 1, "今日は、"), Segment(1, 2, "晴れです。")) == [
        ("今日は、晴れです。",)
    ]


def test_a_long_sentence_is_split_at_a_pause():
    one, other = (
        "that some of its authorities insisted on its being",
        "received for good or for evil in the degree",
    )
    assert [cue.lines[-1][-5:] for cue in cues([Segment(0, 3, one), Segment(3.9, 6.9, other)])] == [
        "being",
        "egree",
    ]


def test_a_word_longer_than_a_line_is_continued_on_the_next():
    assert shown(Segment(0, 5, "x" * 100)) == [("x" * 42,), ("x" * 42, "x" * 16)]


TEXTS = st.text("abcdefghi ,.?!-'\"&<>{}\\0123今日はสวัดี。、 \n", max_size=600)
SPEECH = st.lists(
    st.tuples(st.integers(8, 900), st.integers(4, 600), st.integers(1, 60)), min_size=1, max_size=25
)  # (pause, speech, syllables); pause and speech are measured in frames of 20 ms


def intervals(frames):
    found, at = [], 0
    for pause, length, syllables in frames:
        found.append(SpeechInterval((at + pause) / 50, (at + pause + length) / 50, syllables))
        at += pause + length
    return found


@given(TEXTS, SPEECH)
@example("word " * 300, [(8, 4, 1)])
@example("Yes. " * 20, [(8, 30, 1)] * 20)
def test_every_cue_follows_the_rules(text, frames):
    speech = intervals(frames)
    segments = align(text, speech)
    shown_cues = cues(segments)
    assert "".join("".join(cue.lines) for cue in shown_cues).replace(" ", "") == "".join(
        text.split()
    )
    sound = [round(1000 * time) for segment in segments for time in (segment.start, segment.end)]
    assert not sound or (
        sound[0] >= round(speech[0].start * 1000) and sound[-1] <= round(speech[-1].end * 1000)
    )
    crowded = len(shown_cues) * MIN_CUE_MS > 1000 * sum(
        interval.end - interval.start for interval in speech
    )
    event("crowded" if crowded else "one cue" if len(shown_cues) == 1 else "several cues")
    for number, cue in enumerate(shown_cues):
        following = shown_cues[number + 1].start if number + 1 < len(shown_cues) else sound[-1]
        previous = shown_cues[number - 1].end if number else sound[0]
        assert 1 <= len(cue.lines) <= 2
        assert all(0 < columns(line) <= LINE_COLUMNS for line in cue.lines)
        assert cue.start < cue.end <= cue.start + MAX_CUE_MS
        if not crowded:
            assert sound[0] <= cue.start
            assert cue.end <= sound[-1]
        assert previous <= cue.start or not number
        assert cue.end <= following or crowded
        if cue.end - cue.start < MIN_CUE_MS:  # allowed only if there is no pause to extend into
            assert (cue.start == previous and cue.end >= following) or crowded
        if columns(" ".join(cue.lines)) * 1000 > MAX_COLUMNS_PER_SECOND * (
            cue.end - cue.start + 60
        ):
            assert cue.end >= min(following, cue.start + MAX_CUE_MS)


def columns(line):
    return sum(2 if "\u2e80" <= letter <= "\u9fff" else 1 for letter in line)


@given(TEXTS, SPEECH)
def test_other_libraries_parse_every_file(text, frames):
    segments = align(text, intervals(frames))
    meant = [(cue.start, cue.end, "\n".join(cue.lines)) for cue in cues(segments)]
    read = list(strict_srt.parse(srt(segments)))
    assert [(ms(cue.start), ms(cue.end), cue.content) for cue in read] == meant
    found = webvtt.from_string(vtt(segments), strict=True) if meant else []
    assert [
        (clock(cue.start), clock(cue.end), html.unescape(cue.raw_text)) for cue in found
    ] == meant
    assert len(pysubs2.SSAFile.from_string(vtt(segments), "vtt")) == len(meant)


def ms(delta):
    return round(delta.total_seconds() * 1000)


def clock(time):
    hours, minutes, seconds = time.split(":")
    return round((int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * 1000)
