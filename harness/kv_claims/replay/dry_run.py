"""What a published table is read as, in lines, before anything is judged: `--claims-dry-run`.

For whoever writes the description: which arm stands where, what its scores are as numbers, and
which cells will be judged on what. Judges nothing.
"""

from __future__ import annotations

import pandas as pd

from kv_claims.files.reading import unquoted
from kv_claims.replay.described import ROLES, Described, Roles

_NO_ROLE = "in no role"


def told_of(told: Described, frame: pd.DataFrame, tried: int) -> list[str]:
    """The lines. frame: see `published.read_table`. tried: arms that a claim might be made of."""
    n_seeds = frame["seed"].nunique()
    lines = [
        f"{told.table.name}: {len(frame)} rows read, {frame['pair'].nunique()} pairs, "
        f"{frame['arm'].nunique()} arms, {n_seeds} seed{'s' * (n_seeds > 1)}",
        f"  {'arm':24} {'role':24} {'rows':>6} {'pairs':>6}  score: mean, least, most",
    ]
    roles = _roles(told)
    for arm, rows in frame.groupby("arm", sort=False):
        score = rows["score"]
        known = roles.get(str(arm)) or told.others.get(str(arm)) or _NO_ROLE
        shown = [f"{number:.4g}" for number in (score.mean(), score.min(), score.max())]
        lacks = f", {score.isna().sum()} without a number" if score.isna().any() else ""
        lines.append(
            f"  {unquoted(str(arm)):24.24} {unquoted(known):24.24} {len(rows):6} "
            f"{rows['pair'].nunique():6}  {', '.join(shown)}{lacks}"
        )
    lines.append(f"judged, at 0.05 / {max(1, tried)} or less, as so many arms were tried:")
    for claim, cells in told.claims.items():
        lines += [
            f"  {unquoted(claim)} {unquoted(cell)}: {_said(of)}" for cell, of in cells.items()
        ]
    return lines


def _roles(told: Described) -> dict[str, str]:
    """The roles of each arm, as far as it has any."""
    found: dict[str, list[str]] = {}
    for cells in told.claims.values():
        for of in cells.values():
            for role, arm in of.items():
                if role not in found.setdefault(arm, []):
                    found[arm].append(role)
    return {arm: ", ".join(some) for arm, some in found.items()}


def _said(roles: Roles) -> str:
    return ", ".join(f"{role} = {unquoted(roles[role])}" for role in ROLES if role in roles)
