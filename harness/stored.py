"""A run that was stored: its evidence, its trials, and the tables that its verdicts rest on.

For whatever looks at a finished run again (`python -m harness compare`). Reads `evidence.json` and
`trials.parquet` as `harness.report.write` leaves them; loads no model, no torch. Changes
nothing, but for files that a kill left ready to be moved into their place (`harness.folder`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from harness.claim import BEHAVIOR, ESTIMANDS, Part, Region
from harness.errors import UsageError
from harness.evidence import SCHEMA
from harness.folder import EVIDENCE_FILE, TRIALS_FILE, locate, reads_whole
from harness.hashes import WHOLE, Integrity, integrity
from harness.judging.checks import CONTROLS, STATISTICAL_CHECKS, Check, control_check
from harness.judging.estimand import direction_of, stands_in_table
from harness.judging.parts import Combined, combine, judge_part
from harness.judging.result import Verdict
from harness.outcome import TEXT_NAMES, Outcome
from harness.run.scores import scored
from harness.run.trial import Trial

_OF_A_VERDICT = {*STATISTICAL_CHECKS, "same-is-not-p>0.05", "best-of-k"}
_COLUMNS = (
    *("model", "study", "arm", "pair", "pair_index", "seed", "source", "base"),
    *("source_sha", "base_sha", "tokens", "geometry", "score"),
    *(name for name in TEXT_NAMES if name != BEHAVIOR),
)
_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("claim", "cell", "model", "study", "verdict"), str),
    **dict.fromkeys(("arms", "provenance", "multiplicity", "trials"), dict),
    **dict.fromkeys(("parts", "checks"), list),
    **dict.fromkeys(("pairs", "seeds"), int),
}
_PART_FIELDS = ("outcome", "estimand", "region", "given", "verdict", "estimate", "interval")


class Key(NamedTuple):
    """What evidence is of; each stands once in a run."""

    claim: str
    cell: str
    model: str

    def __str__(self) -> str:
        return f"{self.claim}, cell {self.cell} on {self.model}"


class Reported(NamedTuple):
    """What `evidence.json` holds, as plain JSON: facts on the run, and lists of what was found."""

    run: dict[str, Any]
    evidence: list[dict[str, Any]]
    instrument: list[dict[str, Any]]
    families: list[dict[str, Any]]
    protocol: list[dict[str, Any]]


class Again(NamedTuple):
    """What the stored numbers say when they are judged again. verdicts: one a part."""

    verdicts: list[Verdict]
    combined: Combined


@dataclass(frozen=True)
class StoredRun:
    """One folder that `pytest claims` wrote.

    run: facts on the run as a whole. evidence: JSON objects, in the order of the file.
    trials: the rows of `trials.parquet`. instrument, families, protocol: the other lists of the
    file. integrity: whether its files are as the run wrote them.
    """

    folder: Path
    run: dict[str, Any]
    evidence: dict[Key, dict[str, Any]]
    trials: pd.DataFrame
    instrument: tuple[dict[str, Any], ...] = ()
    families: tuple[dict[str, Any], ...] = ()
    protocol: tuple[dict[str, Any], ...] = ()
    integrity: Integrity = WHOLE

    @property
    def reported(self) -> Reported:
        """The file's content, as it was read."""
        lists = (self.evidence.values(), self.instrument, self.families, self.protocol)
        return Reported(self.run, *map(list, lists))

    @cached_property
    def _by_arm(self) -> dict[Any, pd.DataFrame]:
        return dict(iter(self.trials.groupby(["model", "study", "arm"], sort=False)))

    def roles(self, key: Key) -> dict[str, pd.DataFrame]:
        """The trials of a cell by role (base, source, patched, a control's name): rows of the file.

        Empty where nothing was run. Raises UsageError where trials that the evidence counts are
        not in the file.
        """
        one = self.evidence[key]
        found: dict[str, pd.DataFrame] = {}
        for role, arm in one["arms"].items():
            rows = self._by_arm.get((one["model"], one["study"], arm))
            if rows is None:
                raise UsageError(
                    f"{self.folder / TRIALS_FILE}: no trials of arm {arm!r}, which is {role} in "
                    f"the evidence on {key}"
                )
            # Cells that were decided early have fewer pairs than others that share an arm.
            found[role] = rows[(rows["pair_index"] < one["pairs"]) & (rows["seed"] < one["seeds"])]
        stored, wanted = sum(map(len, found.values())), one["trials"]["run"]
        if found and stored != wanted:
            raise UsageError(
                f"{self.folder / TRIALS_FILE}: {stored} trials of {key}, its evidence rests on "
                f"{wanted}"
            )
        return found

    def table(self, key: Key, number: int) -> pd.DataFrame | None:
        """The table that a part of a cell was judged on: its arms by role, and the controls.

        One row a trial: `pair, arm, seed, score, source, base` and the trial's other columns;
        `score` is NaN where a trial has none. None where nothing was run, and for a likelihood,
        whose scores are not among the trials.
        """
        one = self.evidence[key]
        part = part_of(one["parts"][number])
        outcome = Outcome.parse(part.outcome)
        roles = self.roles(key)
        if not roles or outcome.is_likelihood:
            return None
        frames = []
        for role, rows in roles.items():
            if stands_in_table(role, part.estimand):
                trials = trials_of(rows) if outcome.is_geometry else []
                frame = scored(rows, trials, outcome, one["provenance"]["n_layers"], {})
                frames.append(frame.assign(arm=role))
        return pd.concat(frames, ignore_index=True)

    def checks(self, key: Key, number: int) -> list[Check]:
        """The checks of a part, those that all parts share among them."""
        found = []
        for check in self.evidence[key]["checks"]:
            prefix, _, name = check["name"].rpartition(": ")
            if prefix in ("", f"part {number + 1}"):
                found.append(Check(name, check["passed"], check["detail"]))
        return found

    def _made_before(self, key: Key, number: int) -> list[Check]:
        """The checks of a part that were made before it was judged."""
        arms = self.evidence[key]["arms"]
        own = {control_check(arm) for arm in CONTROLS if arm in arms} | _OF_A_VERDICT
        return [check for check in self.checks(key, number) if check.name not in own]

    def judge_again(self, key: Key) -> Again | None:
        """Judge the stored numbers by the stored plan, as the run did; None as for `table`.

        What was checked of the instrument is taken from the evidence: the trials cannot show it.
        """
        one = self.evidence[key]
        verdicts = []
        parts = [part_of(part) for part in one["parts"]]
        given = [part["given"] for part in one["parts"]]
        for number, part in enumerate(parts):
            if (table := self.table(key, number)) is None:
                return None
            verdicts.append(
                judge_part(
                    table.fillna({"score": 0.0}),  # a failed check says that there are holes
                    part,
                    of=1 if given[number] else given.count(False),
                    margin=one["parts"][number]["region"]["margin"],
                    checks=self._made_before(key, number),
                    direction=direction_of(part),
                    alpha=one["multiplicity"]["alpha"],
                )
            )
        judged = list(zip(parts, verdicts, strict=True))
        claimed = given.count(False)
        alpha = one["multiplicity"]["alpha"]
        return Again(verdicts, combine(judged[:claimed], judged[claimed:], alpha=alpha))


@reads_whole
def load_run(folder: Path) -> StoredRun:
    """Read a run's folder. Raises UsageError, naming the file, for anything but a whole run."""
    content = _content(locate(folder, EVIDENCE_FILE))
    whole = integrity(folder, content)
    evidence: dict[Key, dict[str, Any]] = {}
    for number, one in enumerate(content["evidence"]):
        where = f"{folder / EVIDENCE_FILE}: evidence {number}"
        _check_evidence(one, where)
        key = Key(one["claim"], one["cell"], one["model"])
        if key in evidence:
            raise UsageError(f"{where}: {key} stands twice, expected once")
        evidence[key] = one
    others = {name: tuple(content.get(name, ())) for name in ("instrument", "families", "protocol")}
    trials = read_trials(locate(folder, TRIALS_FILE), evidence)
    return StoredRun(folder, content["run"], evidence, trials, **others, integrity=whole)


def part_of(stored: Mapping[str, Any]) -> Part:
    """A part of a claim from its evidence. Raises UsageError for what is none."""
    region = stored["region"]
    ends = {name: region[name] for name in ("low", "high") if region[name] is not None}
    return Part(stored["outcome"]["name"], stored["estimand"], Region(**ends))


def trials_of(rows: pd.DataFrame) -> list[Trial]:
    """The trials of some rows of `trials.parquet`, as the ledger had them.

    Raises UsageError where the table is of another version, whose trials had other fields.
    """
    names = list(Trial.__dataclass_fields__)
    if missing := [name for name in names if name not in rows.columns]:
        raise UsageError(f"{TRIALS_FILE}: missing columns {missing}, expected those of a trial")
    return [
        _trial(dict(zip(names, values, strict=True)))
        for values in rows[names].itertuples(index=False, name=None)
    ]


def _trial(row: dict[str, Any]) -> Trial:
    """A column with holes holds floats, and NaN for None."""
    plain = {name: _plain(value) for name, value in row.items()}
    whole = {
        name: int(plain[name]) for name in ("differs", "oracle_shift") if plain[name] is not None
    }
    tokens = [int(token) for token in str(row["tokens"]).split()]
    return Trial.from_dict(
        {**plain, **whole, "tokens": tokens, "geometry": json.loads(row["geometry"])}
    )


def _plain(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return value.item() if hasattr(value, "item") else value


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); expected a folder that `pytest claims` "
            "wrote"
        ) from error
    except ValueError as error:
        raise UsageError(f"{path}: no JSON ({error}), expected the evidence of a run") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        got = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise UsageError(f"{path}: schema {got!r}, expected {SCHEMA}")
    for name, kind in (("run", dict), ("evidence", list)):
        if not isinstance(content.get(name), kind):
            raise UsageError(f"{path}: no {kind.__name__} under `{name}`, expected one")
    for name in ("instrument", "families", "protocol"):
        if not isinstance(content.get(name, []), list):
            raise UsageError(f"{path}: no list under `{name}`, expected one")
    return content


def _check_evidence(one: Any, where: str) -> None:
    """Raise UsageError unless it is an object with the fields that are read here."""
    if not isinstance(one, dict):
        raise UsageError(f"{where}: {type(one).__name__}, expected an object")
    for name, kind in _FIELDS.items():
        if not isinstance(one.get(name), kind) or isinstance(one.get(name), bool):
            raise UsageError(f"{where}: `{name}` is {one.get(name)!r:.40}, not what a run writes")
    if not isinstance(one["provenance"].get("n_layers"), int):
        raise UsageError(f"{where}: provenance has no `n_layers`")
    for name in ("alpha", "family", "size", "looks"):
        if name not in one["multiplicity"]:
            raise UsageError(f"{where}: multiplicity has no `{name}`")
    if not one["parts"] or not all(map(_is_part, one["parts"])):
        raise UsageError(f"{where}: `parts` are not what a run writes")
    for part in one["parts"]:
        part_of(part)


def _is_part(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and all(name in part for name in _PART_FIELDS)
        and isinstance(part["outcome"], dict)
        and "name" in part["outcome"]
        and part["estimand"] in ESTIMANDS
        and isinstance(part["region"], dict)
        and {"low", "high", "margin", "about"} <= set(part["region"])
    )


def read_trials(path: Path, evidence: Mapping[Key, dict[str, Any]]) -> pd.DataFrame:
    """The trials that evidence rests on. Raises UsageError for a file that does not hold them."""
    if not path.is_file():
        raise UsageError(f"{path}: not there; expected the trials of the run")
    try:
        trials = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise UsageError(f"{path}: cannot be read as Parquet ({error!s:.80})") from error
    missing = [name for name in _COLUMNS if name not in trials.columns]
    # A run in which nothing was run has a table without columns.
    if missing and (len(trials) or any(one["arms"] for one in evidence.values())):
        raise UsageError(f"{path}: missing columns {missing}, expected the trials of a run")
    return trials
