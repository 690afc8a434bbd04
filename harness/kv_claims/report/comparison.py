"""Two compared runs, as Markdown that can be read in a terminal, and as plain JSON."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from kv_claims.evidence.claim_edits import Change
from kv_claims.evidence.compare import ComparedCell, ComparedPart, Comparison, Side
from kv_claims.evidence.cost import incomplete_text
from kv_claims.evidence.stored import Key, StoredRun
from kv_claims.judging.fieller import Interval
from kv_claims.plain import line_of, number
from kv_claims.report.markup import code

Row = tuple[str, str, str, str, str, str, str]
_HEAD: Row = ("cell", "run", "says", "estimate", "interval", "pairs", "tokens equal")
_MARKUP = re.compile(
    r"([\\`*|~$]|<(?=[A-Za-z/!?])|&(?=[#\w]+;)|\](?=[(\[:])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))"
)
_LONGEST = 60
"""Characters of a value that is shown; JSON has all of them."""


def render_comparison(found: Comparison, first: StoredRun, second: StoredRun) -> str:
    """The comparison as Markdown."""
    return "\n".join(_lines(found, first, second)) + "\n"


def comparison_json(found: Comparison, first: StoredRun, second: StoredRun) -> dict[str, Any]:
    """The comparison as an object of JSON, every number and hash whole."""
    return {
        "schema": 1,
        "runs": {"A": str(first.folder), "B": str(second.folder)},
        "amiss": {run: _amiss(stored) for run, stored in _by_run((first, second))},
        "margin": found.margin,
        "holds": found.holds,
        "cells": [_cell_json(cell) for cell in found.cells],
        "only": {run: [key._asdict() for key in keys] for run, keys in _by_run(found.only)},
        "facts": [change._asdict() for change in found.facts],
        "provenance": {
            model: [change._asdict() for change in changes]
            for model, changes in found.provenance.items()
        },
    }


def _lines(found: Comparison, first: StoredRun, second: StoredRun) -> Iterator[str]:
    yield from ("# Two runs compared", "")
    for run, stored in _by_run((first, second)):
        yield "; ".join([f"- {run}: {code(str(stored.folder))}", *_amiss(stored)])
    yield f"- {_counted(found)}"
    yield f"- B - A: on what both ran, at 95%; margin {found.margin:g} of source - base"
    yield "- tokens equal: trials of all arms with the same token ids in both"
    for (claim, model), cells in groupby(
        found.cells, lambda cell: (cell.key.claim, cell.key.model)
    ):
        yield from _claim(claim, model, list(cells))
    yield from _stated(found)
    yield from _provenance(found)
    if any(found.only):
        yield from ("", "## In one run only", "")
        for run, keys in _by_run(found.only):
            yield from (f"- {run}: {_plain(str(key))}" for key in keys)


def _amiss(stored: StoredRun) -> list[str]:
    """What is amiss with a run as a whole, in words."""
    return [told for told in (incomplete_text(stored.run), str(stored.integrity)) if told]


def _counted(found: Comparison) -> str:
    n = len(found.cells)
    changed = sum(cell.verdict_changed for cell in found.cells)
    parts = [part for cell in found.cells for part in cell.parts]
    words = Counter(_word(part) for part in parts)
    told = ", ".join(f"{words[word]} {word}" for word in sorted(words))
    return (
        f"{n} {'cell' if n == 1 else 'cells'} in both: {changed} with another verdict; "
        f"estimates: {told or 'none in both'}"
    )


def _claim(claim: str, model: str, cells: Sequence[ComparedCell]) -> Iterator[str]:
    yield from ("", f"## {_plain(claim)} on {_plain(model)}", "")
    rows: list[Row] = []
    notes: dict[str, list[str]] = {}
    for cell in cells:
        several = len(cell.parts) != 1
        if several:
            rows += _cell_rows(cell)
        for part in cell.parts:
            name = f"- {_part_name(part)}" if several else cell.key.cell
            rows += _part_rows(name, part, "" if several else _tokens(cell))
            where = f"{cell.key.cell}, {_part_name(part)}" if several else cell.key.cell
            for note in _part_notes(part):
                notes.setdefault(note, []).append(where)
    yield from _table(_HEAD, rows)
    if notes:
        yield ""
        for note, places in notes.items():
            yield f"- {_plain('; '.join(places))}: {_plain(note)}"


def _cell_rows(cell: ComparedCell) -> list[Row]:
    """A cell of several parts: its own words, and its tokens."""
    a, b = (_strong(verdict, cell.verdicts) for verdict in cell.verdicts)
    blank = ("", "", "")
    return [
        (cell.key.cell, "A", a, *blank, ""),
        ("", "B", b, *blank, _tokens(cell)),
    ]


def _part_rows(name: str, part: ComparedPart, tokens: str) -> list[Row]:
    """A part in A, in B, and the difference."""
    verdicts = [side.verdict for side in part.sides]
    rows: list[Row] = [
        (
            name if run == "A" else "",
            run,
            _strong(side.verdict, verdicts),
            number(side.estimate, 3),
            _side_interval(side),
            str(side.pairs),
            "",
        )
        for run, side in _by_run(part.sides)
    ]
    found, word = part.difference, _word(part)
    word = f"**{word}**" if word == "moved" else word
    value = number(found.value, 3, sign=True) if found else "-"
    shown = f"{_interval(found.interval)} 95%" if found and found.interval else "-"
    pairs = str(part.pairs) if found else "-"
    return [*rows, ("", "B - A", word, value, shown, pairs, tokens)]


def _part_notes(part: ComparedPart) -> Iterator[str]:
    found = part.difference
    if part.why:
        yield part.why
    elif found and found.found != "same":
        yield f"{found.found}: {found.reason}"
    if any(part.only):
        told = f"left out: {part.only[0]} pairs that only A has, {part.only[1]} that only B has"
        if found and found.first is not None and found.second is not None:
            told += f"; in both A {found.first:.3f}, B {found.second:.3f}"
        yield told


def _tokens(cell: ComparedCell) -> str:
    n = sum(one.trials for one in cell.tokens.values())
    return f"{sum(one.equal for one in cell.tokens.values())} of {n}" if n else "-"


def _stated(found: Comparison) -> Iterator[str]:
    """What differs in the claims as stated; cells that differ alike are told once."""
    told: dict[tuple[str, str], list[str]] = {}
    for cell in found.cells:
        for change in cell.stated:
            told.setdefault((cell.key.claim, _change(change)), []).append(_where(cell))
        for run, edits in _by_run(cell.edited):
            for edit in edits:
                line = f"{run}, not as planned: {_plain(edit)}"
                told.setdefault((cell.key.claim, line), []).append(_where(cell))
    if told:
        yield from ("", "## What differs in the claims as stated", "")
    for (claim, line), cells in told.items():
        where = cells[0] if len(cells) == 1 else f"{len(cells)} cells"
        yield f"- {_plain(claim)}, {_plain(where)}: {line}"


def _where(cell: ComparedCell) -> str:
    return f"{cell.key.cell} on {cell.key.model}"


def _provenance(found: Comparison) -> Iterator[str]:
    yield from ("", "## What differs in how they were run", "")
    lines = [f"- {_change(change)}" for change in found.facts]
    alike: dict[tuple[str, ...], list[str]] = {}
    for model, changes in found.provenance.items():
        if changes:
            alike.setdefault(tuple(map(_change, changes)), []).append(model)
    for told, models in alike.items():
        lines += [f"- {_plain(', '.join(models))}: {line}" for line in told]
    yield from lines or ["Nothing that is recorded."]


def _change(change: Change) -> str:
    what, first, second = change
    return f"{_plain(what)} {_value(first)} -> {_value(second)}"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
    flat = " ".join(text.split())
    return _plain(flat if len(flat) <= _LONGEST else f"{flat[: _LONGEST - 3]}...")


def _plain(text: str) -> str:
    """Text that marks nothing up, and is to be read in a terminal too: regions keep brackets."""
    return _MARKUP.sub(r"\\\1", line_of(text))


def _word(part: ComparedPart) -> str:
    return part.difference.found if part.difference else "not compared"


def _part_name(part: ComparedPart) -> str:
    region = part.asserted.region
    given = "given " if part.given else ""
    return f"{given}{part.asserted.outcome} {part.asserted.estimand} {region}"


def _strong(verdict: str, both: Sequence[str]) -> str:
    word = _plain(verdict)
    return word if len(set(both)) == 1 else f"**{word}**"


def _side_interval(side: Side) -> str:
    if side.interval is None:
        return "-"
    return f"{_interval(Interval(*side.interval))} {100 * side.level:.4g}%"


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"[{interval.low:.3f}, {interval.high:.3f}]"


def _table(head: Row, rows: Sequence[Row]) -> Iterator[str]:
    """A Markdown table whose columns are as wide as what is in them."""
    cells = [[_plain(text) if n == 0 else text for n, text in enumerate(row)] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    for row in (head, ["-" * width for width in widths], *cells):
        padded = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        yield f"| {' | '.join(padded)} |"


def _by_run(both: tuple[Any, Any]) -> Iterator[tuple[str, Any]]:
    yield from zip("AB", both, strict=True)


def _cell_json(cell: ComparedCell) -> dict[str, Any]:
    return {
        **Key._asdict(cell.key),
        "verdicts": dict(_by_run(cell.verdicts)),
        "verdict_changed": cell.verdict_changed,
        "moved": cell.moved,
        "parts": [_part_json(part) for part in cell.parts],
        "tokens": {role: one._asdict() for role, one in cell.tokens.items()},
        "stated": [change._asdict() for change in cell.stated],
        "not_as_planned": {run: list(edits) for run, edits in _by_run(cell.edited)},
    }


def _part_json(part: ComparedPart) -> dict[str, Any]:
    region = part.asserted.region
    return {
        "outcome": part.asserted.outcome,
        "estimand": part.asserted.estimand,
        "region": {"low": region.low, "high": region.high},
        "given": part.given,
        "runs": {run: side._asdict() for run, side in _by_run(part.sides)},
        "difference": part.difference._asdict() if part.difference else None,
        "why": part.why,
        "pairs": part.pairs,
        "trials": part.trials,
        "pairs_left_out": dict(_by_run(part.only)),
    }
