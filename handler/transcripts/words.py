"""What a text is made of: words, or characters where a script puts no spaces between its words."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

_STOPS, _COMMAS = frozenset(".!?;:…。！？；：｡؟؛।॥။។።։"), frozenset(",،、，､၊—–-")
_CLOSING = "\"'»«”“’)]」』）*"
# Thai, Lao, Khmer and Burmese, kana, and Chinese characters.
_SPACELESS = (
    ("\u0e00", "\u0eff"),
    ("\u1000", "\u109f"),
    ("\u1780", "\u17ff"),
    ("\u3000", "\u9fff"),
    ("\uf900", "\ufaff"),
    ("\uff61", "\uff9f"),
    ("\U00020000", "\U0003ffff"),
)
_OPENING = ("Ps", "Pi")  # brackets, and quotation marks
# What belongs to the letter before it: Thai and Lao vowels, small kana, and what makes one longer.
_NEVER_FIRST = frozenset("ะาำๆຯະາຳໆーぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶ々ｰﾞﾟｧｨｩｪｫｬｭｮｯ")
_NEVER_LAST = frozenset("เแโใไເແໂໃໄ")  # vowels that are written before their consonant


class Ending(IntEnum):
    """How a word ends: a pause is likelier behind a comma, and likeliest behind a full stop."""

    NONE = 0
    COMMA = 1
    STOP = 2


@dataclass(frozen=True)
class Word:
    """A word with its punctuation, at `first` in the text."""

    text: str
    first: int

    @property
    def last(self) -> int:
        return self.first + len(self.text)

    @property
    def ending(self) -> Ending:
        closing = self.text.rstrip(_CLOSING)[-1:]
        return (
            Ending.STOP
            if closing in _STOPS
            else Ending.COMMA
            if closing in _COMMAS
            else Ending.NONE
        )


def words(text: str) -> list[Word]:
    """Together, and with the spaces between them, they are the whole text."""
    found: list[Word] = []
    first = 0
    for at, letter in enumerate([*text, " "]):
        if letter.isspace() or (first < at and _begins(text[at - 1], letter)):
            if first < at:
                found.append(Word(text[first:at], first))
            first = at + letter.isspace()
    return found


def _begins(before: str, letter: str) -> bool:
    """Whether a word begins between two letters that no space parts."""
    kind = unicodedata.category(letter)
    if before in _NEVER_LAST or unicodedata.category(before) in _OPENING or letter in _NEVER_FIRST:
        return False
    if kind[0] == "M" or (kind[0] == "P" and kind not in _OPENING):  # a vowel's sign, a comma
        return False
    return _is_spaceless(before) or _is_spaceless(letter)


def joined_text(texts: Iterable[str]) -> str:
    """Texts as one; no space comes between two of a script that has none."""
    whole = ""
    for text in filter(None, (text.strip() for text in texts)):
        whole += f" {text}" if are_spaced(whole, text) else text
    return whole


def are_spaced(before: str, after: str) -> bool:
    """Whether a space belongs between two texts."""
    return bool(before) and not (_is_spaceless(before[-1]) and _is_spaceless(after[0]))


def _is_spaceless(letter: str) -> bool:
    return any(first <= letter <= last for first, last in _SPACELESS)
