"""From patches and a donor to what is written where, for the truth.

Follows the meaning of a patch as `kv_claims.claims.patch` and DESIGN.md give it, from token counts
alone: a splice writes over the first T-1 positions, an in-prefill patch over all T, and what is
active at every step also over those behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kv_claims.claims.donors import is_constant, vector_of
from kv_claims.claims.layers import resolve_layers
from kv_claims.claims.patch import (
    Patch,
    check_apart,
    heads_on,
    is_full_swap,
)
from kv_claims.claims.patch import window_of as window_in_place
from kv_claims.claims.positions import Extent, Positions, Window, resolve_window
from kv_claims.claims.sites import HeadCounts
from kv_claims.errors import UsageError
from kv_claims.planted.catalog import N_HEADS, N_KV_HEADS, N_LAYERS, Planted
from kv_claims.planted.circuit import Circuit
from kv_claims.planted.features import Cases, Prompts
from kv_claims.planted.simulate import Constant, Fill, Paste, Trace, run
from kv_claims.planted.unknown import UnknownTruth

OTHER_PROMPTS = ("unrelated-base", "resample")
"""Donors that are another pair's base."""
DONORS = ("source", "base", "noise", *OTHER_PROMPTS, "zero", "mean")
"""Donors whose truth is known, beside directions that the task names."""


HEADS = HeadCounts(N_KV_HEADS, N_HEADS)


class Row(NamedTuple):
    """A patched arm: its prompts, those of its donor, and what goes from one to the other."""

    prompts: Prompts
    donor: Prompts
    pastes: tuple[Paste, ...]

    def run(
        self,
        circuit: Circuit,
        fill: Fill | None = None,
        *,
        own_feedback: float = 0.0,
        donor_feedback: float = 0.0,
    ) -> Trace:
        """The row's run. The feedbacks are the triggers of all words that each generates."""
        trigger = circuit.at("trigger")
        donor = run(circuit, self.donor.going_on(trigger, donor_feedback))
        prompts = self.prompts.going_on(trigger, own_feedback)
        return run(circuit, prompts, donor, self.pastes, fill)

    @property
    def follows_donor(self) -> bool:
        """Whether what is written depends on what the donor generates."""
        first = self.prompts.tokens[:, None]
        return any(
            not paste.held
            and paste.constant is None
            and bool((paste.written & (self.prompts.positions >= first)).any())
            for paste in self.pastes
        )


def check(patches: Sequence[Patch], donor: str) -> None:
    """Raise UsageError for patches or a donor that do not fit the planted models."""
    if donor.startswith("random("):
        raise UnknownTruth(f"donor {donor!r}: the truth of directions of chance is not known")
    if donor not in DONORS and vector_of(donor) is None:
        raise UsageError(f"donor {donor!r}: expected one of {', '.join(DONORS)}, vector(NAME)")
    check_apart(patches, N_LAYERS)
    for patch in patches:
        heads_on(patch, HEADS)


def check_noise(planted: Planted, patches: Sequence[Patch]) -> None:
    """Raise UnknownTruth where noise has no law: elsewhere than on keys and values, or on keys that
    are read by queries with content."""
    for patch in patches:
        known = {"v"} if planted.filled else {"k", "v"}
        if not known.issuperset(patch.tensors):
            raise UnknownTruth(
                f"donor 'noise' on {patch.site}: the truth is not known; expected "
                f"{' or '.join({'k': 'keys', 'v': 'values'}[one] for one in sorted(known))}"
            )


def is_source_run(patches: Sequence[Patch], donor: str) -> bool:
    """Whether the arm starts from the source: the full swap, and what else names all of a cache."""
    return donor == "source" and is_full_swap(patches, N_LAYERS)


def extra_positions(patches: Sequence[Patch], longest: int) -> int:
    """Positions by which appending makes a row longer; `longest` bounds a window."""
    return longest if any(patch.mode == "append" for patch in patches) else 0


def may_stand_in(patches: Sequence[Patch], source: Extent, base: Extent, other: Extent) -> bool:
    """Whether a prompt has the positions of every window, as the control's donor must."""
    windows = [(patch, window_of(patch, source, base)) for patch in patches]
    try:
        return other.tokens >= 2 and all(_aligned(*of, other) for of in windows)
    except UsageError:
        return False


def window_of(patch: Patch, source: Extent, base: Extent) -> Window:
    """The source's positions and those of the row that they are written to."""
    if patch.mode == "append":
        taken = resolve_window(patch.positions, source, source).source_slots
        return Window(taken, range(base.tokens - 1, base.tokens - 1 + len(taken)))
    return window_in_place(patch, source, base)


def row_of(
    cases: Cases, patches: Sequence[Patch], donor: str, constant: Constant | None = None
) -> Row:
    """The arm of some pairs in which the base gets the donor's activations.

    constant: what is written where no prompt is the donor.
    """
    assert is_constant(donor) is (constant is not None)
    row = cases.source if is_source_run(patches, donor) else cases.base
    if row is cases.source and all(patch.active != "every_step(held)" for patch in patches):
        # Whatever is written stands there already.
        return Row(row, row, ())
    prompts = cases.source if donor in ("source", "noise") else cases.base
    if donor in OTHER_PROMPTS:
        prompts = cases.unrelated
    both = list(zip(cases.source.extents, row.extents, strict=True))
    windows = [[window_of(patch, *pair) for pair in both] for patch in patches]
    if patches[0].mode == "append":
        row = row.parted(len(windows[0][0].base_slots))
    pastes: list[Paste] = []
    for patch, found in zip(patches, windows, strict=True):
        if donor == "base" or donor in OTHER_PROMPTS:
            found = [
                _aligned(patch, window, there)
                for there, window in zip(prompts.extents, found, strict=True)
            ]
        pastes += _pastes(patch, found, row, prompts, constant)
    return Row(row, prompts, tuple(pastes))


def _aligned(patch: Patch, window: Window, donor: Extent) -> Window:
    """The donor's own window for the base's. Raises UsageError where it has not so many there."""
    width = len(window.base_slots)
    slots = Positions.parse(patch.positions).slots(donor, patch.span, width, "donor", "this pair")
    return Window(slots, window.base_slots)


def _pastes(
    patch: Patch, windows: list[Window], row: Prompts, donor: Prompts, constant: Constant | None
) -> list[Paste]:
    """The window, once; and the generated positions, where the patch stays on.

    None where only heads of queries are written whose output nothing reads: all but the first.
    """
    heads = heads_on(patch, HEADS)
    if patch.site == "z" and heads is not None and 0 not in heads:
        return []
    pos = row.positions
    first = np.array([window.base_slots.start for window in windows])[:, None]
    stop = np.array([window.base_slots.stop for window in windows])[:, None]
    shift = np.array([window.shift for window in windows])[:, None]
    layers = frozenset(resolve_layers(patch.layers, N_LAYERS))
    alpha = patch.alpha

    def paste(written: np.ndarray, taken: np.ndarray, in_cache: bool, held: bool) -> Paste:
        return Paste(
            layers,
            patch.tensors,
            written,
            np.where(written, taken, 0),
            alpha,
            in_cache,
            held,
            patch.how.kind,
            constant,
        )

    found = [paste((pos >= first) & (pos < stop), pos - shift, patch.is_splice, False)]
    if patch.active == "prompt":
        return found
    behind = pos >= row.tokens[:, None]
    last = donor.tokens[:, None] - 1
    if patch.active == "every_step(held)":
        return [*found, paste(behind, last + 0 * pos, False, True)]
    # Both blocks have as many positions; what lies beyond the donor's end is beyond the last step.
    same_step = np.minimum(last + 1 + pos - row.tokens[:, None], len(pos) - 1)
    return [*found, paste(behind, same_step, False, False)]
