"""Words of a stored run, read plainly: what is compared are sentences and their verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

Words = Mapping[tuple[str, str, str], Mapping[str, Any]]
"""Evidence by (claim, cell, model)."""


class Differing(NamedTuple):
    """A cell whose word is another in a second run; a verdict is None where there is no evidence.

    why: by run, what its verdict rests on.
    """

    cell: str
    verdicts: tuple[str | None, str | None]
    why: tuple[str, str]

    @property
    def lines(self) -> list[str]:
        return [
            f"{self.cell}: {self.verdicts[0]} | {self.verdicts[1]}",
            f"    {self.why[0]}",
            f"    {self.why[1]}",
        ]


def words_of(run: Path) -> Words:
    """The evidence of a run's folder; nothing where it has none."""
    path = run / "evidence.json"
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {(one["claim"], one["cell"], one["model"]): one for one in content["evidence"]}


def spent_of(run: Path) -> dict[str, Any]:
    """Seconds and trials of a run."""
    path = run / "evidence.json"
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return dict(content["run"].get("spent") or {})


def differing(first: Words, second: Words) -> Iterator[Differing]:
    for key in sorted({*first, *second}):
        one, other = first.get(key), second.get(key)
        verdicts = (_verdict(one), _verdict(other))
        if verdicts[0] != verdicts[1]:
            yield Differing(" / ".join(key), verdicts, (_why(one), _why(other)))


def _verdict(one: Mapping[str, Any] | None) -> str | None:
    return None if one is None else str(one["verdict"])


def _why(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "no evidence"
    failed = [
        f"{check['name']}: {check['detail']}" for check in one["checks"] if check["passed"] is False
    ]
    interval = one.get("interval")
    shown = f"estimate {one.get('estimate')} {interval} from {one.get('pairs')} pairs"
    return f"{shown}; expected {one.get('expected')}; failed: {'; '.join(failed) or 'no check'}"
