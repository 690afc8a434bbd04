"""What a run says in the terminal: a verdict's letter and word, the progress bar, the table.

The table fits 80 columns; colors are pytest's own, and go where pytest's go.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from textwrap import wrap
from typing import Any

from tqdm import tqdm

from kv_claims.claims.claim import Claim
from kv_claims.evidence.cost import Cost, incomplete_text, span
from kv_claims.judging.result import WORDS
from kv_claims.plain import line_of, number
from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.settings import Settings
from kv_claims.report.published import summary_lines
from kv_claims.report.sentences import asserted_text, interval_text, unpassed_text
from kv_claims.report.shards import in_dispute

_LABEL = 30
"""Characters of a claim's bar that say what it is."""
_NOT_RUN = 3
"""Checks that were not run, as many as are named in the table."""
_WRAPPED: dict[str, Any] = {"width": 80, "initial_indent": "    ", "subsequent_indent": "      "}
_LETTERS = {"supported": "S", "refuted": "R", "inconclusive": "?", "invalid": "I"}
_COLORS = {"supported": "green", "refuted": "red", "inconclusive": "yellow", "invalid": "purple"}


def status(
    outcome: str, verdict: str, *, verified: bool = True
) -> tuple[str, str, tuple[str, dict[str, bool]]]:
    """Category (pytest's own), letter and colored word of a verdict for pytest's progress."""
    beside = [*([] if verified else ["not verified"]), *(["failed"] if outcome == "failed" else [])]
    word = verdict.upper() + (f" ({', '.join(beside)})" if beside else "")
    return outcome, _LETTERS[verdict], (word, {_COLORS[verdict]: True})


class Screen:
    """The terminal, by pytest's reporter: the one place where lines are written to it."""

    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter

    def line(self, text: str = "", **colors: bool) -> None:
        """Write a line, in which nothing is hidden whatever names and details it quotes."""
        self._reporter.write_line(line_of(text), **colors)


class Bar:
    """A bar of trials: those that were run make its rate, those that were found do not."""

    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar

    def __call__(self, n: int) -> None:
        """So many trials were run."""
        self._bar.update(n)

    def found(self, n: int) -> None:
        """So many were in the ledger, and took no time."""
        if self._bar.disable:
            return
        self._bar.initial += n
        self._bar.n += n
        self._bar.last_print_n += n
        self._bar.refresh()


@contextmanager
def progress_bar(label: str, total: int, *, quiet: bool, about: str = "") -> Iterator[Bar]:
    """A bar of a claim's trials, rate and time left; nothing when quiet or without a terminal.

    about: the same of the whole run, in words.
    """
    own = "{n_fmt}/{total_fmt} {rate_noinv_fmt}, {remaining} left"
    label = line_of(label)
    # Its end says most: the claim and the cell.
    short = label if len(label) <= _LABEL else f"...{label[3 - _LABEL :]}"
    with tqdm(
        total=total,
        desc=short,
        unit=" trials",
        bar_format=f"  {{desc}} {own}{' | ' if about else ''}{about}",
        file=sys.stderr,
        disable=True if quiet else None,
        leave=False,
        dynamic_ncols=True,
    ) as bar:
        yield Bar(bar)


def about_text(spent: Cost) -> str:
    """How far a whole run is: `12 of 216 cells, about 3:10 left`; empty before a cell ended."""
    left = spent.left()
    if left is None:
        return ""
    return f"{spent.ended} of {spent.cells} cells, about {span(left.seconds)} left"


class Lines:
    """How far a run is, as plain lines: for where no bar can be, every so often.

    every: seconds between lines.
    """

    def __init__(self, spent: Cost, every: float = 30.0) -> None:
        self._spent, self._every, self._last = spent, every, 0.0

    def due(self) -> str | None:
        """The line, if one is due."""
        spent, left = self._spent, self._spent.left()
        if left is None or spent.seconds - self._last < self._every:
            return None
        self._last = spent.seconds
        return (
            f"{about_text(spent)}; {spent.trials} of about {left.trials} trials, "
            f"{spent.trials_per_second:.0f} a second"
        )


def progress_line(config: Any, lines: Lines) -> None:
    """Write a line that is due; none under -q, nor on a terminal that has the bar."""
    distributed = getattr(config.option, "dist", "no") != "no"
    has_bar = sys.stderr.isatty() and not distributed
    if has_bar or config.get_verbosity() < 0:
        return
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None and (line := lines.due()) is not None:
        if distributed:  # there letters of several files share a line, and it is not known as one
            reporter.write("\n")
        else:
            reporter.ensure_newline()
        Screen(reporter).line(line)


def summary(reporter: Any, state: ClaimsSession) -> None:
    """The table of verdicts, one line a cell, and where the files are."""
    screen = Screen(reporter)
    reporter.section("claims", sep="=")
    for line, color in table(state.evidence):
        screen.line(line, **({color: True} if color else {}))
    found = Counter(one["verdict"] for one in state.evidence)
    if found:
        counted = ", ".join(f"{found[word]} {word}" for word in WORDS if found[word])
        screen.line()
        screen.line(f"verdicts: {counted}")
    disputed = [one for one in state.evidence if in_dispute(one)]
    if disputed:
        screen.line(f"{len(disputed)} of them {disputed[0]['reason']}", red=True)
    if n := sum(not one["verified"] for one in state.evidence):
        screen.line(f"* not verified: {n}, as some check was not run or the claim edited")
    for line in families_lines(state.families):
        screen.line(line)
    for line in pins_lines(state):
        screen.line(line)
    good = sum(one["passed"] for one in state.instrument)
    if state.instrument:
        screen.line(
            f"instrument checks: {good} of {len(state.instrument)} passed "
            "(full swap reproduces the source)"
        )
    for line in summary_lines(state.protocol):
        screen.line(line)
    if told := incomplete_text({"complete": state.is_complete, "cells": state.cells}):
        screen.line(told, red=True)
    out = state.settings.out
    if state.unwritten:
        for line in f"no file was written: {state.unwritten}".splitlines():
            screen.line(line, red=True)
        screen.line(
            f"what stands in {out} is of an earlier run, if any. The trials are in the ledger: the "
            "same command runs none of them again",
            red=True,
        )
    else:
        screen.line(f"evidence: {out}/evidence.json, report.html, report.md")


def collected(reporter: Any, claims: Sequence[Claim]) -> None:
    """What was collected, claim by claim: its sentence, its citation and what it asserts."""
    if not claims:
        return
    screen = Screen(reporter)
    reporter.section("claims", sep="=")
    cells = Counter(claim.id for claim in claims)
    for claim in {claim.id: claim for claim in claims}.values():
        n = cells[claim.id]
        screen.line(f"{claim.id} ({n} {'cell' if n == 1 else 'cells'})")
        asserted = [*map(str, claim.parts), *(f"given {part}" for part in claim.given)]
        for said in (f'"{claim.says}"', claim.cites, "; ".join(asserted)):
            for line in wrap(said, 76):
                screen.line(f"    {line}")


def pins_lines(state: ClaimsSession) -> list[str]:
    """How cells stand to their pins, what moved, and what `--claims-update` wrote."""
    pinned = [(one, one["pinned"]) for one in state.evidence if one["pinned"]]
    counted = Counter(pin["word"] for _, pin in pinned)
    lines = [f"pins: {', '.join(f'{n} {word}' for word, n in counted.items())}"] if counted else []
    for one, pin in pinned:
        if pin["word"] in ("moved", "undecided"):
            told = "; ".join(pin["changes"] or pin["notes"])
            lines.append(f"  {pin['word']}: {one['claim']}, cell {one['cell']}: {told}")
    other = {one["model"] for one, pin in pinned if any("weights_sha" in n for n in pin["notes"])}
    lines += [f"  the pins of {model} were recorded of other weights" for model in sorted(other)]
    held = {one["model"] for one, _ in pinned}
    read = sum(n for model, n in state.cost.read_by_model().items() if model in held)
    # Without --resume what was read is of this very run, by another worker.
    if read and state.settings.resume:
        lines.append(f"  {read} trials were read from the ledger, as they were run then")
    return [*lines, *state.pins.lines]


def families_lines(families: list[dict[str, Any]]) -> list[str]:
    """What verdicts in families of several tests are, and would be otherwise; of 80 columns."""
    several = [family for family in families if family["size"] > 1]
    if not several:
        return []

    def counted(how: str) -> str:
        found = sum((Counter(family["words"][how]) for family in several), Counter[str]())
        return ", ".join(f"{found[word]} {word}" for word in WORDS if found[word])

    cells, n = sum(family["judged"] for family in several), len(several)
    return [
        f"{cells} of them in {n} {'family' if n == 1 else 'families'} of several tests",
        f"  at their share: {counted('share')}",
        f"  by Holm:        {counted('holm')}",
        f"  alone at 0.05:  {counted('raw')}",
    ]


def table(evidence: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    """Lines of at most 80 columns, each with its color or None."""

    lines: list[tuple[str, str | None]] = []
    head = f"  {'cell':<17} {'verdict':<13} {'estimate':>8} {'interval':<22} {'pairs':<7} checks"
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in evidence:
        groups.setdefault((one["model"], one["claim"]), []).append(one)
    for (model, claim), cells in groups.items():
        if lines:
            lines.append(("", None))
        lines.append((line_of(f"{claim} {asserted_text(cells[0])} on {model}")[:80], None))
        lines.append((head, None))
        for one in cells:
            lines.append((row(one), _COLORS[one["verdict"]]))
            lines.extend((line, None) for line in wrap(unpassed_text(one, _NOT_RUN), **_WRAPPED))
    return lines


def row(one: dict[str, Any]) -> str:
    """One cell's line."""
    passed = sum(check["passed"] is True for check in one["checks"])
    size = f"{one['pairs']}x{one['seeds']}"
    return (
        f"  {_short(line_of(one['cell'])):<17} {_word(one):<13} {number(one['estimate'], 3):>8} "
        f"{interval_text(one):<22} {size:<7} {passed}/{len(one['checks'])}"
    )


def _word(one: dict[str, Any]) -> str:
    """The word of a verdict, starred where it is not verified."""
    word: str = one["verdict"].upper()
    return word if one["verified"] else f"{word}*"


def _short(cell: str) -> str:
    return cell if len(cell) <= 17 else f"{cell[:14]}..."


def replay_lines(state: ClaimsSession, cells: int) -> list[str]:
    """What a replay judges, and what it leaves out and why, before it starts."""
    source = state.replayed
    assert source is not None
    told = source.facts()["replay"]
    lines = [
        f"kv-claims: {_many(cells, 'cell')} judged again on the trials in {told['folder']}, no "
        f"model is run, evidence in {state.settings.out}"
    ]
    lines += [
        f"kv-claims: {_many(n, 'test')} deselected: {why}" for why, n in state.not_replayed.items()
    ]
    if told.get("edited"):
        lines.append(f"kv-claims: {told['edited']}; no verdict on it is verified")
    if told.get("unused_arms"):
        lines.append(f"kv-claims: arms of the table in no role: {', '.join(told['unused_arms'])}")
    if told["scored_by"]:
        lines.append(f"kv-claims: texts are scored again by {told['scored_by']['task']}")
    return lines


def describe(settings: Settings, cells: int, claims: Sequence[str]) -> str:
    """One line on what a run will spend, before it starts."""
    begin = f"kv-claims: {_many(cells, 'cell')} of {_many(len(claims), 'claim')} on"
    if not settings.models:
        return f"{begin} no model, evidence in {settings.out}"
    budget = settings.budget
    pairs = settings.pairs or max(budget.pairs, budget.planted_pairs)
    most = "" if settings.pairs else "up to "
    return (
        f"{begin} {_many(len(settings.models), 'model')}, profile {settings.profile} "
        f"({most}{_many(pairs, 'pair')} x {_many(settings.n_seeds, 'seed')} x "
        f"{_many(settings.sampling.max_new_tokens, 'token')})"
        f"{', prompts as chats' if settings.chat else ''}, evidence in {settings.out}"
    )


def _many(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
