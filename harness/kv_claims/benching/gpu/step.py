"""One step, in this process: `python -m kv_claims.benching.gpu.step MODULE:FUNCTION`. Run by `run`.

Findings are written as they come. What is printed, and the trace of what is raised, is its log.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from kv_claims.benching.gpu.record import plain
from kv_claims.benching.gpu.steps import Finding, Findings, Given
from kv_claims.files.atomic import replace
from kv_claims.plain import say


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m kv_claims.benching.gpu.step")
    parser.add_argument("does")
    parser.add_argument("--device", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--model")
    asked = parser.parse_args()
    module, _, function = asked.does.partition(":")
    find: Callable[[Given], Findings] = getattr(import_module(module), function)
    given = Given(asked.device, asked.small, asked.model, asked.folder, asked.seconds)
    found: list[Finding] = []
    for finding in find(given):
        found.append(finding)
        _write(asked.folder / "result.json", found)
        say("\n".join([f"== {finding.name}", *finding.lines]))


def _write(path: Path, found: list[Finding]) -> None:
    text = json.dumps(plain([one._asdict() for one in found]), allow_nan=False)
    replace(path, lambda beside: beside.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
