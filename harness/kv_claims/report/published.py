"""The replay of the published protocol, as lines of text; the Markdown table is in its template."""

from __future__ import annotations

from typing import Any

from kv_claims.plain import number

_HEAD = f"  {'defect turned off':<22} {'base':>7} {'source':>7} {'patched':>7} {'best':>7} "
_HEAD += f"{'delta':>8} {'transfer':>8}"


def summary_lines(protocol: list[dict[str, Any]]) -> list[str]:
    """A short table for each model, of at most 80 columns, and the seed's best cell."""
    lines: list[str] = []
    for one in protocol:
        lines.append(f"published protocol (no claim) on {one['model']}, {one['pairs']} pairs"[:80])
        lines.append(_HEAD)
        lines.extend(map(_line, one["rows"]))
        lines.append("")
    if protocol:
        sample = protocol[0]["sample"]
        lines += [f"the seed's best cell ({sample['cell']}, reported as {sample['reported']}):"]
        lines += [f"  {part}" for part in _parts(sample)]
    return lines


def scored_by(text: dict[str, Any]) -> str:
    """What a text scores, by which markers, and what it scores in words of a lexicon."""
    return ", ".join(_parts(text))


def counted(words: dict[str, int]) -> str:
    """Verdict words with their counts."""
    return ", ".join(f"{n} {word}" for word, n in words.items())


def signed(value: float | None) -> str:
    """A difference with its sign, or a dash."""
    return number(value, sign=True)


def _parts(text: dict[str, Any]) -> list[str]:
    repetition = f" ({text['bonus']:g} of it for repetition)" if text["bonus"] else ""
    by = "; ".join(map(_hit, text["hits"])) or "no marker"
    return [
        f"published score {text['published']:g}{repetition} by {by}",
        f"{text['lexicon']:.1f} lexicon words per 100 words ({text['lexicon_task']})",
    ]


def _hit(hit: dict[str, Any]) -> str:
    if hit["rule"] == "whole word":
        return f"{hit['marker']!r} as a word"
    return f"{hit['marker']!r} inside {', '.join(map(repr, hit['words']))}"


def _line(row: dict[str, Any]) -> str:
    numbers = (row["base"], row["source"], row["patched"], row["best"])
    shown = " ".join(f"{number(value):>7}" for value in numbers)
    name = row["turned_off"] or "(as published)"
    return f"  {name:<22} {shown} {signed(row['delta']):>8} {number(row['transfer']):>8}"
