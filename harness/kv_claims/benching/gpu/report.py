"""`gpu.md`: what the steps found, to be read. Drawn from the content of `gpu.json` alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kv_claims.benching.gpu.steps import STEPS

LINES = 60
"""Lines of a log that are shown where a step did not end well; `gpu.json` has more of them."""


def page(content: Mapping[str, Any]) -> str:
    """The whole page: a table of the steps, then each that was run."""
    return "\n".join(_lines(content)) + "\n"


def _lines(content: Mapping[str, Any]) -> Iterator[str]:
    steps = content["steps"]
    yield "# What was measured on a GPU"
    yield ""
    for call in content["calls"]:
        yield f"- {call['started']}: {call['said']}"
    yield ""
    if any(call.get("small") for call in content["calls"]):
        yield (
            "**Tried out with SMALL=1: these numbers say that the steps run, and nothing about a "
            "GPU at work.**"
        )
        yield ""
    yield "| step | question | state | seconds |"
    yield "|---|---|---|---|"
    for step in STEPS:
        found = steps.get(step.name, {})
        why = f" ({_cell(found['why'])})" if found.get("why") else ""
        seconds = f"{found['seconds']:.0f}" if "seconds" in found else ""
        yield (
            f"| {step.name} | {_cell(step.asks)} | {found.get('state', 'not run')}{why} "
            f"| {seconds} |"
        )
    for step in STEPS:
        if step.name in steps:
            yield from _step(step.name, step.asks, steps[step.name])


def _step(name: str, asks: str, found: Mapping[str, Any]) -> Iterator[str]:
    if not found.get("findings") and not found.get("tail"):
        return
    yield ""
    yield f"## {name}"
    yield ""
    yield asks
    for finding in found.get("findings", ()):
        good = {True: "as wanted", False: "NOT as wanted", None: ""}[finding["good"]]
        yield ""
        yield f"**{finding['name']}**" + (f": {good}" if good else "")
        if finding["lines"]:
            yield ""
            yield from _block(finding["lines"])
    if found.get("tail"):
        lines = found["tail"].splitlines()
        yield ""
        yield f"The end of its output ({found['log']}):"
        yield ""
        yield from _block(lines[-LINES:])


def _block(lines: list[str]) -> Iterator[str]:
    """Plain text as it stands, whatever is in it."""
    return iter(f"    {line}" for line in "\n".join(lines).splitlines())


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
