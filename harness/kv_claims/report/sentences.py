"""What evidence says in a line: its interval, its region, its parts, what did not pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def unpassed_text(one: dict[str, Any], most_not_run: int | None = None) -> str:
    """The checks of a cell that did not pass, by name: `failed: weak-ratio; not run: self-patch`.

    most_not_run: names of those that were not run, the others being counted; None for all.
    """
    failed, not_run = (
        [check["name"] for check in one["checks"] if check["passed"] is found]
        for found in (False, None)
    )
    if most_not_run is not None and (more := len(not_run) - most_not_run) > 0:
        not_run = [*not_run[:most_not_run], f"{more} more"]
    named = (("failed", failed), ("not run", not_run))
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in named if names)


def interval_text(one: Mapping[str, Any]) -> str:
    """`[low, high] 95%`, or a dash."""
    if one["interval"] is None:
        return "-"
    low, high = one["interval"]
    # Levels of families are no whole percents.
    return f"[{low:.3f}, {high:.3f}] {100 * one['level']:.3g}%"


def region_text(region: Mapping[str, Any]) -> str:
    """The claimed region, `[0.7, 0.9]` or `<= 0.12`."""
    low, high = region["low"], region["high"]
    if low is None:
        return f"<= {high:g}"
    return f">= {low:g}" if high is None else f"[{low:g}, {high:g}]"


def part_text(part: Mapping[str, Any]) -> str:
    """What a part says: `rv transfer >= 0.5`, with `given` before what is only a premise."""
    given = "given " if part["given"] else ""
    said = f"{part['outcome']['name']} {part['estimand']} {region_text(part['region'])}"
    return given + said


def asserted_text(one: Mapping[str, Any]) -> str:
    """What a claim says, in short: its region alone where it is the usual one."""
    parts = one["parts"]
    usual = (parts[0]["outcome"]["name"], parts[0]["estimand"]) == ("behavior", "transfer")
    if len(parts) == 1 and usual:
        return region_text(parts[0]["region"])
    return "; ".join(part_text(part) for part in parts)
