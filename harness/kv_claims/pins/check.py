"""A fresh cell against its pin: whether anything moved, and what.

A verdict, a claim or prompts that differ are a change as they stand. Numbers are tested: the paired
difference of pair means, against a margin (`kv_claims.judging.paired`). Tokens must be the same to
the last where the fingerprint is; elsewhere, in half precision, and at a near tie, they are
reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from kv_claims.claims.claim import SAME_WITHIN, Part, Region
from kv_claims.evidence.claim_edits import stated_changes
from kv_claims.evidence.compare import paired_difference
from kv_claims.judging.estimand import NEEDED, Direction, direction_of
from kv_claims.pins.pin import BUDGET, FINGERPRINT, Pin, short_id
from kv_claims.run.tolerances import parts_by_rounding

_HALF = ("bfloat16", "float16")

Standing = Literal["as pinned", "moved", "undecided", "not compared", "recorded"]


@dataclass(frozen=True)
class Pinned:
    """How a cell stands to its pin.

    word: 'moved' where anything did; 'undecided' where the numbers are neither shown to be the same
    nor to have moved; 'not compared' where the run has another budget. changes: what moved, a
    sentence each. notes: what differs and does not decide.
    """

    word: Standing
    verdict: str
    estimate: float | None
    file: str
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "changes": list(self.changes), "notes": list(self.notes)}


def against(pin: Pin, fresh: Pin, seen: Sequence[pd.DataFrame | None], *, file: str) -> Pinned:
    """Hold a fresh cell against its pin.

    seen: for each part of the fresh cell, the rows it was judged on (columns as in `pin_of`, and
    `source_tokens_sha`, `base_tokens_sha`, by which pairs are clustered, and `margin` of each
    trial).
    """
    spent = [_differs(name, pin.setup, fresh.setup) for name in BUDGET]
    if told := [one for one in spent if one]:
        why = f"recorded on another budget ({'; '.join(told)})"
        return Pinned("not compared", pin.verdict, pin.estimate, file, notes=(why,))
    changes = [*_stated(pin, fresh), *_task(pin, fresh), *_verdicts(pin, fresh)]
    notes = [
        f"{name}: {_short(pin.setup.get(name))} -> {_short(fresh.setup.get(name))}"
        for name in FINGERPRINT
        if pin.setup.get(name) != fresh.setup.get(name)
    ]
    undecided: list[str] = []
    if fresh.arms and pin.pairs == fresh.pairs and pin.arms.keys() == fresh.arms.keys():
        moved, undecided = _numbers(pin, fresh, seen)
        changes += moved
        others, ties = _tokens(pin, fresh, seen)
        exact = not notes and fresh.setup.get("dtype") not in _HALF
        (changes if exact else notes).extend(others)
        notes += ties
        notes += undecided
    word: Standing = "moved" if changes else "undecided" if undecided else "as pinned"
    return Pinned(word, pin.verdict, pin.estimate, file, tuple(changes), tuple(notes))


def _short(value: Any) -> Any:
    """A hash by its first digits; anything else as it is."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else value


def _differs(name: str, pinned: Mapping[str, Any], fresh: Mapping[str, Any]) -> str | None:
    if pinned.get(name) == fresh.get(name):
        return None
    return f"{name} {pinned.get(name)}, here {fresh.get(name)}"


def _stated(pin: Pin, fresh: Pin) -> Iterator[str]:
    """What was edited in the claim."""
    one, other = (
        {"plan": side.plan, "multiplicity": {"alpha": side.plan["alpha"]}} for side in (pin, fresh)
    )
    stated = list(stated_changes(one, other))
    for what, first, second in stated:
        yield f"the claim was edited: {what}: {first} -> {second}"
    if pin.arms and fresh.arms and not stated:
        for role in dict.fromkeys((*pin.arms, *fresh.arms)):
            before, now = (
                side.arms[role].arm if role in side.arms else "none" for side in (pin, fresh)
            )
            if before != now:
                yield f"arm {role} is another, though the claim asks the same: {before} -> {now}"


def _task(pin: Pin, fresh: Pin) -> Iterator[str]:
    """What was edited in the task: its prompts, or its scorer and limits."""
    if pin.pairs and fresh.pairs and pin.pairs != fresh.pairs:
        same = set(pin.pairs) & set(fresh.pairs)
        if len(same) < min(len(pin.pairs), len(fresh.pairs)):
            yield f"prompts: {len(same)} of {len(pin.pairs)} pinned pairs are among those run"
        elif len(pin.pairs) != len(fresh.pairs):
            yield f"pairs until it was decided: {len(pin.pairs)} -> {len(fresh.pairs)}"
        else:
            yield "prompts: the same pairs in another order"
    elif pin.setup["task_sha"] != fresh.setup["task_sha"]:
        yield "the task was edited: prompts of pairs not run, its scorer or its limits"


def _verdicts(pin: Pin, fresh: Pin) -> Iterator[str]:
    if pin.verdict != fresh.verdict:
        yield f"verdict: {pin.verdict} -> {fresh.verdict} ({fresh.reason})"
    elif fresh.verdict == "invalid" and set(pin.failed) != set(fresh.failed):
        before, after = (", ".join(side.failed) or "no check" for side in (pin, fresh))
        yield f"invalid for another reason: {before} failed -> {after} failed"
    if len(pin.parts) > 1:
        kept = {_name(part): part for part in pin.parts}
        for part in fresh.parts:
            earlier = kept.get(_name(part))
            if earlier is not None and earlier["verdict"] != part["verdict"]:
                yield f"verdict of {_name(part)}: {earlier['verdict']} -> {part['verdict']}"


def _name(part: Mapping[str, Any]) -> str:
    """What a part is of; a claim has no two of one name."""
    return f"{'given ' if part['given'] else ''}{part['outcome']} {part['estimand']}"


def _numbers(
    pin: Pin, fresh: Pin, seen: Sequence[pd.DataFrame | None]
) -> tuple[list[str], list[str]]:
    """Parts whose estimate moved, and parts of which that is not decided."""
    moved, undecided = [], []
    kept = {_name(part): part for part in pin.parts}
    for part, table in zip(fresh.parts, seen, strict=True):
        before, arms = kept.get(_name(part)), NEEDED[part["estimand"]]
        if (
            table is None
            or before is None
            or not all(
                part["outcome"] in side.arms[role].scores for side in (pin, fresh) for role in arms
            )
        ):
            continue
        one, other = (_frame(side, part["outcome"], arms, table) for side in (pin, fresh))
        if one["score"].isna().any() or other["score"].isna().any():
            if not one["score"].equals(other["score"]):
                undecided.append(f"{_name(part)}: some pairs have no number")
            continue
        asserted = Part(part["outcome"], part["estimand"], Region(low=0.0))
        # A share that both have lies where its task says that it must, above the base or below.
        has_share = before["estimate"] is not None and part["estimate"] is not None
        direction: Direction = "either" if has_share else direction_of(asserted)
        found = paired_difference(one, other, asserted, SAME_WITHIN, direction)
        told = f"{_name(part)}: {found.reason}"
        # A run without a gap between source and base has no ratio to show.
        if has_share and found.interval:
            told += (
                f": {found.first:.3f} -> {found.second:.3f}, difference in "
                f"[{found.interval.low:.3f}, {found.interval.high:.3f}]"
            )
        if found.found == "moved":
            moved.append(told)
        elif found.found == "undecided":
            undecided.append(told)
    return moved, undecided


def _frame(pin: Pin, outcome: str, arms: Sequence[str], table: pd.DataFrame) -> pd.DataFrame:
    """Pair means as a table of one seed; prompts by hash, whatever a task calls them."""
    named = table.drop_duplicates("pair")
    prompts = named.set_index(named["pair"].map(short_id)).loc[list(pin.pairs)]
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "pair": list(pin.pairs),
                    "arm": role,
                    "seed": 0,
                    "score": list(pin.arms[role].scores[outcome]),
                    "source": prompts["source_tokens_sha"].to_numpy(),
                    "base": prompts["base_tokens_sha"].to_numpy(),
                    **({"cluster": prompts["cluster"].to_numpy()} if "cluster" in prompts else {}),
                }
            )
            for role in arms
        ],
        ignore_index=True,
    )


def _tokens(
    pin: Pin, fresh: Pin, seen: Sequence[pd.DataFrame | None]
) -> tuple[list[str], list[str]]:
    """Arms whose trials have other tokens: plainly, and by a near tie."""
    table = pd.concat([table for table in seen if table is not None])
    plainly, ties = [], []
    dtype = fresh.setup.get("dtype", "float32")
    for role, arm in fresh.arms.items():
        rows = table[table["arm"] == role].drop_duplicates(["pair", "seed"])
        margins = rows.sort_values(["pair_index", "seed"])["margin"]
        other = [
            margin
            for before, now, margin in zip(pin.arms[role].tokens, arm.tokens, margins, strict=True)
            if before != now
        ]
        told = f"tokens of {role}: {len(other)} of {len(arm.tokens)} trials have others"
        if other and parts_by_rounding(other, len(arm.tokens), dtype):
            ties.append(f"{told}, by a near tie")
        elif other:
            plainly.append(told)
    return plainly, ties
