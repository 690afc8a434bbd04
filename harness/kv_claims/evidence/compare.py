"""Whether a finding moved between two runs: verdicts, paired differences, and what else differs.

Works on stored runs (`kv_claims.evidence.stored`); runs nothing, writes nothing. Runs are compared
on what both have: the same claim, cell and model, and in it the same pairs (an id is the hash of
two texts) and seeds. What either has alone is counted and named, never dropped in silence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from kv_claims.claims.claim import SAME_WITHIN, SHARES, Part
from kv_claims.claims.outcome import Outcome
from kv_claims.errors import UsageError
from kv_claims.evidence.claim_edits import Change, changes, edited, stated_changes
from kv_claims.evidence.schema import is_own_table
from kv_claims.evidence.stored import Key, StoredRun, part_of
from kv_claims.judging.checks import instrument_failures
from kv_claims.judging.estimand import (
    NEEDED,
    Contrast,
    Direction,
    contrast,
    direction_of,
    orientation,
)
from kv_claims.judging.frame import TOKENS, Grouping, by_tokens, clustering
from kv_claims.judging.paired import Difference, difference

RUN_FACTS = ("kv_claims", "profile", "pairs_asked", "seeds", "task_file", "chat")
"""Facts on a run as a whole that are compared; models, sampling and versions stand by model."""


class Side(NamedTuple):
    """A part as it stands in the evidence of one run. broken: instrument checks that failed."""

    verdict: str
    estimate: float | None
    interval: list[float] | None
    level: float
    pairs: int
    broken: str = ""


class Tokens(NamedTuple):
    """Token ids of one role on the pairs and seeds that both runs have.

    sha: by run, over (pair, seed, tokens), sorted.
    """

    trials: int
    equal: int
    sha: tuple[str, str]


@dataclass(frozen=True)
class ComparedPart:
    """One part of a cell. difference: None where only verdicts can be compared (`why`).

    pairs, trials: (pair, seed)s in both runs, and how many pairs they are of.
    only: pairs that only A, only B has.
    """

    asserted: Part
    given: bool
    sides: tuple[Side, Side]
    difference: Difference | None
    why: str = ""
    pairs: int = 0
    trials: int = 0
    only: tuple[int, int] = (0, 0)

    @property
    def verdict_changed(self) -> bool:
        return self.sides[0].verdict != self.sides[1].verdict

    @property
    def moved(self) -> bool:
        return self.difference is not None and self.difference.found == "moved"


@dataclass(frozen=True)
class ComparedCell:
    """One claim, cell and model in both runs.

    stated: what differs in the claim as it was stated. edited: by run, what in its evidence is not
    as planned. tokens: by role.
    """

    key: Key
    verdicts: tuple[str, str]
    parts: tuple[ComparedPart, ...]
    tokens: dict[str, Tokens]
    stated: tuple[Change, ...]
    edited: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def verdict_changed(self) -> bool:
        """Whether the claim's word, or that of a part, is another."""
        return self.verdicts[0] != self.verdicts[1] or any(p.verdict_changed for p in self.parts)

    @property
    def moved(self) -> bool:
        return any(part.moved for part in self.parts)


@dataclass(frozen=True)
class Comparison:
    """Two runs, compared. only: by run, evidence that the other has not.

    facts: what differs of the runs as a whole. provenance: of each model in both.
    """

    margin: float
    cells: tuple[ComparedCell, ...]
    only: tuple[tuple[Key, ...], tuple[Key, ...]]
    facts: tuple[Change, ...]
    provenance: dict[str, tuple[Change, ...]]

    @property
    def holds(self) -> bool:
        """Whether no verdict changed and nothing moved."""
        return not any(cell.verdict_changed or cell.moved for cell in self.cells)


def compare(first: StoredRun, second: StoredRun, margin: float = SAME_WITHIN) -> Comparison:
    """Compare two runs, A and B.

    margin: up to this share of source - base a difference does not matter.
    Raises UsageError for a margin out of its range, and where the runs have no cell in common.
    """
    if not 0 < margin < 1:
        raise UsageError(f"margin {margin:g}: expected above 0 and below 1")
    keys = [key for key in first.evidence if key in second.evidence]
    if not keys:
        raise UsageError(
            f"{first.folder} and {second.folder}: no claim, cell and model is in both; "
            f"{_models(first)} in the one, {_models(second)} in the other"
        )
    models = dict.fromkeys(key.model for key in keys)
    return Comparison(
        margin,
        tuple(_cell(first, second, key, margin) for key in keys),
        (_only(first, second), _only(second, first)),
        tuple(changes(_facts(first), _facts(second))),
        {model: tuple(_provenance(first, second, model)) for model in models},
    )


def paired_difference(
    first: pd.DataFrame,
    second: pd.DataFrame,
    part: Part,
    margin: float = SAME_WITHIN,
    direction: Direction | None = None,
) -> Difference:
    """The difference of a part's estimate between two tables of the same pairs and seeds, B - A.

    first, second: the part's arms, as `judge` takes them, with the same (pair, arm, seed)s. Pairs
    that share a source or a base are clustered; where they share both, both count. direction: where
    the source lies; None: as the part's outcome has it.
    """
    a, b = clustering(first), clustering(second)
    read = direction_of(part) if direction is None else direction
    contrasts = [_contrast(one, part, read) for one in (a, b)]
    return difference(*contrasts, is_ratio=part.estimand in SHARES, margin=margin, by=a.by)


def _contrast(grouping: Grouping, part: Part, direction: Direction) -> Contrast:
    sign = orientation(grouping.scores, direction)
    return contrast(grouping.scores, part.estimand, sign, grouping.sharing)


def _cell(first: StoredRun, second: StoredRun, key: Key, margin: float) -> ComparedCell:
    one, other = first.evidence[key], second.evidence[key]
    return ComparedCell(
        key,
        (one["verdict"], other["verdict"]),
        tuple(_parts(first, second, key, margin)),
        # A table that a test made has no tokens to compare.
        {}
        if is_own_table(one["provenance"]) or is_own_table(other["provenance"])
        else dict(_tokens(first.roles(key), second.roles(key))),
        tuple(stated_changes(one, other)),
        (tuple(edited(one)), tuple(edited(other))),
    )


def _parts(first: StoredRun, second: StoredRun, key: Key, margin: float) -> Iterator[ComparedPart]:
    """Parts that are in both: of the same outcome and estimand, given or claimed in both."""
    numbers = [
        {_name(part): number for number, part in enumerate(run.evidence[key]["parts"])}
        for run in (first, second)
    ]
    for name in (name for name in numbers[0] if name in numbers[1]):
        at = numbers[0][name], numbers[1][name]
        stored = first.evidence[key]["parts"][at[0]]
        sides = (_side(first, key, at[0]), _side(second, key, at[1]))
        asserted = part_of(stored)
        tables = [run.table(key, number) for run, number in zip((first, second), at, strict=True)]
        if tables[0] is None or tables[1] is None:
            likelihood = Outcome.parse(asserted.outcome).is_fed
            why = f"{asserted.outcome} is not among the trials" if likelihood else "nothing was run"
            yield ComparedPart(asserted, stored["given"], sides, None, f"verdicts only: {why}")
            continue
        direction = direction_of(asserted, falls=stored["outcome"].get("falls", False))
        yield _compared(asserted, stored["given"], sides, tables[0], tables[1], margin, direction)


def _compared(
    asserted: Part,
    given: bool,
    sides: tuple[Side, Side],
    first: pd.DataFrame,
    second: pd.DataFrame,
    margin: float,
    direction: Direction,
) -> ComparedPart:
    arms = NEEDED[asserted.estimand]
    both = _whole(first, arms) & _whole(second, arms)
    pairs = {pair for pair, _ in both}
    only = (first["pair"].nunique() - len(pairs), second["pair"].nunique() - len(pairs))
    a, b = _clustered_alike(_among(first, arms, both), _among(second, arms, both))
    found, why = None, ""
    # What a broken instrument measured is no finding that could move.
    broken = "; ".join(side.broken for side in sides if side.broken)
    if not both:
        found = Difference("undecided", "no test: no pair in both")
    elif any(table["score"].isna().any() for table in (a, b)):
        why = f"verdicts only: some trials have no {asserted.outcome}"
    else:
        found = paired_difference(a, b, asserted, margin, direction)
        if any(side.estimate is None for side in sides):
            # A run without a gap between source and base shows no ratio; nor is one shown here.
            found = found._replace(first=None, second=None, value=None, interval=None)
        if broken and not found.equal:
            found = found._replace(found="undecided", reason=f"the instrument failed: {broken}")
    return ComparedPart(asserted, given, sides, found, why, len(pairs), len(both), only)


def _whole(table: pd.DataFrame, arms: Sequence[str]) -> set[tuple[str, int]]:
    """The (pair, seed)s that every arm has."""
    return set.intersection(
        *(
            set(zip(rows["pair"], rows["seed"], strict=True))
            for rows in (table[table["arm"] == arm] for arm in arms)
        )
    )


def _among(table: pd.DataFrame, arms: Sequence[str], wanted: set[tuple[str, int]]) -> pd.DataFrame:
    """Rows of some arms and (pair, seed)s, with prompts named by their text's hash.

    A task may call the same text by another id in another run; clusters must not hang on that.
    """
    rows = table[table["arm"].isin(arms)]
    rows = rows[[at in wanted for at in zip(rows["pair"], rows["seed"], strict=True)]]
    return by_tokens(rows.assign(source=rows["source_sha"], base=rows["base_sha"]))


def _clustered_alike(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables of the same pairs, clustered by source and by base as the one with fewer is.

    Two runs may read texts as other tokens: what is one prompt to either is one here.
    """
    tables = [table.drop(columns=list(TOKENS.values()), errors="ignore") for table in (a, b)]
    for side in TOKENS:
        names = [table.groupby("pair")[side].first() for table in tables]
        fewer = min(names, key=lambda name: name.nunique())
        tables = [table.assign(**{side: table["pair"].map(fewer)}) for table in tables]
    return tables[0], tables[1]


def _tokens(
    first: Mapping[str, pd.DataFrame], second: Mapping[str, pd.DataFrame]
) -> Iterator[tuple[str, Tokens]]:
    for role in (role for role in first if role in second):
        a, b = (
            dict(zip(zip(rows["pair"], rows["seed"], strict=True), rows["tokens"], strict=True))
            for rows in (first[role], second[role])
        )
        both = sorted(a.keys() & b.keys())
        equal = sum(a[at] == b[at] for at in both)
        yield role, Tokens(len(both), equal, (_sha(a, both), _sha(b, both)))


def _sha(tokens: Mapping[tuple[str, int], str], at: Sequence[tuple[str, int]]) -> str:
    lines = (f"{pair} {seed} {tokens[pair, seed]}" for pair, seed in at)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _side(run: StoredRun, key: Key, number: int) -> Side:
    one = run.evidence[key]
    part = one["parts"][number]
    failed = instrument_failures(run.checks(key, number))
    return Side(
        part["verdict"],
        part["estimate"],
        part["interval"],
        part["level"],
        one["pairs"],
        ", ".join(check.name for check in failed),
    )


def _name(part: Mapping[str, Any]) -> str:
    given = "given " if part["given"] else ""
    return f"{given}{part['outcome']['name']} {part['estimand']}"


def _provenance(first: StoredRun, second: StoredRun, model: str) -> Iterator[Change]:
    """What differs in how a model was run, and in the prompts of its pairs."""
    yield from changes(_of_model(first, model), _of_model(second, model))
    shas = [
        {side: set(rows[f"{side}_sha"]) for side in ("source", "base")}
        for rows in (run.trials[run.trials["model"] == model] for run in (first, second))
        if len(rows)
    ]
    if len(shas) == 2:
        for side in ("source", "base"):
            a, b = shas[0][side], shas[1][side]
            if a != b:
                told = (f"{len(one)}, {len(a & b)} of them in both" for one in (a, b))
                yield Change(f"{side} texts", *told)


def _of_model(run: StoredRun, model: str) -> dict[str, Any]:
    """Provenance of a model's cells, flat; what differs between them is listed."""
    found: dict[str, list[Any]] = {}
    for key, one in run.evidence.items():
        if key.model == model:
            own = {"task": one.get("task"), "seeds": one["seeds"], **one["provenance"]}
            for name, value in _flat(own):
                found.setdefault(name, [])
                if value not in found[name]:
                    found[name].append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _flat(content: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{under}{name}.")
        else:
            yield f"{under}{name}", value


def _facts(run: StoredRun) -> dict[str, Any]:
    return {name: run.run.get(name) for name in RUN_FACTS}


def _only(run: StoredRun, other: StoredRun) -> tuple[Key, ...]:
    return tuple(key for key in run.evidence if key not in other.evidence)


def _models(run: StoredRun) -> str:
    return ", ".join(dict.fromkeys(key.model for key in run.evidence)) or "nothing"
