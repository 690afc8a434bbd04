"""Step *claims*: the seed's KV claims on a real model, on the device, with the CPU beside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kv_claims.benching.gpu.command import Started
from kv_claims.benching.gpu.evidence import spent_of, words_of
from kv_claims.benching.gpu.real_model import RealModel, real_model
from kv_claims.benching.gpu.steps import Finding, Findings, Given

FILE = "claims/test_kv_cache.py"
FEW_PAIRS = 20
"""Of the comparison with the CPU, which the whole budget would keep for long."""


class _Run(NamedTuple):
    """pairs: None for the default budget."""

    name: str
    device: str
    dtype: str
    pairs: int | None


def run(given: Given) -> Findings:
    model = real_model(given.model)
    yield Finding("model", None, [model.said], {"model": model.name})
    # Verdicts need 10 clusters.
    few = 10 if given.small else FEW_PAIRS
    runs = [
        _Run("bfloat16", given.device, "bfloat16", few if given.small else None),
        _Run("float32", given.device, "float32", few if given.small else None),
        _Run("float32, few pairs", given.device, "float32", few),
        _Run("float32 on the CPU, few pairs", "cpu", "float32", few),
    ]
    words: dict[str, dict[str, str]] = {}
    left = given.seconds - 20
    for number, one in enumerate(runs):
        finding, seconds = _of(one, model, given, left / (len(runs) - number))
        left -= seconds
        for cell, word in finding.data["words"].items():
            words.setdefault(cell, {})[one.name] = word
        yield finding
    yield Finding(
        "side by side",
        None,
        [f"{cell}: " + ", ".join(f"{n} {w}" for n, w in by.items()) for cell, by in words.items()],
        {"words": words},
    )


def _of(one: _Run, model: RealModel, given: Given, seconds: float) -> tuple[Finding, float]:
    folder = given.folder / one.name.replace(",", "").replace(" ", "-")
    options = ["--device", one.device, "--dtype", one.dtype]
    options += ["--pairs", str(one.pairs)] if one.pairs else []
    chosen = model.options
    if given.small:
        options += ["--max-new-tokens", "8"]
        chosen = [*_without_k(chosen), "-k", "w16 and L18"]
    ran, measured = measure(folder, [FILE, *options, *chosen], model.name, seconds)
    spent, words = spent_of(folder), words_of(folder)
    rate = spent.get("trials", 0) / max(spent.get("seconds", 0), 1e-9)
    lines = [
        f"{len(words)} verdicts; {spent.get('trials')} trials in {spent.get('seconds')} s, "
        f"{rate:.1f} a second; exit status {ran}",
        f"memory of the card {mib(measured.get('gpu_bytes'))} (reserved "
        f"{mib(measured.get('gpu_reserved_bytes'))}), of the host "
        f"{mib(measured.get('host_bytes'))}",
    ]
    data: dict[str, Any] = {
        **one._asdict(),
        **measured,
        "spent": spent,
        "trials_per_second": rate,
        "words": {f"{claim} {cell}": e["verdict"] for (claim, cell, _), e in words.items()},
    }
    # 1: some claim is refuted or undecided, which is an answer.
    return Finding(one.name, ran in (0, 1) and bool(words), lines, data), measured["seconds"]


def measure(
    folder: Path, arguments: Sequence[str], model: str, seconds: float
) -> tuple[int | None, dict[str, Any]]:
    """Claims in a process of their own, into a folder; exit status, and time and memory."""
    started = start(folder, arguments, model)
    return ended(folder, started, seconds)


def start(folder: Path, arguments: Sequence[str], model: str) -> Started:
    folder.mkdir(parents=True, exist_ok=True)
    _measured(folder).unlink(missing_ok=True)
    return Started(
        [
            *("-m", "kv_claims.benching.gpu.measured", "--to", str(_measured(folder)), "--"),
            *(*arguments, "--model", model, "--claims-out", str(folder), "--no-resume", "-q"),
            *("-p", "no:cacheprovider"),
        ]
    )


def ended(folder: Path, started: Started, seconds: float) -> tuple[int | None, dict[str, Any]]:
    ran = started.wait(seconds)
    path = _measured(folder)
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return ran.status, {**found, "seconds": ran.seconds}


def _measured(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.measured.json")


def _without_k(options: Sequence[str]) -> list[str]:
    """pytest takes one `-k`."""
    kept = list(options)
    if "-k" in kept:
        at = kept.index("-k")
        del kept[at : at + 2]
    return kept


def mib(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:.0f} MiB"
