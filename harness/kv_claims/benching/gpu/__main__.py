"""`make gpu`: runs the steps of `kv_claims.benching.gpu.steps`. Needs no installed project."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kv_claims.benching.gpu import record
from kv_claims.benching.gpu.brought import unpack
from kv_claims.benching.gpu.record import Record
from kv_claims.benching.gpu.run import Asked, run
from kv_claims.benching.gpu.steps import ROOT, STEPS, chosen
from kv_claims.errors import UsageError
from kv_claims.plain import say

MINUTES = 25.0


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every step was answered as wanted or skipped by name, 1 else, 2 for bad usage."""
    parser = argparse.ArgumentParser(prog="python -m kv_claims.benching.gpu", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=ROOT / "reports/gpu", metavar="DIR", help="%(default)s")
    add("--pack", type=Path, default=ROOT / "gpu-pack", metavar="DIR", help="what was brought")
    add("--device", default=None, help="default: cuda, with --small cpu")
    add("--small", action="store_true", help="try every step, on any device, in a few minutes")
    add("--model", default=None, metavar="DIR", help="a real model's folder, for the step claims")
    add("--minutes", type=float, default=MINUTES, metavar="N", help="for all (%(default)s)")
    add("--only", default="", metavar="A,B", help="these steps")
    add("--skip", default="", metavar="A,B", help="all steps but these")
    add("--from", dest="first", default=None, metavar="A", help="this step and those after it")
    add("--rest", action="store_true", help="those without an answer in the folder")
    add("--list", action="store_true", help="list the steps")
    asked = parser.parse_args(arguments)
    try:
        return _run(asked)
    except UsageError as error:
        say(f"python -m kv_claims.benching.gpu: {error}", sys.stderr)
        return 2


def _run(asked: argparse.Namespace) -> int:
    if asked.list:
        for step in STEPS:
            say(f"{step.name:18} {step.asks} (at most {step.most} s)")
        return 0
    if not asked.minutes > 0:
        raise UsageError(f"--minutes {asked.minutes}: expected more than 0")
    steps = chosen(_names(asked.only), _names(asked.skip), asked.first)
    out = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if asked.rest:
        kept = Record(out)
        steps = [step for step in steps if kept.state(step.name) not in record.ENDED]
    brought = unpack(asked.pack.resolve(), out)
    paths = (*([brought.site] if brought.site else []), ROOT, ROOT / "harness")
    device = asked.device or ("cpu" if asked.small else "cuda")
    return run(
        steps,
        Asked(out, device, asked.small, asked.model, asked.minutes, paths),
        said=f"{', '.join(step.name for step in steps) or 'no step'} on {device}; {brought.said}",
    )


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    raise SystemExit(main())
