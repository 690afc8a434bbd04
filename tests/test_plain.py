"""Characters that cannot be seen are shown; all others stay; and all that is said goes that way."""

from __future__ import annotations

import ast
import io
import pickle
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kv_claims
from kv_claims.errors import UsageError
from kv_claims.plain import LONGEST_LINE, cut, line_of, say, visible

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


# --- one line ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("an arm\x1b[2J\x1b[H", "an arm[U+001B][2J[U+001B][H"),
        ("a\nverdicts: 5 supported", "a verdicts: 5 supported"),
        ("a\r\n \tb", "a b"),
        ("a\u2028b\x85c", "a b c"),
        ("a\rb", "a b"),
        ("  indented", "  indented"),
        ("a\tb", "a b"),
        ("\x9b2J", "[U+009B]2J"),
        ("\u202etxet", "[U+202E]txet"),
    ],
)
def test_a_line_is_one_line_that_steers_nothing(text: str, line: str) -> None:
    assert line_of(text) == line
    assert str(UsageError(text)) == line


@pytest.mark.parametrize("of", ["x", "\x1b", "e\u0301", "\n", " \n", "\u202e ab"])
def test_a_line_is_bounded_and_says_what_is_left_out(of: str) -> None:
    shown = line_of("begin " + of * 1_000_000 + " end")
    assert len(shown) <= LONGEST_LINE
    assert shown.startswith("begin ")
    assert shown.endswith(" end")
    assert "more characters" in shown


def test_what_is_cut_has_its_length() -> None:
    assert cut("abc", 3) == "abc"
    shown = cut("a" * 500 + "b" * 500, 100)
    assert len(shown) == 100
    assert "[... 900 more characters ...]" in shown
    assert shown.startswith("aaa")
    assert shown.endswith("bbb")


@given(st.text() | st.text(alphabet="\n\r\t \x1b\u202e\u2028ab"))
def test_a_line_again_is_the_same_line(text: str) -> None:
    line = line_of(text)
    assert line_of(line) == line
    assert len(line.splitlines()) <= 1


def test_an_error_crosses_processes_as_it_is() -> None:
    error = UsageError("a\x1b[2Jb\nc")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "a[U+001B][2Jb c"


def test_what_is_said_has_its_lines() -> None:
    file = io.StringIO()
    say("a\nb\x1b[2J", file)
    assert file.getvalue() == "a\nb[U+001B][2J\n"


SAYING = {"print", "write_line"}
WHERE = {"plain.py": "print", "plugin/terminal.py": "write_line"}


def test_nothing_is_said_but_by_these() -> None:
    """Who prints past `say` or `Screen` may let a stored name steer the terminal."""
    root = Path(kv_claims.__file__).parent
    found = {}
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                on = ast.unparse(node.func)
                if name in SAYING or on.endswith(("stdout.write", "stderr.write")):
                    found.setdefault(str(path.relative_to(root)), set()).add(name)
    assert found == {where: {name} for where, name in WHERE.items()}
