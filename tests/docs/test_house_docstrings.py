"""Docstrings of the house as reStructuredText."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.docs.pages import ROOT

Lines = list[str]


@pytest.fixture
def restructured(monkeypatch: pytest.MonkeyPatch) -> Callable[[Lines], Lines]:
    monkeypatch.syspath_prepend(str(ROOT / "docs/site"))
    monkeypatch.delitem(sys.modules, "house_docstrings", raising=False)
    from house_docstrings import restructured

    found: Callable[[Lines], Lines] = restructured
    return found


def test_an_entry_becomes_one_of_a_list(restructured: Callable[[Lines], Lines]) -> None:
    lines = ["One sentence.", "", "low, high: its ends,", "    in shares.", "margin: how far."]
    assert restructured(lines) == [
        "One sentence.", "",
        "", "- **low**, **high**: its ends,", "  in shares.",
        "", "- **margin**: how far.", "",
    ]  # fmt: skip


def test_what_follows_an_entry_that_has_ended_is_a_paragraph(
    restructured: Callable[[Lines], Lines],
) -> None:
    lines = ["margin: how far.", "Raises UsageError for a table."]
    assert restructured(lines) == [
        "",
        "- **margin**: how far.",
        "",
        "Raises UsageError for a table.",
        "",
    ]


def test_only_code_and_emphasis_are_markup(restructured: Callable[[Lines], Lines]) -> None:
    lines = ["`a*b` and c * d | e_, f_g: *a name* of pr@1"]
    assert restructured(lines) == [r"`a*b` and c \* d \| e\_, f_g: *a name* of pr\@1", ""]
