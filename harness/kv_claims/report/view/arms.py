"""Every arm of a run that pastes from the source, on its own: where the behavior is carried.

Exploratory: transfer of behavior with its interval at 95% and a two-sided test against none, with
Benjamini-Hochberg over the arms of a model; never a verdict. Pairs that share prompts are
clustered as verdicts have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast, get_args

import numpy as np
import pandas as pd
from scipy import stats

from kv_claims.claims.layers import resolve_layers
from kv_claims.claims.patch import Active, Patch
from kv_claims.claims.positions import resolve_window
from kv_claims.claims.sites import Site
from kv_claims.errors import UsageError
from kv_claims.evidence.schema import EvidenceSaid
from kv_claims.judging.contrast import Side, interval, one_sided
from kv_claims.judging.estimand import Direction, contrast, orientation
from kv_claims.judging.fieller import Interval
from kv_claims.judging.frame import Grouping, clustering
from kv_claims.report.view.scores import Scores

LEVEL = 0.95
FALSE_DISCOVERIES = 0.05
"""The share of false discoveries that Benjamini-Hochberg holds among what is marked."""
_JUDGED = ["pair", "seed", "source", "base", "score"]
_ROLES = ("patched", "versus", "wrong-layer")


class ArmView(NamedTuple):
    """One arm of a model.

    layers: resolved. share: of the base's positions that are patched, mean over pairs.
    transfer, interval: None where the data do not identify them. p: two-sided, against no
    transfer; None where no pair differs. q: p adjusted over the model's arms. truth: the transfer
    that follows from a planted model's weights, where a claim on this arm has it.
    """

    arm: str
    patch: Patch
    layers: tuple[int, ...]
    share: float
    pairs: int
    transfer: float | None
    interval: Interval | None
    p: float | None
    q: float | None
    truth: float | None

    @property
    def is_marked(self) -> bool:
        """Whether it is among the discoveries."""
        return self.q is not None and self.q <= FALSE_DISCOVERIES

    @property
    def is_splice_of_kv(self) -> bool:
        """Whether keys and values are replaced in the cache, in every head."""
        whole = (self.patch.heads, self.patch.mode) == ("all", "replace")
        return self.patch.site == "kv" and whole


def arms_of(evidence: Sequence[EvidenceSaid], scores: Scores) -> list[ArmView]:
    """The arms of one model with a single patch from the source, in the order of the evidence."""
    truths = _truths(evidence)
    found: dict[str, ArmView] = {}
    for one in evidence:
        for role in _ROLES:
            arm = one["arms"].get(role)
            if arm is not None and arm not in found and (patch := parse_arm(arm)) is not None:
                view = _measured(arm, patch, one, scores)
                if view is not None:
                    found[arm] = view._replace(truth=truths.get(arm))
    return _adjusted(list(found.values()))


def parse_arm(arm: str) -> Patch | None:
    """The patch of an arm's id, `source>kv@9/last(16)`; None for another donor, or several."""
    donor, _, text = arm.partition(">")
    if donor != "source" or "&" in text:
        return None
    head, *rest = text.split("/")
    site, _, layers = head.partition("@")
    if not rest:
        return None
    named: dict[str, str] = {}
    for extra in rest[1:]:
        name = "active" if extra.startswith("every_step") else "mode"
        named["heads" if extra.startswith("heads=") else name] = extra.removeprefix("heads=")
    try:
        return Patch(
            cast(Site, site),
            layers,
            rest[0],
            named.get("heads", "all"),
            named.get("mode", "replace"),
            cast(Active, named.get("active", "prompt")),
        )
    except UsageError:  # an id of another version
        return None


def _measured(arm: str, patch: Patch, one: EvidenceSaid, scores: Scores) -> ArmView | None:
    """An arm against base and source, on the pairs that all three have."""
    where = (one["model"], one["study"])
    rows = {
        role: scores.rows(where, name)
        for role, name in (("base", "base"), ("source", "source"), ("patched", arm))
    }
    known = {role: some[_JUDGED] for role, some in rows.items() if some is not None}
    if len(known) < len(rows):
        return None
    ids = [set(some["pair"]) for some in known.values()]
    pairs = set.intersection(*ids)
    if not pairs:
        return None
    table = pd.concat(
        [
            (some if len(own) == len(pairs) else some[some["pair"].isin(pairs)]).assign(arm=role)
            for own, (role, some) in zip(ids, known.items(), strict=True)
        ]
    )
    shown = transfer_in(table, "down" if one["scorer"].get("falls") else "up")
    n_layers = one["provenance"]["n_layers"]
    return ArmView(
        arm=arm,
        patch=patch,
        layers=resolve_layers(patch.layers, n_layers),
        share=_share(patch, *scores.lengths(where)),
        pairs=len(pairs),
        **shown._asdict(),
        q=None,
        truth=None,
    )


class Transfer(NamedTuple):
    """What a patched arm transfers; see `ArmView`."""

    transfer: float | None
    interval: Interval | None
    p: float | None


def transfer_in(table: pd.DataFrame, direction: Direction = "up") -> Transfer:
    """Of the arms base, source and patched of a table, as `judge` takes it, without holes."""
    return _transfer(clustering(table), direction)


def _transfer(grouping: Grouping, direction: Direction) -> Transfer:
    sign = orientation(grouping.scores, direction)
    found = contrast(grouping.scores, "transfer", sign, grouping.sharing)
    if grouping.clusters < 2 or np.mean(found.unit) <= 0:
        return Transfer(None, None, None)
    p = 2 * float(min(one_sided(found, side) for side in get_args(Side)))
    shown = interval(found, LEVEL)
    # Without an interval the ratio is not identified, and no number of it is worth showing.
    estimate = None if shown is None else float(found.estimate)
    return Transfer(estimate, shown, None if np.isnan(p) else p)


def _share(patch: Patch, source: Sequence[int], base: Sequence[int]) -> float:
    """Mean share of the base's positions that a patch writes; NaN where its text fits none.

    source, base: tokens of every pair.
    """
    shares = []
    for of_source, of_base in zip(source, base, strict=True):
        try:
            window = resolve_window(patch.positions, of_source, of_base, span=patch.span)
        except UsageError:
            return float("nan")
        whole = of_base - 1 if patch.is_splice else of_base
        shares.append(len(window.base_slots) / whole)
    return float(np.mean(shares)) if shares else float("nan")


def _truths(evidence: Sequence[EvidenceSaid]) -> dict[str, float]:
    """Transfer of behavior by arm, as it follows from the weights of a planted model."""
    found: dict[str, float] = {}
    for one in evidence:
        for arm, value in _truths_of(one):
            if value is not None:
                found.setdefault(arm, value)
    return found


def _truths_of(one: EvidenceSaid) -> Iterator[tuple[str, float | None]]:
    for part in one["parts"]:
        truth = part.get("truth")
        if (part["outcome"]["name"], part["estimand"]) != ("behavior", "transfer") or not truth:
            continue
        if "patched" in one["arms"]:
            yield one["arms"]["patched"], truth.get("value")
        if "wrong-layer" in one["arms"]:
            yield one["arms"]["wrong-layer"], (truth.get("controls") or {}).get("wrong-layer")


def _adjusted(arms: list[ArmView]) -> list[ArmView]:
    """With q values; an arm in which no pair differs counts as p = 1."""
    tested = [arm for arm in arms if arm.transfer is not None]
    if not tested:
        return arms
    p = [1.0 if arm.p is None else arm.p for arm in tested]
    adjusted = dict(zip((arm.arm for arm in tested), stats.false_discovery_control(p), strict=True))
    return [
        arm._replace(q=float(q) if (q := adjusted.get(arm.arm)) is not None else None)
        for arm in arms
    ]
