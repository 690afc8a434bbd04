"""A run that was stored: its evidence, its trials, and the tables that its verdicts rest on.

For whatever looks at a finished run again (`kv-claims compare`). Reads `evidence.json`
and `trials.parquet` as `kv_claims.plugin.write` leaves them; loads no model, no torch. Changes
nothing, but for files that a kill left ready to be moved into their place
(`kv_claims.evidence.folder`).
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import msgspec
import pandas as pd
from pandas.api.types import (
    is_bool_dtype,
    is_integer_dtype,
    is_numeric_dtype,
    is_string_dtype,
)

from kv_claims.claims.claim import BEHAVIOR, Part, Region
from kv_claims.claims.outcome import TEXT_NAMES, Outcome
from kv_claims.errors import UsageError
from kv_claims.evidence.evidence import SCHEMA
from kv_claims.evidence.folder import EVIDENCE_FILE, TRIALS_FILE, locate, reads_whole
from kv_claims.evidence.hashes import WHOLE, Integrity, integrity
from kv_claims.evidence.schema import (
    EvidenceFile,
    EvidenceSaid,
    FamilySaid,
    InstrumentSaid,
    OwnProvenance,
    PartSaid,
    ProtocolSaid,
    RunSaid,
    ScorerSaid,
    Texts,
    is_own_table,
    unknown_fields,
)
from kv_claims.files.reading import checked, listed, read_json, shown, typed, unquoted
from kv_claims.files.tables import read_parquet
from kv_claims.judging.checks import CONTROLS, STATISTICAL_CHECKS, Check, control_check
from kv_claims.judging.estimand import direction_of, stands_in_table
from kv_claims.judging.frame import LARGEST, TOKENS
from kv_claims.judging.parts import Combined, combine, judge_part
from kv_claims.judging.result import Verdict
from kv_claims.run.scores import Fed, scored
from kv_claims.run.trial import Geometry, Trial

_OF_A_VERDICT = {*STATISTICAL_CHECKS, "same-is-not-p>0.05", "best-of-k"}
_TEXTS = (
    *("model", "study", "arm", "pair", "source", "base", "source_sha", "base_sha"),
    *("tokens", "geometry"),
)
_WHOLE = ("pair_index", "seed")
_NUMBERS = ("score", *(name for name in TEXT_NAMES if name != BEHAVIOR))
_COLUMNS = (*_TEXTS, *_WHOLE, *_NUMBERS)
_TOKENS = r"(?:\d{1,10}(?: \d{1,10})*)?"
_EXPECTED = "a folder that `pytest claims` wrote"


class Key(NamedTuple):
    """What evidence is of; each stands once in a run."""

    claim: str
    cell: str
    model: str

    def __str__(self) -> str:
        return unquoted(f"{self.claim}, cell {self.cell} on {self.model}", 300)


class Reported(NamedTuple):
    """What `evidence.json` holds, as plain JSON: facts on the run, and lists of what was found."""

    run: RunSaid
    evidence: list[EvidenceSaid]
    instrument: list[InstrumentSaid]
    families: list[FamilySaid]
    protocol: list[ProtocolSaid]


class Again(NamedTuple):
    """What the stored numbers say when they are judged again. verdicts: one a part."""

    verdicts: list[Verdict]
    combined: Combined


@dataclass(frozen=True)
class StoredRun:
    """One folder that `pytest claims` wrote.

    run: facts on the run as a whole. evidence: JSON objects, in the order of the file.
    trials: the rows of `trials.parquet`. instrument, families, protocol: the other lists of the
    file. unknown: fields of the file that this version does not know. integrity: whether its
    files are as the run wrote them.
    """

    folder: Path
    run: RunSaid
    evidence: dict[Key, EvidenceSaid]
    trials: pd.DataFrame
    instrument: tuple[InstrumentSaid, ...] = ()
    families: tuple[FamilySaid, ...] = ()
    protocol: tuple[ProtocolSaid, ...] = ()
    unknown: tuple[str, ...] = ()
    integrity: Integrity = WHOLE

    @property
    def reported(self) -> Reported:
        """The file's content, as it was read."""
        return Reported(
            self.run,
            list(self.evidence.values()),
            list(self.instrument),
            list(self.families),
            list(self.protocol),
        )

    @property
    def note(self) -> str:
        """A line on fields that this version does not know; '' where it knows all of them."""
        if not self.unknown:
            return ""
        by = unquoted(self.run.get("kv_claims", "another version"))
        return (
            f"{self.folder / EVIDENCE_FILE}: fields that this version does not know, and does not "
            f"read: {listed(self.unknown)}; written by {by}"
        )

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
                    f"{self.folder / TRIALS_FILE}: no trials of arm {shown(arm)}, which is "
                    f"{unquoted(role)} in the evidence on {key}"
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
        `score` is NaN where a trial has none. None where nothing was run, and for what was fed,
        whose scores are not among the trials, unless its test made the table.
        """
        one = self.evidence[key]
        part = part_of(one["parts"][number])
        outcome = Outcome.parse(part.outcome)
        roles = self.roles(key)
        is_own = is_own_table(one["provenance"])
        if not roles or (outcome.is_fed and not is_own):
            return None
        frames = []
        for role, rows in roles.items():
            if stands_in_table(role, part.estimand):
                if is_own:
                    frame = rows.assign(score=rows[str(outcome)])
                else:
                    trials = trials_of(rows) if outcome.is_geometry else []
                    frame = scored(rows, trials, outcome, one["provenance"]["n_layers"], Fed())
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
                    direction=direction_of(
                        part, falls=one["parts"][number]["outcome"].get("falls", False)
                    ),
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
    path = locate(folder, EVIDENCE_FILE)
    content = read_evidence(path)
    whole = integrity(folder, content)
    found: dict[Key, EvidenceSaid] = {}
    for number, one in enumerate(content["evidence"]):
        key = Key(one["claim"], one["cell"], one["model"])
        if key in found:
            raise UsageError(f"{path}: $.evidence[{number}]: {key} stands twice, expected once")
        found[key] = one
    return StoredRun(
        folder,
        content["run"],
        found,
        read_trials(locate(folder, TRIALS_FILE), found),
        tuple(content.get("instrument", ())),
        tuple(content.get("families", ())),
        tuple(content.get("protocol", ())),
        tuple(unknown_fields(content)),
        whole,
    )


def read_evidence(path: Path) -> EvidenceFile:
    """An `evidence.json`. Raises UsageError for a file that is none, naming the place in it."""
    content = read_json(path, _EXPECTED)
    schema = content.get("schema") if isinstance(content, dict) else type(content).__name__
    if schema != SCHEMA:
        raise UsageError(f"{path}: schema {unquoted(repr(schema))}, expected {SCHEMA}")
    found = checked(content, EvidenceFile, str(path))
    run = found["run"]
    try:
        shlex.split(run.get("command", ""))
    except ValueError as error:
        raise UsageError(f"{path}: $.run.command: {error}, expected a command line") from error
    if "replay" in run and "not_replayed" not in run:
        raise UsageError(f"{path}: $.run: replay without not_replayed, expected both")
    first: dict[tuple[str, str], EvidenceSaid] = {}
    geometries: dict[str, list[str]] = {}
    for number, one in enumerate(found["evidence"]):
        where = f"{path}: $.evidence[{number}]"
        _check_evidence(one, where)
        _check_alike(one, first.setdefault((one["model"], one["claim"]), one), where)
        if "patched" in one["arms"]:
            names = [said["outcome"] for said in one["geometry"]]
            if names != geometries.setdefault(one["model"], names) or len(names) < 2:
                raise UsageError(f"{where}.geometry: not the outcomes that others of the run have")
    return found


def _check_evidence(one: EvidenceSaid, where: str) -> None:
    """Raise UsageError for what types do not say: fields that hang together, names that are none.

    Where nothing was run, some objects are empty; else they are whole.
    """
    kinds: tuple[tuple[str, Mapping[str, Any], type], ...] = (
        ("texts", one["texts"], Texts),
        ("scorer", one["scorer"], ScorerSaid),
        ("provenance", one["provenance"] if "sampling" in one["provenance"] else {}, OwnProvenance),
    )
    for name, content, kind in kinds:
        if content:
            checked(content, kind, f"{where}.{name}")
    if "patched" in one["arms"] and one["patch"] is None:
        raise UsageError(f"{where}: an arm is patched, but `patch` is null")
    if one["parts"][0]["given"]:
        raise UsageError(f"{where}.parts[0].given: true, expected a part that is claimed first")
    try:
        for part in one["parts"]:
            outcome = Outcome.parse(part_of(part).outcome)
            if outcome.is_geometry and one["arms"]:
                outcome.layers(one["provenance"]["n_layers"])
        for said in one["geometry"]:
            Outcome.parse(said["outcome"])
    except UsageError as error:
        raise UsageError(f"{where}: {unquoted(str(error), 300)}") from error


def _check_alike(one: EvidenceSaid, first: EvidenceSaid, where: str) -> None:
    """Cells of one claim on one model assert the same."""
    named, wanted = (
        [(part["outcome"]["name"], part["estimand"], part["given"]) for part in some["parts"]]
        for some in (one, first)
    )
    if named != wanted:
        raise UsageError(
            f"{where}.parts: not those of cell {shown(first['cell'])} of the same claim"
        )


def part_of(stored: PartSaid) -> Part:
    """A part of a claim from its evidence. Raises UsageError for a region that is none."""
    low, high = stored["region"]["low"], stored["region"]["high"]
    region = Region(-math.inf if low is None else low, math.inf if high is None else high)
    return Part(stored["outcome"]["name"], stored["estimand"], region)


def trials_of(rows: pd.DataFrame) -> list[Trial]:
    """The trials of some rows of `trials.parquet`, as the ledger had them.

    Raises UsageError where the table is of another version, whose trials had other fields.
    """
    names = list(Trial.__dataclass_fields__)
    if missing := [name for name in names if name not in rows.columns]:
        raise UsageError(f"{TRIALS_FILE}: missing columns {missing}, expected those of a trial")
    return [
        _trial(dict(zip(names, values, strict=True)), f"{TRIALS_FILE}: row {number}")
        for number, values in enumerate(rows[names].itertuples(index=False, name=None), start=1)
    ]


_HOLED = tuple(name for name, kind in get_type_hints(Trial).items() if kind == int | None)
"""Whole numbers that a trial may lack: a column with holes holds floats, and NaN for None."""


def _trial(row: dict[str, Any], where: str) -> Trial:
    whole = {name: _whole(_plain(row[name])) for name in _HOLED}
    return typed(
        {
            **{name: _plain(value) for name, value in row.items()},
            **whole,
            "tokens": [int(token) for token in row["tokens"].split()],
            "geometry": msgspec.json.decode(row["geometry"]),
        },
        Trial,
        where,
    )


def _plain(value: Any) -> Any:
    if value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    return value.item() if hasattr(value, "item") else value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_trials(path: Path, evidence: Mapping[Key, EvidenceSaid]) -> pd.DataFrame:
    """The trials that evidence rests on. Raises UsageError for a file that does not hold them."""
    trials = read_parquet(path, "the trials of the run")
    missing = [name for name in _COLUMNS if name not in trials.columns]
    # A run in which nothing was run has a table without columns.
    if missing and (len(trials) or any(one["arms"] for one in evidence.values())):
        raise UsageError(f"{path}: missing columns {missing}, expected the trials of a run")
    if len(trials):
        _check_columns(trials, path)
    return trials


def _check_columns(trials: pd.DataFrame, path: Path) -> None:
    """Raise UsageError for a column that holds something else than such a column does."""

    def is_whole(column: pd.Series) -> bool:
        return is_integer_dtype(column) and bool(column.between(0, 2**53).all())

    def is_number(column: pd.Series) -> bool:
        if not (is_numeric_dtype(column) or is_bool_dtype(column)):
            return False
        return bool((column.isna() | (column.astype(float).abs() <= LARGEST)).all())

    def is_text(column: pd.Series) -> bool:
        return is_string_dtype(column) and not bool(column.isna().any())

    def is_tokens(column: pd.Series) -> bool:
        return is_text(column) and bool(column.str.fullmatch(_TOKENS).all())

    kinds: tuple[tuple[Sequence[str], Callable[[pd.Series], bool], str], ...] = (
        ((*_TEXTS, "text", *TOKENS.values()), is_text, "text in every row"),
        ((*_WHOLE, "prompt_tokens"), is_whole, "a whole number from 0 on in every row"),
        (_NUMBERS, is_number, f"numbers up to {LARGEST:g}"),
        (("tokens",), is_tokens, "token ids in every row"),
    )
    for names, holds, expected in kinds:
        for name in names:
            if name in trials.columns and not holds(trials[name]):
                raise UsageError(
                    f"{path}: column {name!r} holds something else ({trials[name].dtype}), "
                    f"expected {expected}"
                )
    doubled = trials.duplicated(["model", "study", "arm", "pair", "seed"]).to_numpy()
    if doubled.any():
        row = trials[doubled].iloc[0]
        raise UsageError(
            f"{path}: {int(doubled.sum())} trials stand twice, such as arm {shown(row['arm'])}, "
            f"pair {shown(row['pair'], 12)}, seed {row['seed']}; expected each once"
        )
    geometry = msgspec.json.Decoder(Geometry)
    for number, text in enumerate(trials["geometry"], start=1):
        try:
            geometry.decode(text)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise UsageError(
                f"{path}: geometry of row {number}: {unquoted(str(error), 120)}"
            ) from error
