"""Pin files: one a model and revision, under `claims/pins/`, in a form that reads well in a diff.

What cells share stands once: arms, pairs and setup by run, what a claim states by claim. A model
has pins of each task apart: those of the first under `claims`, of others under `tasks`, by name.
Nothing is written unless it is whole, and a file that cannot be read is never written over.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, to_builtins

from kv_claims.claims.claim import Estimand
from kv_claims.errors import UsageError
from kv_claims.evidence.schema import OWN_TABLE, Interval, Plan
from kv_claims.files import atomic as files
from kv_claims.files.reading import Count, Number, listed, read_json, shown, typed, unquoted
from kv_claims.judging.estimand import stands_in_table
from kv_claims.judging.frame import LARGEST
from kv_claims.judging.result import Word
from kv_claims.pins.pin import DIGITS, ArmPin, Pin, short_sha

SCHEMA = 1
FOLDER = Path("claims/pins")
_WIDTH = 160
_NO_MEAN = "-"
_OF_A_MODEL = (
    *("max_new_tokens", "temperature", "torch", "transformers", "device", "hardware", "dtype"),
    *("threads", "batch_size", "weights_sha"),
)
_OF_A_CELL = ("verdict", "reason", "failed", "parts")


class KeptPart(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a cell, as `kv_claims.pins.pin.Pin` has it."""

    outcome: str
    estimand: Estimand
    given: bool
    verdict: Word
    estimate: Number | None
    interval: Interval | None
    level: Number


class KeptCell(msgspec.Struct, forbid_unknown_fields=True):
    """A cell. stated: what it states otherwise than its claim. run: the name of its run."""

    verdict: Word
    reason: str
    failed: list[str]
    parts: Annotated[list[KeptPart], Meta(min_length=1)]
    stated: dict[str, Any]
    run: str
    pairs: Count
    arms: dict[str, str]


class KeptClaim(msgspec.Struct, forbid_unknown_fields=True):
    """The cells of a claim, and what they state alike."""

    test: Annotated[str, Meta(pattern=r"^[^\0]*::[^\0]*$")]
    stated: dict[str, Any]
    cells: dict[str, KeptCell]


class KeptRun(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The setup of a run, the ids of its pairs, and its arms: by name, a line of tokens and a line
    of numbers for each outcome. None: what is not known of a table that a test made."""

    pairs: Count
    seeds: Count
    max_new_tokens: Count | None = None
    temperature: Number | None = None
    task: str
    task_sha: str
    torch: str | None = None
    transformers: str | None = None
    device: str | None = None
    hardware: str | None = None
    dtype: str | None = None
    threads: Count | None = None
    batch_size: Count | str | None = None
    weights_sha: str | None = None
    pair_ids: str
    arms: dict[str, dict[str, str]]


class KeptPlan(Plan):
    """What a claim and its cell state together."""

    alpha: Number


class Kept(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file."""

    schema: Literal[1]
    model: str
    revision: str | None
    claims: dict[str, KeptClaim]
    runs: dict[str, KeptRun]
    tasks: dict[str, dict[str, KeptClaim]] = {}


class Place(NamedTuple):
    """Where a pin stands in its file."""

    claim: str
    cell: str

    def __str__(self) -> str:
        return f"{self.claim}, cell {self.cell}"


Pins = Mapping[Place, Pin]


@dataclass(frozen=True)
class PinFile:
    """The pins of one model on one task. path: of the file, which need not be there yet.

    others: the pins of the model's other tasks, by task, which stay as they are.
    main: the task whose pins stand first; None where none does.
    """

    path: Path
    model: str
    revision: str | None
    pins: Pins = field(default_factory=dict)
    task: str | None = None
    others: Mapping[str, Pins] = field(default_factory=dict)
    main: str | None = None

    def text(self) -> str:
        """The file's content; the same pins give the same bytes."""
        runs: dict[str, dict[str, Any]] = {}
        tasks = {task: pins for task, pins in self.others.items() if pins}
        if self.pins:
            tasks[self.task or _task_of(self.pins)] = self.pins
        main = self.main if self.main in tasks else min(tasks, default=None)
        kept = {task: _claims_of(pins, runs) for task, pins in sorted(tasks.items())}
        content = {
            "schema": SCHEMA,
            "model": self.model,
            "revision": self.revision,
            "claims": kept.pop(main) if main is not None else {},
            **({"tasks": kept} if kept else {}),
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


def load_pins(folder: Path, model: str, revision: str | None, task: str | None = None) -> PinFile:
    """The pins of a model on a task; none where there is no file.

    folder: of pin files. model: a folder or a hub id, as the run was asked for it. task: its name;
    None for the one whose pins stand first.
    Raises UsageError for a file that is none.
    """
    path = folder / f"{slug(model, revision)}.json"
    empty = PinFile(path, short_name(model), revision, task=task)
    if not path.exists():
        return empty
    content = read_json(path, "a pin file")
    schema = content.get("schema") if isinstance(content, dict) else type(content).__name__
    if schema != SCHEMA:
        raise UsageError(
            f"{path}: schema {unquoted(repr(schema))}, expected {SCHEMA}; move it away to pin anew"
        )
    kept = typed(content, Kept, f"{path}: not what --claims-update writes")
    if (kept.model, kept.revision) != (empty.model, revision):
        raise UsageError(
            f"{path}: pins of model {shown(kept.model)}, revision "
            f"{unquoted(repr(kept.revision))}; expected {empty.model!r}, {revision!r}"
        )
    found = _pins(kept, path)
    main = next(iter(found), None)
    task = main if task is None else task
    own = found.pop(task, {}) if task is not None else {}
    return replace(empty, pins=own, task=task, others=found, main=main)


def save(file: PinFile) -> None:
    """Write a pin file whole or not at all."""
    file.path.parent.mkdir(parents=True, exist_ok=True)
    files.replace(file.path, lambda path: path.write_text(file.text(), encoding="utf-8"))


def _pins(kept: Kept, path: Path) -> dict[str, dict[Place, Pin]]:
    """The pins by task, that whose pins stand first among them the first."""
    found: dict[str, dict[Place, Pin]] = {}
    for under, claims in (("", kept.claims), *kept.tasks.items()):
        for claim, cells in claims.items():
            for cell, one in cells.cells.items():
                place = Place(claim, cell)
                where = f"{path}: {unquoted(str(place), 120)}: not what --claims-update writes"
                pin = _pin(kept, place, cells, one, where)
                task = pin.setup["task"]
                if under not in ("", task) or place in found.setdefault(task, {}):
                    raise UsageError(f"{where} (its run is of task {shown(task)})")
                found[task][place] = pin
    return found


def _pin(kept: Kept, place: Place, claim: KeptClaim, one: KeptCell, where: str) -> Pin:
    run, n = kept.runs.get(one.run), one.pairs
    if run is None:
        raise UsageError(f"{where} (no run {shown(one.run)})")
    missing = [name for name in _OF_A_MODEL if getattr(run, name) is None]
    if missing and run.task != OWN_TABLE:
        raise UsageError(f"{where} (its run has no {listed(missing)})")
    plan = typed({**claim.stated, **one.stated}, KeptPlan, f"{where}: stated")
    parts = tuple(to_builtins(part) for part in one.parts)
    arms = {}
    for role, name in one.arms.items():
        if (lines := run.arms.get(name)) is None:
            raise UsageError(f"{where} (no arm {shown(name)} in its run)")
        arms[role] = _arm(lines, name, _outcomes(role, parts), where)
    pairs = tuple(run.pair_ids.split()[:n])
    if len(pairs) != n:
        raise UsageError(f"{where} ({len(pairs)} pairs, {n} expected)")
    for arm in arms.values():
        if len(arm.tokens) != n * run.seeds or any(len(s) != n for s in arm.scores.values()):
            raise UsageError(
                f"{where} (arm {shown(arm.arm)} has not one number for each of {n} pairs)"
            )
    setup = to_builtins(run)
    return Pin(
        claim=place.claim,
        cell=place.cell,
        test=claim.test,
        verdict=one.verdict,
        reason=one.reason,
        failed=tuple(one.failed),
        parts=parts,
        pairs=pairs,
        arms=arms,
        setup={name: value for name, value in setup.items() if name not in ("arms", "pair_ids")},
        plan={"claim": place.claim, **{k: v for k, v in plan.items() if k != "claim"}},
    )


def _claims_of(pins: Pins, runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The claims of one task as they are written; what their runs share goes to `runs`."""
    claims: dict[str, dict[str, Any]] = {}
    for place, pin in sorted(pins.items()):
        run = _run_of(runs, pin)
        arms = runs[run]["arms"]
        stated = {k: v for k, v in pin.plan.items() if k not in ("claim", "patch", "versus")}
        claim = claims.setdefault(place.claim, {"test": pin.test, "stated": stated, "cells": {}})
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
    return claims


def _task_of(pins: Pins) -> str:
    """The task of some pins of one."""
    return str(next(iter(pins.values())).setup["task"])


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


def _outcomes(role: str, parts: Sequence[Mapping[str, Any]]) -> set[str]:
    """What is measured on a role in a cell; other cells of the arm may measure more."""
    return {part["outcome"] for part in parts if stands_in_table(role, part["estimand"])}


def _arm(kept: Mapping[str, str], name: str, outcomes: set[str], where: str) -> ArmPin:
    if missing := {"tokens", *outcomes} - kept.keys():
        raise UsageError(f"{where} (arm {shown(name)} has no {listed(sorted(missing))})")
    try:
        scores = {outcome: tuple(map(_mean, kept[outcome].split())) for outcome in sorted(outcomes)}
    except ValueError as error:
        raise UsageError(f"{where} (arm {shown(name)}: {unquoted(str(error))})") from error
    return ArmPin(re.sub(r" \(\d+\)$", "", name), tuple(kept["tokens"].split()), scores)


def _mean(text: str) -> float:
    """A mean as it is kept; NaN where there is none. Raises ValueError for what is none."""
    mean = math.nan if text == _NO_MEAN else float(text)
    if not (text == _NO_MEAN or abs(mean) <= LARGEST):
        raise ValueError(f"{text} is no mean of scores")
    return mean


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
