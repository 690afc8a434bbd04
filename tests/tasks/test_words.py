"""What a word is in each script, and which spellings are the same word."""

# ruff: noqa: RUF001

from __future__ import annotations

import unicodedata

import pytest

from kv_claims.errors import UsageError
from kv_claims.tasks.scorers import Hit, Lexicon
from kv_claims.tasks.words import folded, placed_words, unknown_script, words_of


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("पानी नीला है", ["पानी", "नीला", "है"], id="hindi"),
        pytest.param("கடல் நீல நிறம்", ["கடல்", "நீல", "நிறம்"], id="tamil"),
        pytest.param("바다가 파랗다", ["바다가", "파랗다"], id="korean"),
        pytest.param("大海，我爱", ["大", "海", "我", "爱"], id="chinese"),
        pytest.param("人々は青い", ["人", "々", "は", "青", "い"], id="japanese"),
        pytest.param("コーヒー, ｺｰﾋｰ", ["コーヒー", "コーヒー"], id="katakana-is-a-run"),
        pytest.param("Tシャツ", ["t", "シャツ"], id="katakana-after-latin"),
        pytest.param("ฉันรักทะเลสีฟ้า", ["ฉัน", "รัก", "ทะเล", "สี", "ฟ้า"], id="thai"),
        pytest.param("ພາສາລາວ", ["ພາສາ", "ລາວ"], id="lao"),
        pytest.param("ខ្ញុំស្រឡាញ់សមុទ្រ", ["ខ្ញុំ", "ស្រឡាញ់", "សមុទ្រ"], id="khmer"),
        pytest.param("ဘာသာစကားကို", ["ဘာသာစကား", "ကို"], id="burmese"),
        pytest.param("ok ทะเล ok", ["ok", "ทะเล", "ok"], id="thai-within"),
        pytest.param("བོད་སྐད།", ["བོད", "སྐད"], id="tibetan-by-syllable"),
        pytest.param("צה״ל", ["צה״ל"], id="gershayim"),
        pytest.param("col·lecció", ["col·lecció"], id="catalan"),
        pytest.param("sea\u2122 x\u00b2 1\ufe0f\u20e3 \U0001f600", ["sea", "x"], id="no-letters"),
        pytest.param("a\u200bb", ["a", "b"], id="zero-width-space"),
        pytest.param("a\u2013b a\u2014b", ["a", "b", "a", "b"], id="dashes"),
    ],
)
def test_words_in_any_script(text: str, words: list[str]) -> None:
    assert words_of(text) == words
    assert words_of(nfd(text)) == words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("été", nfd("été"), id="nfd"),
        pytest.param("straße", "STRASSE", id="sharp-s"),
        pytest.param("θάλασσας", "ΘΆΛΑΣΣΑΣ", id="final-sigma"),
        pytest.param("istanbul", "İstanbul", id="dotted-capital-i"),
        pytest.param("i̇stanbul", "İstanbul", id="its-lower-case"),
        pytest.param("بحر", "بَحْر", id="arabic-vowels"),
        pytest.param("بحر", "بـحـر", id="tatweel"),
        pytest.param("بحر", "\ufe91\ufea4\ufeae", id="presentation-forms"),
        pytest.param("שלום", "שָׁלוֹם", id="hebrew-points"),
        pytest.param("می‌روم", "میروم", id="zwnj"),
        pytest.param("water", "wa\u00adter", id="soft-hyphen"),
        pytest.param("water", "wa\u202eter", id="direction-mark"),
        pytest.param("well-known", "well\u2011known", id="u+2011"),
        pytest.param("well-known", "well\u2010known", id="u+2010"),
        pytest.param("don't", "don\u2019t", id="curly-apostrophe"),
        pytest.param("п'ять", "п\u02bcять", id="modifier-apostrophe"),
        pytest.param("sea", "\uff33\uff25\uff21", id="full-width"),
        pytest.param("sea", "\U0001d42c\U0001d41e\U0001d41a", id="bold"),
        pytest.param("office", "o\ufb03ce", id="ligature"),
        pytest.param("バス", "ﾊﾞｽ", id="half-width"),
    ],
)
def test_spellings_of_one_word_meet(one: str, other: str) -> None:
    assert folded(one) == folded(other)
    for entry, text in ((one, other), (other, one), (one, one)):
        assert Lexicon(frozenset({entry}))(f"{text} x") == 50.0
    with pytest.raises(UsageError, match="are the same word"):
        Lexicon(frozenset({one, other}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("sea", "seas", id="endings"),
        pytest.param("ete", "été", id="accents-count"),
        pytest.param("اكل", "أكل", id="hamza-counts"),
        pytest.param("ısı", "isi", id="dotless-i"),
        pytest.param("col·lecció", "collecció", id="middle-dot-counts"),
    ],
)
def test_other_words_do_not(one: str, other: str) -> None:
    assert Lexicon(frozenset({one}))(other) == 0.0


# --- the lexicon ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "text", "counted", "words"),
    [
        pytest.param({"पानी"}, "पानी नीला है और पानी गहरा है", 2, 7, id="hindi"),
        pytest.param({"海", "水"}, "大海很蓝，海水很深。我爱海。", 4, 11, id="chinese"),
        pytest.param({"大海", "海"}, "大海很蓝，海水", 2, 6, id="the-longer-first"),
        pytest.param({"海水"}, "海，水。海水", 1, 4, id="not-across-a-stop"),
        pytest.param({"海海"}, "海海海海海", 2, 5, id="no-character-twice"),
        pytest.param({"海"}, "海は青い。海が好き。", 2, 8, id="japanese"),
        pytest.param({"ทะเล"}, "ฉันรักทะเลสีฟ้า", 1, 5, id="thai"),
        pytest.param({"ทะเลสีฟ้า"}, "ฉันรักทะเลสีฟ้า", 1, 5, id="thai-of-several"),
        pytest.param({"été"}, nfd("un été et un autre été"), 2, 6, id="french-nfd"),
    ],
)
def test_a_lexicon_counts_as_a_reader_does(
    entries: set[str], text: str, counted: int, words: int
) -> None:
    lexicon = Lexicon(frozenset(entries))
    assert len(words_of(text)) == words
    assert lexicon(text) == pytest.approx(100 * counted / words)
    assert len(lexicon.hits(text)) == counted


def test_hits_are_places_in_the_text_as_given() -> None:
    text = nfd("un \u00e9te\u00e9, 大海 wa\u00adter, ทะเล")
    entries = {"大海", "water", "ทะเล"}
    hits = Lexicon(frozenset(entries)).hits(text)
    assert [text[start:stop] for start, stop in hits] == ["大海", "wa\u00adter", "ทะเล"]
    assert Lexicon(frozenset({"海"})).hits("大海") == (Hit(1, 2),)


@pytest.mark.parametrize(
    "entry", ["deep sea", "", " sea", "sea.", "a1b", "-sea", "3", "大 海", "\u0301", "海。"]
)
def test_an_entry_is_one_word(entry: str) -> None:
    with pytest.raises(UsageError, match="expected one whole word"):
        Lexicon(frozenset({"good", entry}))


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        pytest.param("ᥖᥭᥰ", "TAI LE LETTER", id="tai-le"),
        pytest.param("ᨲᩫ᩶ᩅ", "TAI THAM LETTER", id="tai-tham"),
        pytest.param("ᬩᬮᬶ", "BALINESE LETTER", id="balinese"),
        pytest.param("ꦗꦮ", "JAVANESE LETTER", id="javanese"),
    ],
)
def test_a_script_without_spaces_or_dictionary_is_refused_by_name(entry: str, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}.* without spaces"):
        Lexicon(frozenset({entry}))
    assert (unknown_script(entry) or "").startswith(name)


def test_what_has_a_dictionary_is_known() -> None:
    assert unknown_script("ทะเล ລາວ ខ្មែរ မြန်မာ 海 うみ sea") is None


def test_a_long_text_of_marks_is_read_in_one_go() -> None:
    """No pattern may try the same stretch in many ways."""
    for text in ("e" + "\u0301" * 200_000, "\uff9e" * 100_000 + "!", "a-" * 100_000 + "é"):
        assert len(placed_words(text)) <= 1
