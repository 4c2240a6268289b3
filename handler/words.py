"""What a text is made of: words, or characters where a script puts no spaces between its words."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

_STOPS, _COMMAS = frozenset(".!?;:…。！？；：؟؛।"), frozenset(",،、，—–-")
_CLOSING = "\"'»”’)]」』）"
# Thai, Lao, Khmer and Burmese, kana, Chinese characters, and their punctuation.
_SPACELESS = (
    ("\u0e00", "\u0eff"),
    ("\u1000", "\u109f"),
    ("\u1780", "\u17ff"),
    ("\u3000", "\u9fff"),
    ("\uff00", "\uffef"),
)


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
        return Ending.STOP if closing in _STOPS else Ending.COMMA if closing in _COMMAS else Ending.NONE


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
    """Whether a word begins between two letters that no space parts: not before a vowel's sign, nor a comma."""
    return (_is_spaceless(before) or _is_spaceless(letter)) and unicodedata.category(letter)[0] not in "MP"


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
