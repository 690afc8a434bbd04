"""A cell as plain JSON: what is asserted, with its hash, and what its patches are on a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, Protocol

from kv_claims.claims.claim import Part
from kv_claims.claims.layers import resolve_heads, resolve_layers
from kv_claims.claims.outcome import Outcome
from kv_claims.claims.patch import Patch
from kv_claims.claims.sites import HeadCounts, heads_of
from kv_claims.errors import NoSuchCellError
from kv_claims.evidence.evidence import plan_sha
from kv_claims.study.cell import Cell


class Subject(Protocol):
    """What is told of a model: by one that is loaded, or by what was stored of it.

    heads: of each layer; 0 where it is not known.
    """

    @property
    def name(self) -> str: ...
    @property
    def n_layers(self) -> int: ...
    @property
    def heads(self) -> HeadCounts: ...


class KnownModel(NamedTuple):
    """A model that is not loaded."""

    name: str
    n_layers: int
    n_kv_heads: int = 0
    n_query_heads: int = 0

    @property
    def heads(self) -> HeadCounts:
        """Heads of each layer."""
        return HeadCounts(self.n_kv_heads, self.n_query_heads)


def stated(cell: Cell) -> dict[str, Any]:
    """What is asserted and asked, and its hash as `sha`; nothing needs to have run.

    An open end of a region is None. Patches are as they were asked, not as resolved on a model.
    """
    claim, family = cell.claim, cell.share.family
    plan = {
        "claim": claim.id,
        "says": claim.says,
        "cites": claim.cites,
        "parts": _parts(claim.parts),
        "given": _parts(claim.given),
        "about": claim.about,
        "margin": float(claim.margin),
        "family": family.name,
        "family_size": family.size,
        "looks": list(claim.looks),
        "patch": [str(patch) for patch in cell.patches],
        "versus": [str(patch) for patch in cell.versus],
    }
    return {**plan, "sha": plan_sha(plan)}


def described(patches: Sequence[Patch], model: Subject) -> dict[str, Any] | None:
    """Patches as they were asked and as they are on a model; of several the first, all in `all`.

    Layers and heads that the model does not have are resolved to none.
    """
    if not patches:
        return None
    found = [
        {
            **asdict(patch),
            "text": str(patch),
            "resolved_layers": _layers(patch, model.n_layers),
            "resolved_heads": _heads(patch, model.heads),
            "head_kind": heads_of(patch.site),
            "n_layers": model.n_layers,
            "semantics": "splice" if patch.is_splice else "in-prefill",
            "positions_count": "the T-1 cached tokens"
            if patch.is_splice
            else "the T prompt tokens",
        }
        for patch in patches
    ]
    return {**found[0], "all": found}


def _parts(parts: Sequence[Part]) -> list[dict[str, Any]]:
    return [
        {
            "outcome": str(Outcome.parse(part.outcome)),
            "estimand": part.estimand,
            "region": [
                float(end) if math.isfinite(end) else None
                for end in (part.region.low, part.region.high)
            ],
        }
        for part in parts
    ]


def _layers(patch: Patch, n_layers: int) -> list[int]:
    return _if_any(lambda: resolve_layers(patch.layers, n_layers))


def _heads(patch: Patch, heads: HeadCounts) -> list[int] | None:
    kind, count = heads_of(patch.site), heads.of(patch.site)
    if kind is None or count is None:
        return None
    return _if_any(lambda: resolve_heads(patch.heads, count, kind))


def _if_any(resolve: Callable[[], Sequence[int]]) -> list[int]:
    try:
        return list(resolve())
    except NoSuchCellError:
        return []
