"""Splits text into words, or into characters if the script has no spaces between words."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

_STOPS, _COMMAS = frozenset(".!?;:…。！？；：｡؟؛।॥။។።։"), frozenset(",،、，､၊—–-")
_CLOSING = "\"'»«”“’)]」』）*"
# The Unicode ranges of Thai, Lao, Burmese, Khmer, kana and Chinese characters.
_SPACELESS_RANGES = (
    ("\u0e00", "\u0eff"),
    ("\u1000", "\u109f"),
    ("\u1780", "\u17ff"),
    ("\u3000", "\u9fff"),
    ("\uf900", "\ufaff"),
    ("\uff61", "\uff9f"),
    ("\U00020000", "\U0003ffff"),
)
_OPENING_CATEGORIES = ("Ps", "Pi")  # opening brackets and quotation marks
# These characters belong to the character before them: Thai and Lao vowels, small kana, and the
# marks that lengthen or repeat a character.
_NEVER_FIRST = frozenset("ะาำๆຯະາຳໆーぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶ々ｰﾞﾟｧｨｩｪｫｬｭｮｯ")
_NEVER_LAST = frozenset("เแโใไເແໂໃໄ")  # vowels that are written before their consonant


class Ending(IntEnum):
    """The punctuation at the end of a word. A higher value means that a pause is more likely."""

    NONE = 0
    COMMA = 1
    STOP = 2


@dataclass(frozen=True)
class Word:
    """A word with its punctuation. `start` and `end` are offsets in the whole text."""

    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def ending(self) -> Ending:
        last_character = self.text.rstrip(_CLOSING)[-1:]
        if last_character in _STOPS:
            return Ending.STOP
        return Ending.COMMA if last_character in _COMMAS else Ending.NONE


def split_words(text: str) -> list[Word]:
    """Return the words of `text` in order, without the whitespace between them."""
    words: list[Word] = []
    start = 0
    for index, character in enumerate([*text, " "]):
        is_space = character.isspace()
        if is_space or (start < index and _is_boundary(text[index - 1], character)):
            if start < index:
                words.append(Word(text[start:index], start))
            start = index + is_space
    return words


def _is_boundary(before: str, after: str) -> bool:
    """Return whether a new word begins at `after`, the character that directly follows `before`."""
    category = unicodedata.category(after)
    if before in _NEVER_LAST or after in _NEVER_FIRST:
        return False
    if unicodedata.category(before) in _OPENING_CATEGORIES:
        return False
    # Combining marks and closing punctuation belong to the character before them.
    if category[0] == "M" or (category[0] == "P" and category not in _OPENING_CATEGORIES):
        return False
    return _is_spaceless(before) or _is_spaceless(after)


def join_texts(texts: Iterable[str]) -> str:
    """Join texts. Insert spaces between them if their script separates words with spaces."""
    joined = ""
    for text in filter(None, (text.strip() for text in texts)):
        joined += f" {text}" if needs_space(joined, text) else text
    return joined


def needs_space(before: str, after: str) -> bool:
    """Return whether two texts must be joined with a space."""
    return bool(before) and not (_is_spaceless(before[-1]) and _is_spaceless(after[0]))


def _is_spaceless(character: str) -> bool:
    return any(first <= character <= last for first, last in _SPACELESS_RANGES)
