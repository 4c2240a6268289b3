"""Tests of words.py: splitting a text into words, in scripts with and without spaces."""

import pytest

from handler.transcripts.words import Ending, join_texts, split_words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" Ever tried.\n Ever  failed. ", ["Ever", "tried.", "Ever", "failed."]),
        ("今日は。晴れ、OK です", ["今", "日", "は。", "晴", "れ、", "OK", "で", "す"]),
        ("สวัสดีครับ", ["ส", "วั", "ส", "ดี", "ค", "รั", "บ"]),
        ("彼は「はい」と", ["彼", "は", "「は", "い」", "と"]),
        ("コーヒーとお茶", ["コー", "ヒー", "と", "お", "茶"]),
        ("きゃっと", ["きゃっ", "と"]),
        ("ดื่มน้ำมาก", ["ดื่", "ม", "น้ำ", "มา", "ก"]),
        ("เมา", ["เมา"]),
        ("１２３ 日", ["１２３", "日"]),
        ("ទៅ។ ၁", ["ទៅ។", "၁"]),
        ("안녕 하세요", ["안녕", "하세요"]),
        ("مرحبا، نعم؟", ["مرحبا،", "نعم؟"]),
        ("", []),
        (" \t\n", []),
    ],
)
def test_a_text_is_split_into_words_or_characters(text, expected):
    found = split_words(text)
    assert [word.text for word in found] == expected
    assert all(text[word.start : word.end] == word.text for word in found)


@pytest.mark.parametrize(
    ("word", "ending"),
    [
        ("tried.", Ending.STOP),
        ('"Why?"', Ending.STOP),
        ("は。", Ending.STOP),
        ("نعم؟", Ending.STOP),
        ("short,", Ending.COMMA),
        ("„Warum?“", Ending.STOP),
        ("»Warum?«", Ending.STOP),
        ("ទៅ។", Ending.STOP),
        ("is:", Ending.STOP),
        ("then;", Ending.STOP),
        ("well—", Ending.COMMA),
        ("れ、", Ending.COMMA),
        ("ever", Ending.NONE),
        ("3.5", Ending.NONE),
        ('""', Ending.NONE),
    ],
)
def test_a_word_has_its_kind_of_ending(word, ending):
    assert split_words(word)[0].ending is ending


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
def test_texts_are_joined_with_or_without_a_space(texts, whole):
    assert join_texts(texts) == whole
