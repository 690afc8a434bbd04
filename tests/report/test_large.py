"""Reports of runs with very long texts: bounded by what is shown, whatever stands in the run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kv_claims.evidence.stored import StoredRun, load_run
from kv_claims.plain import LONGEST_SHOWN
from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.write import write_reports
from kv_claims.report.render import render_reports
from kv_claims.report.view.report import report_view
from kv_claims.report.view.texts import beginning
from kv_claims.tasks.words import words_of

LONG = 200_000


def with_texts(stored: StoredRun, text: str) -> StoredRun:
    """The run with another text in every trial and every example of its evidence."""
    evidence = {
        key: {**one, "texts": {**one["texts"], **dict.fromkeys(("base", "source"), text)}}
        for key, one in stored.evidence.items()
    }
    return replace(stored, evidence=evidence, trials=stored.trials.assign(text=text))


@pytest.mark.parametrize(
    "of",
    ["the sea and ", "x", "\x1b", "<b>", "`", "海", "\n# a\n"],
    ids=["words", "one-word", "hidden", "markup", "backticks", "chinese", "lines"],
)
def test_a_report_grows_with_what_is_shown_only(state: ClaimsSession, of: str) -> None:
    write_reports(state)
    stored = load_run(state.settings.out)
    short, long = (
        render_reports(with_texts(stored, (of * LONG)[:length])) for length in (LONGEST_SHOWN, LONG)
    )
    for name, report in long.items():
        assert len(report) < len(short[name]) + 5000, name
        assert "more characters" in report
        assert "trials.parquet" in report
        assert "more characters" not in short[name]


def test_the_count_of_what_is_left_out_is_right(state: ClaimsSession) -> None:
    write_reports(state)
    stored = with_texts(load_run(state.settings.out), "the old sea " * 10_000)
    (found, *_) = (one for model in report_view(stored).models for one in model.texts)
    for text in found.examples[0].texts:
        shown = "".join(piece.text for piece in text.pieces)
        assert len(shown) + text.left_out == 120_000
        assert text.repeats


def test_a_long_value_is_bounded_in_both_reports(state: ClaimsSession) -> None:
    for one in state.evidence:
        one["reason"] = "a reason " * 100_000
        one["checks"][0]["detail"] = "<" * 1_000_000
    write_reports(state)
    for name in ("report.html", "report.md"):
        text = (state.settings.out / name).read_text(encoding="utf-8")
        assert len(text) < 400_000, name
        assert "more characters" in text


@pytest.mark.parametrize("text", ["", "a b", "word " * 5000, "x" * 5000, "a\u3000b" * 3000])
def test_the_beginning_ends_with_a_word(text: str) -> None:
    shown = beginning(text)
    assert text.startswith(shown)
    assert len(shown) <= LONGEST_SHOWN
    if " " in text or len(text) <= LONGEST_SHOWN:
        assert words_of(shown) == words_of(text)[: len(words_of(shown))]
    assert len(shown) > min(len(text), LONGEST_SHOWN) - 10
