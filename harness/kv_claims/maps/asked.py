"""What a map is asked for: its cells by name, on no model yet. Text in, patches out. No torch.

Promises: what no model could have is one UsageError before a model is loaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

from kv_claims.claims.claim import Estimand
from kv_claims.claims.donors import FROM_SOURCE
from kv_claims.claims.outcome import GEOMETRY_NAMES, Outcome
from kv_claims.claims.patch import Patch
from kv_claims.claims.sites import Site, heads_of
from kv_claims.errors import UsageError

EACH = "each"
Axis = Literal["position", "head"]
_OUTSIDE = re.compile(r",(?![^(]*\))")
"""Commas that stand in no brackets."""


class Cell(NamedTuple):
    """One field of a map. row: its layer, as asked. column: its position or head, as asked."""

    row: str
    column: str
    patch: Patch


@dataclass(frozen=True)
class Asked:
    """A map, as asked.

    layers, positions, heads: 'each', or several with commas between them; heads None for a map of
        layers by positions, else it is one of layers by heads at the one position given.
    outcome, mode, donor: as in a claim and in `Patch`.
    Raises UsageError for what cannot be read, or does not go together.
    """

    site: str
    layers: str
    positions: str
    heads: str | None = None
    outcome: str = "logit_diff"
    mode: str = "replace"
    donor: str = FROM_SOURCE

    def __post_init__(self) -> None:
        if self.measured.name in GEOMETRY_NAMES:
            raise UsageError(
                f"outcome {self.outcome}: a map reads answers, likelihoods and texts; the geometry "
                "of values is for claims"
            )
        site = self.patch().site
        if self.heads is not None and heads_of(site) is None:
            raise UsageError(f"--heads {self.heads}: site {site!r} has no heads")
        # Each as a patch of its own: what cannot be read is said now.
        for layers in _named(self.layers, "layers"):
            self.patch(layers=layers)
        positions = _named(self.positions, "positions")
        for at in positions:
            self.patch(positions=at)
        for head in _named(self.heads or EACH, "heads"):
            self.patch(heads=head)
        if self.heads is not None and len(positions) != 1:
            raise UsageError(
                f"--positions {self.positions}: expected one position beside --heads, as a map is "
                "of layers by positions or of layers by heads"
            )

    @property
    def measured(self) -> Outcome:
        """The outcome, read."""
        return Outcome.parse(self.outcome)

    @property
    def axis(self) -> Axis:
        """What its columns are."""
        return "position" if self.heads is None else "head"

    @property
    def estimand(self) -> Estimand:
        """A transfer of what comes from the source; of any other donor a shift."""
        return "transfer" if self.donor == FROM_SOURCE else "shift"

    def patch(
        self, layers: str = "0", positions: str = "last(1)", heads: str | None = None
    ) -> Patch:
        """The patch of a cell."""
        layers = "0" if self.site == "embed" else layers
        return Patch(
            cast("Site", self.site),
            layers=layers,
            positions=positions,
            heads="all" if heads is None else heads,
            mode=self.mode,
            donor=self.donor,
        )

    def cells(self, n_layers: int, n_heads: int, shortest: int) -> list[Cell]:
        """All cells, row by row, those that the model does not have among them.

        n_heads: of the site; 0 where it has none. shortest: tokens of the shortest prompt, of which
        `each` position is one, counted from the end. A splice has no last token to write.
        """
        is_splice = self.patch().is_splice
        rows = _or_each(self.layers, "layers", range(1 if self.site == "embed" else n_layers))
        ends = [f"at({-k})" for k in range(shortest, int(is_splice), -1)]
        columns = ends if self.positions == EACH else listed(self.positions, "positions")
        if self.heads is None:
            return [Cell(row, at, self.patch(row, at, None)) for row in rows for at in columns]
        heads = _or_each(self.heads, "heads", range(n_heads))
        (at,) = columns
        return [Cell(row, head, self.patch(row, at, head)) for row in rows for head in heads]


def listed(text: str, what: str) -> list[str]:
    """Texts with commas between them. Raises UsageError where one is empty, or given twice."""
    found = ["".join(one.split()) for one in _OUTSIDE.split(text)]
    if not all(found):
        raise UsageError(
            f"--{what} {text!r}: expected '{EACH}', or several with one comma between them"
        )
    if len(set(found)) < len(found):
        raise UsageError(f"--{what} {text!r}: one is given twice")
    return found


def _named(text: str, what: str) -> list[str]:
    """Those that are given by name."""
    return [] if text == EACH else listed(text, what)


def _or_each(text: str, what: str, every: range) -> list[str]:
    return list(map(str, every)) if text == EACH else listed(text, what)
