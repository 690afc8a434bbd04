"""The table in the terminal: 80 columns, one row a cell, one table a claim and model."""

from __future__ import annotations

import io
from copy import deepcopy
from typing import Any

import pytest

from kv_claims.evidence.cost import Cost
from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.terminal import (
    WORDS,
    Lines,
    about_text,
    families_lines,
    progress_bar,
    row,
    status,
    summary,
    table,
)
from kv_claims.report.sentences import asserted_text, interval_text, region_text, unpassed_text


class Reporter:
    """What `summary` needs of pytest's terminal reporter."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def section(self, title: str, sep: str) -> None:
        self.lines.append(f"{sep} {title} {sep}")

    def write_line(self, line: str, **_colors: bool) -> None:
        self.lines.append(line)


@pytest.mark.parametrize("word", WORDS)
def test_a_verdict_is_shown_in_its_own_word_and_counted_as_pytest_has_it(word: str) -> None:
    for outcome in ("passed", "skipped", "failed"):
        category, letter, (shown, color) = status(outcome, word)
        assert category == outcome
        assert letter == {"inconclusive": "?"}.get(word, word[0].upper())
        assert shown == word.upper() + (" (failed)" if outcome == "failed" else "")
        assert len(color) == 1


def widest(one: dict[str, Any]) -> dict[str, Any]:
    """The same evidence with everything as wide as it comes."""
    return {
        **one,
        "claim": "a-claim-with-a-name-as-long-as-a-sentence" * 3,
        "cell": "L25+L27-w32-and-more",
        "verdict": "inconclusive",
        "estimate": -12.3456,
        "interval": [-12.3456, -10.1234],
        "pairs": 300,
        "seeds": 2,
    }


def test_no_line_of_the_table_is_wider_than_80(state: ClaimsSession) -> None:
    lines = [line for line, _ in table([*state.evidence, *map(widest, state.evidence)])]
    assert max(map(len, lines)) <= 80


def test_nor_of_a_claim_of_any_other_kind(every_kind: ClaimsSession) -> None:
    lines = [line for line, _ in table(every_kind.evidence)]
    assert max(map(len, lines)) <= 80
    titles = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    assert titles == list(dict.fromkeys(one["claim"] for one in every_kind.evidence))


def test_what_is_claimed_is_said_part_by_part(every_kind: ClaimsSession) -> None:
    said = {one["claim"]: asserted_text(one) for one in every_kind.evidence}
    assert said["at-most-12"] == "<= 0.12"
    assert said["order"] == "behavior difference >= 0"
    assert said["gap"] == "rv gap >= 0"
    assert said["both"] == (
        "behavior transfer [0.1, 0.9]; loglik gap >= 0; given behavior gap >= 0"
    )
    assert said["loglik"] == "loglik transfer [0.1, 0.9]"


def test_a_row_says_what_was_found(state: ClaimsSession) -> None:
    one = state.evidence[0]
    words = row(one).split()
    assert words[:2] == ["L25-w16", one["verdict"].upper()]
    assert words[2] == f"{one['estimate']:.3f}"
    assert "12x1" in words
    # Controls change none or one of the 12 pairs, which are too few to say that they change none.
    failed = [check["name"] for check in one["checks"] if check["passed"] is False]
    assert "control unrelated-base" in failed
    assert unpassed_text(one) == f"failed: {', '.join(failed)}"
    assert words[-1] == f"{len(one['checks']) - len(failed)}/{len(one['checks'])}"


def test_a_ratio_that_does_not_exist_is_a_dash() -> None:
    one = {
        "cell": "c",
        "verdict": "invalid",
        "verified": True,
        "estimate": None,
        "interval": None,
        "pairs": 3,
        "seeds": 1,
        "checks": [{"passed": False}, {"passed": None}, {"passed": True}],
    }
    assert row(one).split() == ["c", "INVALID", "-", "-", "3x1", "1/3"]
    assert interval_text(one) == "-"


def test_checks_that_did_not_pass_are_named_under_their_row(state: ClaimsSession) -> None:
    """Failed ones first, told apart from those that were not run; all of 80 columns."""
    checks = [
        {"name": "self-patch", "passed": None},
        {"name": "weak-ratio", "passed": False},
        {"name": "enough-pairs", "passed": True},
        {"name": "control noise", "passed": False},
        *({"name": f"check-number-{n}", "passed": None} for n in range(9)),
    ]
    one = {**state.evidence[0], "checks": checks}
    shown = [line for line, _ in table([one])][2:]
    assert shown[0].endswith("1/13")
    assert " ".join(line.strip() for line in shown[1:]) == (
        "failed: weak-ratio, control noise; not run: self-patch, check-number-0, check-number-1, "
        "7 more"
    )
    assert len(shown) > 2
    assert all(len(line) <= 80 and line.startswith("    ") for line in shown[1:])
    assert unpassed_text(one).endswith(", check-number-8")
    all_passed = {**one, "checks": [check for check in checks if check["passed"]]}
    assert len(table([all_passed])) == 3


@pytest.mark.parametrize("word", WORDS)
def test_what_is_not_verified_is_shown_so_wherever_the_word_is(
    word: str, state: ClaimsSession
) -> None:
    one = {**state.evidence[0], "verdict": word, "verified": False}
    assert row(one).split()[1] == f"{word.upper()}*"
    assert len(row(one)) <= 80
    for outcome in ("passed", "failed"):
        _, _, (shown, _) = status(outcome, word, verified=False)
        assert shown.startswith(f"{word.upper()} (not verified")
    reporter = Reporter()
    summary(reporter, ClaimsSession(state.settings, evidence=[one]))
    assert any(line.startswith("* not verified: 1,") for line in reporter.lines)


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [(0.7, 0.9, "[0.7, 0.9]"), (None, 0.12, "<= 0.12"), (0.5, None, ">= 0.5")],
    ids=["both", "at-most", "at-least"],
)
def test_a_region_is_shown_with_the_ends_it_has(
    low: float | None, high: float | None, shown: str
) -> None:
    assert region_text({"low": low, "high": high}) == shown


def test_a_claim_has_one_table_in_whatever_order_its_cells_came(state: ClaimsSession) -> None:
    again = deepcopy(state.evidence)
    for one in again:
        one["cell"] = "another"
    titles = [line for line, _ in table([*state.evidence, *again]) if " on planted:" in line]
    assert len(titles) == len(set(titles)) == 2


def test_the_summary_counts_verdicts_and_instrument_checks_apart(state: ClaimsSession) -> None:
    reporter = Reporter()
    summary(reporter, state)
    assert reporter.lines[0] == "= claims ="
    assert reporter.lines[-3:] == [
        "verdicts: 2 refuted",
        "instrument checks: 1 of 1 passed (full swap reproduces the source)",
        f"evidence: {state.settings.out}/evidence.json, report.html, report.md",
    ]


def test_a_failed_instrument_check_is_counted_as_failed(state: ClaimsSession) -> None:
    state.instrument[0]["passed"] = False
    reporter = Reporter()
    summary(reporter, state)
    assert "instrument checks: 0 of 1 passed (full swap reproduces the source)" in reporter.lines


def test_without_a_claim_no_verdicts_are_announced(state: ClaimsSession) -> None:
    state.evidence.clear()
    reporter = Reporter()
    summary(reporter, state)
    assert "verdicts: " not in reporter.lines


def family(size: int, judged: int, **words: int) -> dict[str, Any]:
    """A family as a run has it, the same words however it was judged."""
    return {"size": size, "judged": judged, "words": dict.fromkeys(("raw", "share", "holm"), words)}


def test_families_are_counted_together_three_ways() -> None:
    several = [
        family(8, 8, supported=3, invalid=5),
        family(2, 1, supported=1),
        # Of one test alone there is nothing to say.
        family(1, 1, refuted=1),
    ]
    several[0]["words"] = {**several[0]["words"], "holm": {"refuted": 1, "inconclusive": 7}}
    assert families_lines(several) == [
        "9 of them in 2 families of several tests",
        "  at their share: 4 supported, 5 invalid",
        "  by Holm:        1 supported, 1 refuted, 7 inconclusive",
        "  alone at 0.05:  4 supported, 5 invalid",
    ]
    assert families_lines(several[:1])[0] == "8 of them in 1 family of several tests"
    assert families_lines(several[2:]) == families_lines([]) == []


def test_thousands_of_every_word_fit_80_columns() -> None:
    lines = families_lines([family(9999, 39996, **dict.fromkeys(WORDS, 9999))])
    assert max(map(len, lines)) <= 80


def test_a_bar_without_a_terminal_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for quiet in (True, False):
        with progress_bar("trials", 3, quiet=quiet) as advance:
            advance(3)
    assert capfd.readouterr() == ("", "")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_how_far_a_run_is_is_said_once_it_is_known() -> None:
    spent = Cost(Clock(), cells=216)
    assert about_text(spent) == ""
    for _ in range(12):
        spent.add("m", run=200, read=0, seconds=1.0)
    spent.clock.now = 24.0  # type: ignore[attr-defined]
    assert about_text(spent) == "12 of 216 cells, about 6:48 left"


def test_plain_lines_come_every_so_often() -> None:
    clock = Clock()
    spent = Cost(clock, cells=10)
    lines = Lines(spent, every=30)
    said = []
    for _ in range(9):
        clock.now += 12
        spent.add("m", run=60, read=0, seconds=12.0)
        said.append(lines.due())
    told = [line for line in said if line]
    assert [said.index(line) for line in told] == [2, 5, 8]
    assert told[0] == "3 of 10 cells, about 1:24 left; 180 of about 600 trials, 5 a second"
    assert all(len(line) <= 80 for line in told)


@pytest.mark.parametrize("quiet", [False, True])
def test_trials_that_were_found_do_not_make_the_rate(
    quiet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    label = "planted:stored-at-layer kv-cache-transfers-80 L25-w32"
    with progress_bar(label, 400, quiet=quiet, about="1 of 8 cells, about 0:14 left") as bar:
        bar.found(390)
        bar(0)
    said = terminal.getvalue()
    assert ("...-cache-transfers-80 L25-w32 390/400" in said) is not quiet
    assert ("about 0:14 left" in said) is not quiet
    assert "390 trials/s" not in said
