"""Characters that cannot be seen are shown; all others stay."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report.plain import visible

HIDDEN = {
    "\u202e": "[U+202E]",
    "\u2066": "[U+2066]",
    "\u200b": "[U+200B]",
    "\ufeff": "[U+FEFF]",
    "\x00": "[U+0000]",
    "\x1b": "[U+001B]",
    "\r": "[U+000D]",
    "\x85": "[U+0085]",
    "\u2028": "[U+2028]",
    "\U000e0041": "[U+E0041]",
}


@pytest.mark.parametrize(("hidden", "shown"), HIDDEN.items(), ids=HIDDEN.values())
def test_a_hidden_character_is_shown_by_its_number(hidden: str, shown: str) -> None:
    assert visible(f"a{hidden}b") == f"a{shown}b"


@pytest.mark.parametrize(
    "text",
    [
        "a\nb\tc",
        "שלום עולם",
        "مرحبا",
        "你好",
        "👩\u200d🔬",
        "e\u0301",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "<b> & 'c'",
        "",
    ],
)
def test_text_of_any_script_stays(text: str) -> None:
    assert visible(text) == text


def test_line_ends_of_windows_are_line_ends() -> None:
    assert visible("a\r\nb") == "a\nb"


def test_a_pile_of_marks_is_cut() -> None:
    assert visible("e" + "\u0301" * 60) == "e" + "\u0301" * 3


@given(st.text())
def test_nothing_that_controls_is_left(text: str) -> None:
    shown = visible(text)
    assert visible(shown) == shown
    left = {unicodedata.bidirectional(character) for character in shown}
    assert not left & {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"]
