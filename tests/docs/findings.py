"""What a page of findings says, made from the evidence of its runs and held to it.

`PYTHONPATH=. python -m tests.docs.findings docs/findings/smollm2.json RUN [RUN ...]` keeps of each
run's evidence what a page quotes, and prints the rows for the page; of a cell that stands in two
runs, the one with more pairs. `rows` are what the page must have.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs/findings"


def kept(runs: list[Path]) -> list[dict[str, Any]]:
    """The cells of some runs, a line of the page each."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        for one in json.loads((run / "evidence.json").read_text())["evidence"]:
            key = one["claim"], one["cell"]
            if key not in found or found[key]["pairs"] < one["pairs"]:
                found[key] = _kept(one)
    return list(found.values())


def _kept(one: dict[str, Any]) -> dict[str, Any]:
    part = one["parts"][0]
    return {
        **{name: one[name] for name in ("claim", "cell", "model", "pairs", "verdict", "reason")},
        **{name: one[name] for name in ("estimate", "interval", "level", "says", "pairs_needed")},
        "outcome": part["outcome"]["name"],
        "estimand": part["estimand"],
        "region": [part["region"]["low"], part["region"]["high"]],
        "patch": one["patch"]["text"] if one["patch"] else "",
        "means": part["means"],
        "controls": {arm: told["transfer"] for arm, told in part["controls"].items()},
        "weights": one["provenance"]["weights_sha"],
        "max_new_tokens": one["provenance"]["sampling"]["max_new_tokens"],
        "dtype": one["provenance"]["dtype"],
    }


def rows(page: Path) -> Iterator[str]:
    """The rows that quote a run, as they must stand."""
    for one in json.loads(page.with_suffix(".json").read_text()):
        yield row(one)


def row(one: dict[str, Any]) -> str:
    """claim, cell | estimate | interval | unrelated base, noise | pairs | verdict."""
    number = "-" if one["estimate"] is None else f"{one['estimate']:.3f}"
    interval = "-"
    if one["interval"] is not None:
        low, high = one["interval"]
        interval = f"[{low:.3f}, {high:.3f}]"
    controls = ", ".join(
        f"{one['controls'][arm]:.3f}" if arm in one["controls"] else "-"
        for arm in ("unrelated-base", "noise")
    )
    word = one["verdict"]
    if word == "invalid":
        word = f"invalid: {one['reason'].split(':')[0]}"
    elif word == "inconclusive" and one["pairs_needed"]:
        word = f"inconclusive: {one['pairs_needed']} pairs would decide"
    return (
        f"| `{one['claim']}` | `{one['cell']}` | {number} | {interval} | {controls} | "
        f"{one['pairs']} | {word} |"
    )


if __name__ == "__main__":
    target, *runs = map(Path, sys.argv[1:])
    cells = kept(runs)
    target.write_text(json.dumps(cells, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\n".join(map(row, cells)))
