"""transcript.py: segments as subtitles, read back by another library than the one that wrote them."""

import pysubs2
import pytest

from handler.transcript import Segment, joined_text, srt, vtt

SEGMENTS = (
    Segment(0.096, 1.472, " Ever tried."),
    Segment(59.9996, 61.5, "A & B <i> --> C"),
    Segment(3661.001, 3662.0, "Naïve 日本語"),
)


@pytest.mark.parametrize(("write", "name"), [(srt, "srt"), (vtt, "vtt")])
def test_subtitles_carry_the_times_and_the_words(write, name):
    read = pysubs2.SSAFile.from_string(write(SEGMENTS), name)
    assert [(event.start, event.end) for event in read] == [(96, 1472), (60000, 61500), (3661001, 3662000)]
    assert read[0].plaintext == "Ever tried."
    assert read[2].plaintext == "Naïve 日本語"


def test_subrip_counts_its_cues_from_one():
    assert srt(SEGMENTS[:1]) == "1\n00:00:00,096 --> 00:00:01,472\nEver tried.\n"


def test_what_webvtt_would_read_as_markup_is_escaped():
    assert "A &amp; B &lt;i&gt; --&gt; C" in vtt(SEGMENTS)
    assert vtt(()) == "WEBVTT\n"


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (["Ever tried.", " Ever failed. ", ""], "Ever tried. Ever failed."),
        (["今日は。", "晴れです"], "今日は。晴れです"),
        (["สวัสดี", "ครับ"], "สวัสดีครับ"),
        (["晴れ", "Ever tried."], "晴れ Ever tried."),
        (["", " "], ""),
    ],
)
def test_texts_are_joined_as_their_script_joins_words(texts, whole):
    assert joined_text(texts) == whole
