"""subtitles.py: cues that can be read, whatever is said, and files that other libraries read."""

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
    COLUMNS_A_SECOND,
    LINE_COLUMNS,
    LONGEST,
    SHORTEST,
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
def test_subtitles_carry_the_times_and_the_words(write, name):
    read = pysubs2.SSAFile.from_string(write(SEGMENTS), name)
    assert [(event.start, event.end) for event in read] == [
        (96, 1472),
        (60000, 61500),
        (3661001, 3662020),
    ]
    assert read[0].plaintext == "Ever tried."


def test_subrip_counts_its_cues_from_one():
    assert srt(SEGMENTS[:1]) == "1\n00:00:00,096 --> 00:00:01,472\nEver tried.\n"


def test_what_webvtt_would_read_as_markup_is_escaped():
    assert "A &amp; B &lt;i&gt; --&gt; C" in vtt(SEGMENTS)
    assert vtt(()) == "WEBVTT\n"


def shown(*segments):
    return [cue.lines for cue in cues(segments)]


def test_a_line_is_broken_where_a_reader_would():
    assert shown(Segment(0, 4, "In short, the period was so far like it, that I wept.")) == [
        ("In short, the period was so far like it,", "that I wept.")
    ]
    assert shown(Segment(0, 4, "It was the season of light and of darkness in the city")) == [
        ("It was the season of light", "and of darkness in the city")
    ]


def test_a_long_sentence_is_told_in_cues_that_end_where_clauses_do():
    sentence = (
        "We had everything before us, we had nothing before us, we were all going direct to heaven, "
        "we were all going direct the other way."
    )
    assert shown(Segment(0, 9, sentence)) == [
        ("We had everything before us,", "we had nothing before us,"),
        ("we were all going direct to heaven,", "we were all going direct the other way."),
    ]


def test_a_pause_ends_a_cue_and_so_does_another_speaker():
    assert shown(Segment(0, 1, "Ever tried."), Segment(4, 5, "No matter.")) == [
        ("Ever tried.",),
        ("No matter.",),
    ]
    dialogue = Segment(0, 1, "Ever tried?", "A"), Segment(1.1, 2.1, "Never.", "B")
    assert shown(*dialogue) == [("Ever tried?",), ("Never.",)]


def test_a_flash_is_shown_together_with_its_neighbour():
    assert shown(
        Segment(0, 2, "Do you hear me?"), Segment(2.1, 2.4, "Yes."), Segment(2.5, 4, "Do you?")
    ) == [
        ("Do you hear me?",),
        ("Yes. Do you?",),
    ]


def test_a_short_cue_stands_into_the_pause_that_follows_or_at_the_very_end_begins_in_the_one_before():
    first, last = cues([Segment(1, 1.4, "Yes."), Segment(5, 5.4, "No.")])
    assert (first.start, first.end) == (1000, 2000)
    assert (last.start, last.end) == (4400, 5400)


def test_what_is_said_fast_stands_until_it_is_read_if_nobody_speaks_meanwhile():
    cue, _ = cues(
        [Segment(0, 1, "That some of its noisiest authorities insisted"), Segment(5, 6, "On.")]
    )
    assert (cue.start, cue.end) == (0, 46 * 1000 // 20)


def test_scripts_without_spaces_are_broken_between_characters_and_take_two_columns_each():
    (cue,) = cues(
        [Segment(0, 6, "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。")]
    )
    assert cue.lines == ("吾輩は猫である。名前はまだ無い。", "どこで生れたかとんと見当がつかぬ。")


def test_segments_that_overlap_or_have_no_length_are_told_one_after_another():
    told = cues(
        [
            Segment(0, 2, "Ever tried."),
            Segment(1.8, 1.8, "Ever failed."),
            Segment(1.7, 9, "No matter."),
        ]
    )
    told += cues([Segment(9, 9, "Try again. Fail again. Fail better. " * 5), Segment(9, 9, "No.")])
    assert all(before.end <= after.start for before, after in itertools.pairwise(told))
    assert all(cue.start < cue.end for cue in told)
    assert " ".join(line for cue in told for line in cue.lines).startswith(
        "Ever tried. No matter. Ever failed. Try"
    )


def test_who_interrupts_is_shown_when_he_does():
    told = cues(
        [Segment(0, 20, "I was saying that it is late.", "A"), Segment(5, 6.2, "Really?", "B")]
    )
    assert [(cue.start, cue.lines) for cue in told][-1] == (5000, ("Really?",))
    assert told[0].end <= 5000


def test_few_words_in_a_long_segment_are_shown_together_at_its_beginning():
    (cue,) = cues([Segment(3, 33, "Thank you.")])
    assert (cue.start, cue.lines) == (3000, ("Thank you.",))


def test_a_segment_that_never_ends_is_shown_for_as_long_as_any():
    cue, after = cues([Segment(0, 1e300, "Ever tried."), Segment(50, 51, "No matter.")])
    assert (cue.start, after.start) == (0, 50_000)
    assert cue.end <= LONGEST


def test_chinese_segments_are_joined_without_a_space():
    assert shown(Segment(0, 1, "今日は、"), Segment(1, 2, "晴れです。")) == [
        ("今日は、晴れです。",)
    ]


def test_a_pause_inside_a_long_sentence_is_where_it_is_parted():
    one, other = (
        "that some of its authorities insisted on its being",
        "received for good or for evil in the degree",
    )
    assert [cue.lines[-1][-5:] for cue in cues([Segment(0, 3, one), Segment(3.9, 6.9, other)])] == [
        "being",
        "egree",
    ]


def test_a_word_that_is_longer_than_a_line_goes_on_on_the_next():
    assert shown(Segment(0, 5, "x" * 100)) == [("x" * 42,), ("x" * 42, "x" * 16)]


TEXTS = st.text("abcdefghi ,.?!-'\"&<>{}\\0123今日はสวัดี。、 \n", max_size=600)
SPEECH = st.lists(
    st.tuples(st.integers(8, 900), st.integers(4, 600), st.integers(1, 60)), min_size=1, max_size=25
)  # pauses and stretches in frames of 20 ms, and syllables


def intervals(frames):
    found, at = [], 0
    for pause, length, syllables in frames:
        found.append(SpeechInterval((at + pause) / 50, (at + pause + length) / 50, syllables))
        at += pause + length
    return found


@given(TEXTS, SPEECH)
@example("word " * 300, [(8, 4, 1)])
@example("Yes. " * 20, [(8, 30, 1)] * 20)
def test_every_cue_keeps_the_rules_whatever_is_said_with_whatever_pauses(text, frames):
    speech = intervals(frames)
    segments = align(text, speech)
    told = cues(segments)
    assert "".join("".join(cue.lines) for cue in told).replace(" ", "") == "".join(text.split())
    sound = [round(1000 * time) for segment in segments for time in (segment.start, segment.end)]
    assert not sound or (
        sound[0] >= round(speech[0].start * 1000) and sound[-1] <= round(speech[-1].end * 1000)
    )
    crowded = len(told) * SHORTEST > 1000 * sum(
        interval.end - interval.start for interval in speech
    )
    event("crowded" if crowded else "one cue" if len(told) == 1 else "several cues")
    for number, cue in enumerate(told):
        following = told[number + 1].start if number + 1 < len(told) else sound[-1]
        previous = told[number - 1].end if number else sound[0]
        assert 1 <= len(cue.lines) <= 2
        assert all(0 < columns(line) <= LINE_COLUMNS for line in cue.lines)
        assert cue.start < cue.end <= cue.start + LONGEST
        if not crowded:
            assert sound[0] <= cue.start
            assert cue.end <= sound[-1]
        assert previous <= cue.start or not number
        assert cue.end <= following or crowded
        if cue.end - cue.start < SHORTEST:  # only where there is no room
            assert (cue.start == previous and cue.end >= following) or crowded
        if columns(" ".join(cue.lines)) * 1000 > COLUMNS_A_SECOND * (cue.end - cue.start + 60):
            assert cue.end >= min(following, cue.start + LONGEST)


def columns(line):
    return sum(2 if "\u2e80" <= letter <= "\u9fff" else 1 for letter in line)


@given(TEXTS, SPEECH)
def test_other_libraries_accept_every_file_and_read_what_was_meant(text, frames):
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
