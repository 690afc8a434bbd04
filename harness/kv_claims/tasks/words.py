"""What a word is, in any script, and the one form in which words are compared.

Promises: the words of ASCII text are runs of letters with single inner apostrophes and hyphens;
texts that are canonically equivalent have the same words; words do not overlap, and stand in the
order of the text. Marks belong to the letter before them, and what is not seen (soft hyphens,
joiners, direction marks) is no part of a word.
Scripts without spaces: in Chinese and Japanese every character is a word, but for runs of katakana
(UAX #29 without a dictionary); in Thai, Lao, Khmer and Burmese words are those of ICU's
dictionaries. Where there is no dictionary a whole stretch is one word, in which none can be looked
for: `unknown_script` tells.
Does not: know languages. Endings stay on, French `l'eau` is one word, and the Turkish I is an i.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import regex

VERSION = 2
"""Of the rule: what was scored under another may be scored otherwise now."""

_LATIN = re.compile("[\x00-\x7f\xc0-\xd6\xd8-\xf6\xf8-\xff\u2013\u2014\u2018-\u201d\u2026]*")
"""Texts that are read by the short way, which is ten times as fast and finds the same words."""
_LATIN_WORD = re.compile("[a-z\xe0-\xf6\xf8-\xff]+(?:['-][a-z\xe0-\xf6\xf8-\xff]+)*")

_APOSTROPHES = "'\u2019\u02bc\u05f3\uff07"
_HYPHENS = "-\u2010\u2011\ufe63\uff0d\u058a\u05be"
_MIDDLE_DOTS = "\u00b7\u0387\u2027"
"""As in Catalan; the second is canonically the first."""
_GERSHAYIM = "\u05f4"
"""As in Hebrew acronyms."""
_JOINS = {
    ord(one): alike[0]
    for alike in (_APOSTROPHES, _HYPHENS, _MIDDLE_DOTS, _GERSHAYIM)
    for one in alike
}
"""What may stand between two letters of a word, and what it is compared as."""

# In words of the Unicode character database, by `regex`; V1 has differences of sets.
_DICTIONARIES = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_AFTER = r"[[\p{M}\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}\p{DI}]--[\u200b]]"
"""What belongs to the letter before it. The zero width space does not: it parts words."""
_LETTER = r"[\p{L}--[\p{DI}\u02bc]]"
_BY_DICTIONARY = rf"[{_LETTER}&&[{_DICTIONARIES}]&&\p{{LB=SA}}]"
_ALONE = rf"[{_LETTER}&&[[\p{{WB=Other}}\p{{Han}}]--\p{{LB=SA}}]]"
_KATAKANA = rf"[{_LETTER}&&\p{{WB=Katakana}}]"
_SPELLED = rf"[{_LETTER}--[{_BY_DICTIONARY}{_ALONE}{_KATAKANA}]]"
_JOIN = "[" + "".join(rf"\u{code:04x}" for code in _JOINS) + "]"
_WORD = regex.compile(
    rf"(?:{_SPELLED}{_AFTER}*+)++(?:{_JOIN}{_AFTER}*+(?:{_SPELLED}{_AFTER}*+)++)*+"
    rf"|{_ALONE}[{_AFTER}\u30fc\uff70]*+"
    rf"|(?:{_KATAKANA}{_AFTER}*+)++"
    rf"|(?P<run>(?:{_BY_DICTIONARY}{_AFTER}*+)++)",
    regex.V1,
)
_UNKNOWN = regex.compile(
    rf"[{_LETTER}&&[\p{{LB=SA}}\p{{LB=AK}}\p{{LB=AS}}]--[{_DICTIONARIES}]]", regex.V1
)
_ANY_LETTER = regex.compile(_LETTER, regex.V1)
_UNSEEN = regex.compile(r"[\p{DI}\p{WB=Format}]", regex.V1)
# Vowel signs and points that most texts leave out. Hamza and madda make other letters, and stay.
_ARABIC = "\u0610-\u061a\u0640\u064b-\u0652\u0670"
_KORANIC = "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
_HEBREW = "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
_LEFT_OUT = re.compile(f"[{_ARABIC}{_KORANIC}{_HEBREW}]")
_DOTTED = re.compile("(?<=i)\u0307")
"""The dot that a capital I with a dot keeps when it is folded: an i has one already."""


class Word(NamedTuple):
    """A word, as it is compared, and where it stands: `text[start:stop]` of the text as given."""

    word: str
    start: int
    stop: int


def words_of(text: str) -> list[str]:
    """The words of a text, folded."""
    if text.isascii() or _LATIN.fullmatch(text):
        return _LATIN_WORD.findall(text.casefold().replace("\u2019", "'"))
    return [word for word, _, _ in _placed(text)]


def placed_words(text: str) -> list[Word]:
    """The words of `words_of`, each with its place in the text."""
    if text.isascii():
        return [Word(m[0], m.start(), m.end()) for m in _LATIN_WORD.finditer(text.lower())]
    return list(_placed(text))


@lru_cache(maxsize=1 << 16)
def folded(word: str) -> str:
    """The form in which a word is compared.

    Full case folding and NFKC (full-width, half-width and presentation forms and ligatures are the
    letters that they show), without what is unseen or usually left out (Arabic vowel signs and
    tatweel, Hebrew points), one apostrophe and one hyphen.
    """
    if word.isascii():
        return word.lower()
    shown = unicodedata.normalize("NFKD", _UNSEEN.sub("", word)).casefold()
    plain = _LEFT_OUT.sub("", _DOTTED.sub("", unicodedata.normalize("NFKD", shown)))
    return unicodedata.normalize("NFC", plain.translate(_JOINS))


def unknown_script(text: str) -> str | None:
    """A letter of a script without spaces for which there is no dictionary, by its name."""
    found = _UNKNOWN.search(text)
    return unicodedata.name(found[0], f"U+{ord(found[0]):04X}") if found else None


def _placed(text: str) -> Iterator[Word]:
    for found in _WORD.finditer(text):
        if found.lastgroup is None:
            yield Word(folded(found[0]), *found.span())
        else:
            yield from _by_dictionary(found[0], found.start())


def _by_dictionary(run: str, start: int) -> Iterator[Word]:
    """The words of a stretch without spaces, which stands at `start`."""
    from icu4py.breakers import WordBreaker  # 30 MB of dictionaries, which few texts need

    # The dictionary is chosen by script, whatever the locale.
    for piece in WordBreaker(run, "en"):
        stop = start + len(piece)
        if _ANY_LETTER.search(piece):
            yield Word(folded(piece), start, stop)
        start = stop
