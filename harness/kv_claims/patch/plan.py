"""What a row of a batch is, as data: its prompt, what is written into it, what the writing did.

Decided from token counts before a model runs (`run.rows`); carried out by `patch.splice` and
`patch.activations`.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from kv_claims.claims.modes import Kind
from kv_claims.claims.patch import Active
from kv_claims.claims.positions import Window
from kv_claims.claims.sites import CACHE_SITES, PARTS, TENSORS, Site, Spot, Tensor, in_order
from kv_claims.patch.constant import Constant


class Write(NamedTuple):
    """What one row gets from where, by one patch.

    donor: the store's prompt that is pasted; of a constant the row's own, which is not read.
    layers, heads: ascending; heads None are all.
    window: positions of donor and row (cached slots for a splice, prompt tokens else).
    mode, alpha: how it is put together with what stands there, and the donor's weight.
    active: whether it goes on while the row generates.
    constant: what is written where no prompt is the donor.
    noise: None, or the name of the draw that replaces the donor's directions.
    instead_of: the store's prompt and window, or the constant, that the patched arm would paste,
        where this is a control for it.
    must_change: whether the tokens say that numbers of every tensor change: some that is written
        belongs to another token. vacuous: whether they say of a control that it pastes what the
        patched arm does. Both are of `patch.likeness`.
    """

    donor: int
    site: Site
    layers: tuple[int, ...]
    window: Window
    heads: tuple[int, ...] | None = None
    mode: Kind = "replace"
    alpha: float = 1.0
    active: Active = "prompt"
    constant: Constant | None = None
    noise: str | None = None
    instead_of: tuple[int, Window] | Constant | None = None
    must_change: bool = True
    vacuous: bool = False

    @property
    def is_splice(self) -> bool:
        return self.site in CACHE_SITES

    @property
    def appended(self) -> bool:
        """Whether the window of the row lies behind its own cache."""
        return self.mode == "append"

    @property
    def writes_whole(self) -> bool:
        """Whether what is written is the donor's alone, as it is."""
        return self.mode in ("replace", "append", "mix") and self.alpha == 1

    @property
    def reads(self) -> list[tuple[int, Window]]:
        """Prompts and windows that are read for it: the donor's, and what it is instead of."""
        own = [(self.donor, self.window)] if self.constant is None else []
        return own + ([self.instead_of] if isinstance(self.instead_of, tuple) else [])

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return TENSORS[self.site]

    @property
    def reads_steps(self) -> bool:
        """Whether it reads its donor's own generation at every step."""
        return self.active == "every_step" and self.constant is None

    @property
    def moves_cache_from(self) -> int:
        """The lowest layer whose keys or values it changes: much of a block is read above it."""
        return self.layers[0] + (not PARTS[self.tensors[0]].feeds_cache)

    @property
    def is_stream(self) -> bool:
        """Whether it writes all that anything later gets from its positions."""
        return PARTS[self.tensors[0]].is_stream

    @property
    def spots(self) -> list[Spot]:
        """Layers and tensors that it writes, in the order in which they are computed."""
        return sorted(product(self.layers, self.tensors), key=in_order)

    @property
    def gives_from(self) -> tuple[int, int]:
        """The lowest spot, as in `in_order`, behind which something may follow from it alone."""
        # Keys give no values.
        return in_order(max(self.spots[: len(self.tensors)], key=in_order))

    @property
    def n_tensors(self) -> int:
        """Tensors that it writes, over its layers."""
        return len(self.layers) * len(self.tensors)


class RowPlan(NamedTuple):
    """One row of a batch: the prompt it starts from, and what is written over it.

    tokens: prompt length T after the writes (the source's in a full swap, longer after an append).
    """

    prompt: int
    tokens: int
    writes: tuple[Write, ...] = ()

    @property
    def needs_prompt_pass(self) -> bool:
        """Whether some of its prompt, or of a donor's, is computed anew for it."""
        return any(w.active == "every_step(held)" or not w.is_splice for w in self.writes)

    @property
    def computed(self) -> range:
        """Positions of its prompt that are computed anew: from the first that is overwritten.

        Up to T-2, the last that is cached; the last token's own too where it is overwritten, so
        that what is there can be compared. Empty where the cache alone is written to.
        """
        windows = [write.window.base_slots for write in self.writes if not write.is_splice]
        if not windows:
            return range(0)
        last = max(window.stop for window in windows)
        return range(min(window.start for window in windows), max(self.tokens - 1, last))

    @property
    def computed_from_layer(self) -> int | None:
        """The lowest layer in which its cached prompt is computed anew; None where in none.

        Below it, and before the first of `computed`, it is the store's.
        """
        if self.computed.start >= min(self.computed.stop, self.tokens - 1):
            return None
        return min(write.moves_cache_from for write in self.writes if not write.is_splice)

    def own_from(self, n_layers: int, prompt_tokens: int) -> int:
        """The lowest layer whose keys or values are not those of its prompt unpatched, or n_layers.

        prompt_tokens: T of that prompt. Below the layer both compute the same of the same tokens,
        from the first generated one on. Of the last prompt token too, but for its logits where the
        last layer's output is written at it.
        """
        if self.tokens != prompt_tokens:
            return 0
        return min((write.moves_cache_from for write in self.writes), default=n_layers)

    @property
    def step_donors(self) -> tuple[int, ...]:
        """Prompts whose own generation it reads at every step."""
        return tuple(dict.fromkeys(w.donor for w in self.writes if w.reads_steps))

    def writes_last_token(self, write: Write) -> bool:
        """Whether a write covers the last prompt token, which is fed in the first step."""
        return not write.is_splice and write.window.base_slots.stop == self.tokens

    def planned_at_step(self, step: int) -> int:
        """Tensors to write while the token of a step is fed; step 0 feeds the last prompt token."""
        if step == 0:
            return sum(w.n_tensors for w in self.writes if self.writes_last_token(w))
        return sum(w.n_tensors for w in self.writes if w.active != "prompt")


class Footprint(NamedTuple):
    """What the writes did to one row before it generated.

    fired: tensors written (layers x tensors). elements: numbers that were read back as they were
    to be written. changed: how many have other bits than what stood there. beyond_rounding: how
    many of these differ by more than two computations of one number do (`overwrite.ROUNDING`; what
    is copied over itself may not differ at all). least_changed: the fewest changed in one tensor
    (of a stream in several layers: in the lowest), None where none must change.
    differs: how many differ from what the patched arm would write (controls only).
    """

    fired: int = 0
    elements: int = 0
    changed: int = 0
    beyond_rounding: int = 0
    least_changed: int | None = None
    differs: int | None = None

    def and_also(self, other: Footprint) -> Footprint:
        """Both together: the footprint of a row with two writes."""
        if not self.fired or not other.fired:
            return other if not self.fired else self
        known = [differs for differs in (self.differs, other.differs) if differs is not None]
        least = [n for n in (self.least_changed, other.least_changed) if n is not None]
        return Footprint(
            self.fired + other.fired,
            self.elements + other.elements,
            self.changed + other.changed,
            self.beyond_rounding + other.beyond_rounding,
            min(least, default=None),
            sum(known) if known else None,
        )


class Steps(NamedTuple):
    """What the writes did to one row while it generated; see `Footprint`."""

    fired: int = 0
    changed: int = 0
    beyond_rounding: int = 0
