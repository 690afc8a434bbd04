"""Pin files: one a model and revision, under `claims/pins/`, in a form that reads well in a diff.

What cells share stands once: arms, pairs and setup by run, what a claim states by claim. Nothing is
written unless it is whole, and a file that cannot be read is never written over.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import UsageError
from harness.files import replace
from harness.judging.estimand import stands_in_table
from harness.judging.result import WORDS
from harness.pins.pin import BUDGET, DIGITS, FINGERPRINT, ArmPin, Pin, short_sha

SCHEMA = 1
FOLDER = Path("claims/pins")
_WIDTH = 160
_NO_MEAN = "-"
PART = ("outcome", "estimand", "given", "verdict", "estimate", "interval", "level")
SETUP = (*BUDGET, *FINGERPRINT, "task", "task_sha")
PLAN = (
    *("says", "cites", "parts", "given", "about", "margin", "family", "family_size", "looks"),
    *("patch", "versus", "alpha"),
)
"""What a pin has, whatever it is of."""
_OF_A_CELL = ("verdict", "reason", "failed", "parts")


class Place(NamedTuple):
    """Where a pin stands in its file."""

    claim: str
    cell: str

    def __str__(self) -> str:
        return f"{self.claim}, cell {self.cell}"


@dataclass(frozen=True)
class PinFile:
    """The pins of one model. path: of the file, which need not be there yet."""

    path: Path
    model: str
    revision: str | None
    pins: Mapping[Place, Pin] = field(default_factory=dict)

    def text(self) -> str:
        """The file's content; the same pins give the same bytes."""
        runs: dict[str, dict[str, Any]] = {}
        claims: dict[str, dict[str, Any]] = {}
        for place, pin in sorted(self.pins.items()):
            run = _run_of(runs, pin)
            arms = runs[run]["arms"]
            stated = {k: v for k, v in pin.plan.items() if k not in ("claim", "patch", "versus")}
            claim = claims.setdefault(
                place.claim, {"test": pin.test, "stated": stated, "cells": {}}
            )
            own = {
                name: value
                for name, value in pin.plan.items()
                if claim["stated"].get(name) != value and name != "claim"
            }
            claim["cells"][place.cell] = {
                **{name: getattr(pin, name) for name in _OF_A_CELL},
                "stated": own,
                "run": run,
                "pairs": len(pin.pairs),
                "arms": {role: _kept(arms, arm) for role, arm in pin.arms.items()},
            }
        content = {
            "schema": SCHEMA,
            "model": self.model,
            "revision": self.revision,
            "claims": claims,
            "runs": dict(sorted(runs.items())),
        }
        return _layout(content) + "\n"


def slug(model: str, revision: str | None) -> str:
    """A file's name for a model and the revision that was asked for.

    A folder goes by its last part, a hub id with `--` for `/`.
    """
    name = short_name(model).replace("/", "--")
    whole = name if revision is None else f"{name}@{revision}"
    return re.sub(r"[^\w.@-]", "_", whole)


def short_name(model: str) -> str:
    """A model's name on any machine: a folder's last part, else the name itself."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def load_pins(folder: Path, model: str, revision: str | None) -> PinFile:
    """The pins of a model; none where there is no file. Raises UsageError for a file that is none.

    folder: of pin files. model: a folder or a hub id, as the run was asked for it.
    """
    path = folder / f"{slug(model, revision)}.json"
    empty = PinFile(path, short_name(model), revision)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return empty
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error}), expected a pin file") from error
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}: no JSON ({error}), expected a pin file") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        got = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise UsageError(f"{path}: schema {got!r}, expected {SCHEMA}; move it away to pin anew")
    if (content.get("model"), content.get("revision")) != (empty.model, revision):
        raise UsageError(
            f"{path}: pins of model {content.get('model')!r}, revision "
            f"{content.get('revision')!r}; expected {empty.model!r}, {revision!r}"
        )
    return PinFile(path, empty.model, revision, _pins(content, path))


def save(file: PinFile) -> None:
    """Write a pin file whole or not at all."""
    file.path.parent.mkdir(parents=True, exist_ok=True)
    replace(file.path, lambda path: path.write_text(file.text(), encoding="utf-8"))


def _pins(content: Mapping[str, Any], path: Path) -> dict[Place, Pin]:
    pins = {}
    place: Place | None = None
    try:
        for claim, found in content["claims"].items():
            for cell, one in found["cells"].items():
                place = Place(claim, cell)
                pins[place] = _pin(content, place, found, one)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        where = f"{path}: {place}" if place else f"{path}"
        told = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"{where}: not what --claims-update writes ({told})") from error
    return pins


def _pin(
    content: Mapping[str, Any], place: Place, claim: Mapping[str, Any], one: Mapping[str, Any]
) -> Pin:
    run = content["runs"][one["run"]]
    n = int(one["pairs"])
    parts = tuple(dict(part) for part in one["parts"])
    if not parts:
        raise ValueError("no parts")
    for part in parts:
        _check_keys(part, PART, "a part")
    _check_keys(run, SETUP, "its run")
    plan = {"claim": place.claim, **claim["stated"], **one["stated"]}
    _check_keys(plan, PLAN, "what it states")
    arms = {
        role: _arm(run["arms"][name], name, _outcomes(role, parts))
        for role, name in one["arms"].items()
    }
    pairs = tuple(run["pair_ids"].split()[:n])
    if len(pairs) != n or one["verdict"] not in WORDS:
        raise ValueError(f"verdict {one['verdict']!r} of {len(pairs)} pairs, of {n} expected")
    for arm in arms.values():
        if len(arm.tokens) != n * run["seeds"] or any(len(s) != n for s in arm.scores.values()):
            raise ValueError(f"arm {arm.arm} has not one number for each of {n} pairs")
    return Pin(
        claim=place.claim,
        cell=place.cell,
        test=str(claim["test"]),
        verdict=str(one["verdict"]),
        reason=str(one["reason"]),
        failed=tuple(map(str, one["failed"])),
        parts=parts,
        pairs=pairs,
        arms=arms,
        setup={name: value for name, value in run.items() if name not in ("arms", "pair_ids")},
        plan=plan,
    )


def _run_of(runs: dict[str, dict[str, Any]], pin: Pin) -> str:
    """The name of the run that a pin is of: a hash of its setup."""
    name = short_sha(json.dumps(pin.setup, sort_keys=True), 8)
    run = runs.setdefault(name, {**pin.setup, "pair_ids": "", "arms": {}})
    run["pair_ids"] = max(run["pair_ids"], " ".join(pin.pairs), key=len)
    return name


def _kept(arms: dict[str, dict[str, str]], arm: ArmPin) -> str:
    """The name under which an arm is kept: its id; numbered where runs of it differ."""
    own = {
        "tokens": " ".join(arm.tokens),
        **{outcome: _numbers(means) for outcome, means in sorted(arm.scores.items())},
    }
    for number in count(1):
        name = arm.arm if number == 1 else f"{arm.arm} ({number})"
        kept = arms.setdefault(name, dict(own))
        # One run of an arm has many outcomes; another run of it, or fewer pairs, other tokens.
        if all(kept.get(what, value) == value for what, value in own.items()):
            kept.update(own)
            return name
    raise AssertionError("count ends never")


def _check_keys(found: Mapping[str, Any], wanted: Iterable[str], what: str) -> None:
    if missing := [name for name in wanted if name not in found]:
        raise ValueError(f"{what} has no {', '.join(missing)}")


def _outcomes(role: str, parts: Sequence[Mapping[str, Any]]) -> set[str]:
    """What is measured on a role in a cell; other cells of the arm may measure more."""
    return {part["outcome"] for part in parts if stands_in_table(role, part["estimand"])}


def _arm(kept: Mapping[str, str], name: str, outcomes: set[str]) -> ArmPin:
    scores = {
        outcome: tuple(math.nan if one == _NO_MEAN else float(one) for one in kept[outcome].split())
        for outcome in sorted(outcomes)
    }
    return ArmPin(re.sub(r" \(\d+\)$", "", name), tuple(kept["tokens"].split()), scores)


def _numbers(means: tuple[float, ...]) -> str:
    return " ".join(_NO_MEAN if math.isnan(mean) else f"{mean:.{DIGITS}g}" for mean in means)


def _layout(content: Any, indent: int = 0) -> str:
    """JSON with what fits a line on one, so that a diff shows what it is of."""
    line = json.dumps(content, ensure_ascii=False, allow_nan=False)
    flat = not isinstance(content, dict) or indent > 1
    if not isinstance(content, dict | list | tuple) or (flat and len(line) + indent <= _WIDTH):
        return line
    pad = " " * (indent + 1)
    if isinstance(content, dict):
        inner = [
            f"{json.dumps(name, ensure_ascii=False)}: {_layout(one, indent + 1)}"
            for name, one in content.items()
        ]
        return "{\n" + ",\n".join(pad + one for one in inner) + "\n" + " " * indent + "}"
    inner = [_layout(one, indent + 1) for one in content]
    return "[\n" + ",\n".join(pad + one for one in inner) + "\n" + " " * indent + "]"
