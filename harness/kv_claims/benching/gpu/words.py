"""Step *words*: planted models on the device and on the CPU, in each dtype: the same words?

What is true of a planted model is known exactly, so a word that differs is either rounding that the
dtype does not promise against, or a fault of the device's way. Both are shown with their reasons.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kv_claims.benching.gpu.command import Started, python, workers
from kv_claims.benching.gpu.evidence import differing, spent_of, words_of
from kv_claims.benching.gpu.steps import Finding, Findings, Given

DTYPES = ("float64", "float32", "bfloat16")
SMALL_DTYPES = ("float32", "bfloat16")
_TRIED = ("--model", "planted:stored-at-layer", "-k", "w16 and L18", "--pairs", "12")
SHOWN = 40


def run(given: Given) -> Findings:
    dtypes = SMALL_DTYPES if given.small else DTYPES
    # float64 is said to give the same tokens, so it comes first; each has its share of the time.
    for dtype in dtypes:
        yield _in(dtype, given, given.seconds / len(dtypes) - 20)


def _in(dtype: str, given: Given, seconds: float) -> Finding:
    folders = {place: given.folder / f"{place}-{dtype}" for place in ("cpu", "device")}
    devices = {"cpu": "cpu", "device": given.device}
    # Side by side: the one waits for the card, the other for the processor.
    runs = {
        place: Started(_claims(given, devices[place], dtype, folder))
        for place, folder in folders.items()
    }
    ran = {place: one.wait(seconds) for place, one in runs.items()}
    cpu, device = (words_of(folders[place]) for place in ("cpu", "device"))
    other = list(differing(cpu, device))
    lines = [
        f"{place}: {len(words_of(folder))} verdicts, {spent_of(folder).get('trials')} trials in "
        f"{ran[place].seconds:.0f} s, exit status {ran[place].status}"
        for place, folder in folders.items()
    ]
    lines.append(f"{len(other)} of {len({*cpu, *device})} cells have another word")
    for one in other[:SHOWN]:
        lines += one.lines
    data: dict[str, Any] = {
        "ran": {place: one._asdict() for place, one in ran.items()},
        "cells": len({*cpu, *device}),
        "differing": [one._asdict() for one in other],
    }
    compared = _compared(folders["cpu"], folders["device"], given.folder / f"compare-{dtype}")
    if compared is not None:
        cells = compared["cells"]
        moved = [cell for cell in cells if cell["moved"]]
        data |= {"compared": len(cells), "moved": len(moved)}
        lines.append(f"harness compare: {len(moved)} of {len(cells)} cells moved")
    there = bool(cpu) and cpu.keys() == device.keys()
    # bfloat16 promises no word; there it is a finding, not a fault.
    return Finding(dtype, there and (not other or dtype == "bfloat16"), lines, data)


def _claims(given: Given, device: str, dtype: str, out: Path) -> list[str]:
    options = ["-m", "pytest", "claims", "--claims-profile", "smoke", "--no-resume"]
    options += ["--device", device, "--dtype", dtype, "--claims-out", str(out)]
    options += ["-p", "no:cacheprovider", "-q"]
    if given.small:
        return [*options, *_TRIED, "--max-new-tokens", "10"]
    several = workers()
    return [*options, *several, *(["--dist", "loadgroup"] if several else [])]


def _compared(first: Path, second: Path, to: Path) -> dict[str, Any] | None:
    """What `harness compare` says; None where it refuses."""
    files = [to.with_suffix(".json"), to.with_suffix(".md")]
    for file in files:
        file.unlink(missing_ok=True)
    python(
        *("-m", "kv_claims", "compare", str(first), str(second)),
        *("--json", str(files[0]), "--out", str(files[1])),
        seconds=60,
    )
    if not files[0].is_file():
        return None
    return dict(json.loads(files[0].read_text(encoding="utf-8")))
