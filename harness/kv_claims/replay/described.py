"""The YAML that describes a published table: where it is, its columns, which arm is what.

Every defect of it is one error that names the place and what was expected; docs/replay.md has the
keys. Nothing in it says how a claim is judged: that stands in the claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kv_claims.claims.outcome import Outcome
from kv_claims.errors import UsageError
from kv_claims.files.given import read_yaml
from kv_claims.files.keys import check_keys
from kv_claims.files.reading import check_file, inside, shown, unquoted
from kv_claims.judging.checks import CONTROLS
from kv_claims.judging.frame import ARMS
from kv_claims.replay.own_claims import OwnClaim, read_own

SCHEMA = 1
MOST_BYTES = 2**20
"""Of a description."""
ROLES = (*ARMS, *CONTROLS)
BETWEEN = " "
"""Stands between the values of columns that together name an arm."""
FIXED = ("base", "source", *CONTROLS)
"""Roles of arms that are not tried to make a claim true."""
_NEEDED = ("schema", "table", "model", "n_layers", "columns", "claims")
_KNOWN = (
    *(*_NEEDED, "about", "task", "scores", "shared", "others", "seeds"),
    *("n_kv_heads", "n_query_heads", "tokens", "own"),
)
_KEYS = ("pair", "seed", "score", "text", "cluster", "source", "base")
_COLUMNS = ("pair", "arm", "arms", *_KEYS[1:])

Roles = Mapping[str, str]
"""Which arm of the table stands in each role."""


@dataclass(frozen=True)
class Described:
    """A published table, as somebody describes it.

    where: the YAML file. n_layers, n_kv_heads, n_query_heads: of the model (0: heads not given).
    columns: the table's names of pair, seed, score, text, cluster, source, base. arm: the columns
    whose values together name a row's arm. wide: in place of them, columns that are an arm each and
    hold its score. averaged: whether a pair's seeds count as their mean. scores: its columns of
    other outcomes, by the outcome's name. claims: by claim and cell, the arms. tokens: of the
    source's and the base's prompt, None where they are not given. others: arms in no role, and what
    they are. own: claims that stand here and in no test file, by id.
    """

    where: Path
    about: str
    table: Path
    model: str
    n_layers: int
    n_kv_heads: int
    n_query_heads: int
    columns: Mapping[str, str]
    arm: tuple[str, ...]
    wide: tuple[str, ...]
    averaged: bool
    scores: Mapping[str, str]
    claims: Mapping[str, Mapping[str, Roles]]
    tokens: tuple[int, int] | None
    others: Mapping[str, str]
    task: Path | None
    own: Mapping[str, OwnClaim] = field(default_factory=dict)

    @property
    def arms(self) -> list[str]:
        """The arms of the table that stand in some role, each once."""
        return self.arms_of(*ROLES)

    def arms_of(self, *roles: str) -> list[str]:
        """The arms that stand in one of these roles, each once."""
        return list(
            dict.fromkeys(
                arm
                for cells in self.claims.values()
                for named in cells.values()
                for role, arm in named.items()
                if role in roles
            )
        )


def read_description(path: Path) -> Described:
    """Read the YAML. Raises UsageError, naming the key, for anything that is not as described."""
    where = str(path)
    check_file(path, "a description of a published table", most=MOST_BYTES)
    content = _mapping(read_yaml(path, "description of a published table"), where)
    check_keys(content, _NEEDED, _KNOWN, where)
    if content["schema"] != SCHEMA:
        raise UsageError(f"{where}: schema {unquoted(repr(content['schema']))}, expected {SCHEMA}")
    given = _mapping(content["columns"], f"{where}: columns")
    check_keys(given, ("pair",), _COLUMNS, f"{where}: columns")
    columns = _names({k: v for k, v in given.items() if k in _KEYS}, f"{where}: columns")
    arm, wide = (_several(given, key, f"{where}: columns") for key in ("arm", "arms"))
    if bool(arm) == bool(wide):
        raise UsageError(
            f"{where}: columns has {'both arm and arms' if arm else 'no arm'}, expected `arm`, one "
            "column or several that name a row's arm, or `arms`, the columns that are an arm each"
        )
    task = content.get("task")
    scored = "score" in columns or ("text" in columns and task is not None)
    if wide and ("score" in columns or "text" in columns):
        raise UsageError(
            f"{where}: columns has arms, whose columns hold the scores: no score, text"
        )
    if not (scored or wide):
        raise UsageError(f"{where}: columns has no score; expected one, or text and a task")
    if (seeds := content.get("seeds", "each")) not in ("each", "averaged"):
        raise UsageError(f"{where}: seeds {unquoted(repr(seeds))}, expected each or averaged")
    scores = _names(content.get("scores", {}), f"{where}: scores")
    return Described(
        where=path,
        about=str(content.get("about", "")),
        table=inside(path.parent, _name(content["table"], f"{where}: table"), f"{where}: table"),
        model=_name(content["model"], f"{where}: model"),
        n_layers=_count(content["n_layers"], f"{where}: n_layers", 10_000),
        n_kv_heads=_heads(content, "n_kv_heads", where),
        n_query_heads=_heads(content, "n_query_heads", where),
        columns=columns,
        arm=arm,
        wide=wide,
        averaged=seeds == "averaged",
        scores={str(Outcome.parse(name)): column for name, column in scores.items()},
        claims=_claims(content, where),
        tokens=_tokens(content["tokens"], f"{where}: tokens") if "tokens" in content else None,
        others=_names(content.get("others", {}), f"{where}: others"),
        task=None
        if task is None
        else inside(path.parent, _name(task, f"{where}: task"), f"{where}: task"),
        own=_own(content, where),
    )


def _own(content: Mapping[Any, Any], where: str) -> dict[str, OwnClaim]:
    """The claims of the table's own. One that no cell is named of would never be judged."""
    if "own" not in content:
        return {}
    found = read_own(content["own"], f"{where}: own")
    for id in found:
        if id not in content["claims"]:
            raise UsageError(f"{where}: own: {unquoted(id)}: no cell of it under `claims`")
    return found


def _heads(content: Mapping[Any, Any], key: str, where: str) -> int:
    return _count(content[key], f"{where}: {key}", 10_000) if key in content else 0


def _claims(content: Mapping[Any, Any], where: str) -> dict[str, dict[str, Roles]]:
    shared = _roles(content.get("shared", {}), f"{where}: shared")
    found: dict[str, dict[str, Roles]] = {}
    for claim, cells in _mapping(content["claims"], f"{where}: claims").items():
        here = f"{where}: claims: {unquoted(str(claim))}"
        found[str(claim)] = {
            str(cell): {**shared, **_roles(roles, f"{here}: {unquoted(str(cell))}")}
            for cell, roles in _mapping(cells, here).items()
        }
        for cell, roles in found[str(claim)].items():
            _check_one_role_each(roles, f"{here}: {unquoted(cell)}")
        _check_one_cell_each(found[str(claim)], here)
        if not found[str(claim)]:
            raise UsageError(f"{here}: no cell, expected at least one")
    if not found:
        raise UsageError(f"{where}: claims is empty, expected at least one claim with a cell")
    return found


def _check_one_role_each(roles: Roles, where: str) -> None:
    """An arm in two roles is compared with itself: as a control, it would pass whatever it is."""
    owner: dict[str, str] = {}
    for role, arm in roles.items():
        if owner.setdefault(arm, role) != role:
            raise UsageError(
                f"{where}: arm {shown(arm)} is both {owner[arm]} and {role}, expected an arm of "
                "its own for each role"
            )


def _check_one_cell_each(cells: Mapping[str, Roles], where: str) -> None:
    """Cells of one claim are tests of their own: what is one arm cannot stand for two of them."""
    owner: dict[tuple[str | None, str | None], str] = {}
    for cell, roles in cells.items():
        arms = roles.get("patched"), roles.get("versus")
        if arms != (None, None) and owner.setdefault(arms, cell) != cell:
            said = " against ".join(shown(arm) for arm in arms if arm is not None)
            raise UsageError(
                f"{where}: arm {said} stands for the cells {shown(owner[arms])} and "
                f"{shown(cell)}, expected an arm of its own for each"
            )


def _roles(content: Any, where: str) -> dict[str, str]:
    roles = _names(content, where)
    check_keys(roles, (), ROLES, where)
    return roles


def _tokens(content: Any, where: str) -> tuple[int, int]:
    found = _mapping(content, where)
    check_keys(found, ("source", "base"), ("source", "base"), where)
    return _count(found["source"], f"{where}: source"), _count(found["base"], f"{where}: base")


def _mapping(content: Any, where: str) -> dict[Any, Any]:
    if not isinstance(content, dict):
        raise UsageError(f"{where}: {type(content).__name__}, expected a mapping")
    return content


def _names(content: Any, where: str) -> dict[str, str]:
    return {
        str(key): _name(value, f"{where}: {unquoted(str(key))}")
        for key, value in _mapping(content, where).items()
    }


def _several(content: Mapping[Any, Any], key: str, where: str) -> tuple[str, ...]:
    """One name or a list of them; none where the key is not there."""
    if key not in content:
        return ()
    value = content[key]
    found = value if isinstance(value, list) else [value]
    names = tuple(_name(one, f"{where}: {key}") for one in found)
    if not names or len(set(names)) < len(names):
        raise UsageError(f"{where}: {key}: {unquoted(repr(value))}, expected columns, each once")
    return names


def _name(value: Any, where: str) -> str:
    """Text, or a number as it is written; of a list, all of it: an arm that several columns name.

    YAML reads a bare `no` as false: that is refused.
    """
    if isinstance(value, list) and value:
        return BETWEEN.join(_name(one, where) for one in value)
    if (
        isinstance(value, bool)
        or not isinstance(value, str | int | float)
        or not str(value).strip()
    ):
        raise UsageError(
            f"{where}: {unquoted(repr(value))}, expected text (in quotes, if YAML reads it as else)"
        )
    return str(value)


def _count(value: Any, where: str, most: int = 2**31) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise UsageError(
            f"{where}: {unquoted(repr(value))}, expected a whole number from 1 to {most:,}"
        )
    return value
