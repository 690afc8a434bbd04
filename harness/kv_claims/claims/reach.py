"""Whether a patch can move an outcome, and whether moving it would show anything.

A patch writes *cells*: (layer, tensor, position). This module follows them through a causal
transformer as sets of positions, layer by layer. Per cell, for the patched arm:
  changed  it may differ from the base: it was written, or an input of it is changed;
  pasted   it was written itself, in part (heads, mix, add, project_out) or whole;
  given    nothing of the base is in it: it was written whole, or all its inputs are given
           (by the donor's run, or by a constant, such as zeros);
  fixed    changed, and pasted or given: arithmetic of what was pasted, whatever the model does;
  moved    changed and not fixed: what the model made of the patch.
Inputs: the stream before layer 0 at p is computed from the token at p, of layer l from the output
of l-1 at p; queries, keys and values of l at p from the stream before l at p; z at p from the
query at p and keys and values at 0..p (at p = 0 there is one key to choose from, so neither query
nor key matters there); attn_out from z; the stream behind it from both; mlp_out from that (in
parallel blocks from the stream before, which makes no difference to what is read); the layer's
output from both; logits at p from the last output at p; a sampled token from the logits before it.
A splice is written once positions 0..T-2 are computed: only the last prompt token and what follows
read it. v_proj outputs are read as they stand in the cache.
Outcomes read: geometry the values of its layers in its window; text all logits from the last
prompt token on, and tokens follow from them; likelihood and answers the same, with the tokens held.
  null          no cell that is read is changed.
  tautological  of geometry: some cell that is read is fixed (*measured-where-patched*). A ratio is
                one number over all its rows, so pasted rows move it by themselves and the share of
                the others cannot be told apart; this holds across both layers of R_V. Of text and
                likelihood, which are means over predictions: some is fixed and none is moved.
  informative   else.
Does not: know sliding windows (taken as full attention), nor whether weights use what they can.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kv_claims.claims.donors import is_constant
from kv_claims.claims.layers import resolve_layers
from kv_claims.claims.outcome import WINDOW, Outcome
from kv_claims.claims.patch import Patch, as_patches, donor_of, is_full_swap, window_of
from kv_claims.claims.positions import Prompted, n_tokens, resolve_window
from kv_claims.claims.sites import Tensor
from kv_claims.errors import UsageError

Kind = Literal["tautological", "null", "informative"]
Flags = NDArray[np.bool_]

READ_TOKENS = WINDOW + 1
"""Generated tokens that are followed: a full window, and the first token in front of it."""


class Reach(NamedTuple):
    """What an outcome can say about a patch, and why in one sentence."""

    kind: Kind
    why: str


class Cells(NamedTuple):
    """What became of some cells, flags of one shape: `[pos]`, or `[layer, pos]`."""

    changed: Flags
    pasted: Flags
    given: Flags

    @property
    def fixed(self) -> Flags:
        """Arithmetic of what was pasted."""
        return self.changed & (self.pasted | self.given)

    @property
    def moved(self) -> Flags:
        """What the model made of the patch."""
        return self.changed & ~self.fixed


class Flow(NamedTuple):
    """Every cell that an outcome may read.

    prompt_tokens: T of the patched arm; position T-1 is the last prompt token, T .. T+16 are
    generated. keys, values: `[layer, pos]`. logits: `[pos]`; those before T-1 are never read.
    """

    prompt_tokens: int
    keys: Cells
    values: Cells
    logits: Cells


class SeedCell(NamedTuple):
    """One cell of the seed's table method x outcome."""

    method: str
    patch: Patch
    outcome: Outcome
    kind: Kind
    why: str


SEED_METHODS: tuple[tuple[str, Patch], ...] = (
    *(
        ("true KV cache", Patch("kv", layers=layers, positions=f"last({width})"))
        for width in (16, 32)
        for layers in ("18/32", "25/32", "27/32", "25/32+27/32")
    ),
    ("KV_CACHE (K+V proj)", Patch("kv_proj", layers="27/32", positions="last(16)")),
    ("V_PROJ", Patch("v_proj", layers="27/32", positions="last(16)")),
    ("RESIDUAL", Patch("residual", layers="25/32", positions="last(16)")),
    ("RESIDUAL", Patch("residual", layers="27/32", positions="last(16)")),
)
"""The seed's methods, by its own names, at its layers (as depths) and windows."""


def seed_methods(n_layers: int) -> list[tuple[str, Patch]]:
    """Those of the seed's methods that so many layers have: of 8, one is 25/32 and 27/32."""
    return [(method, patch) for method, patch in SEED_METHODS if _is_there(patch, n_layers)]


def _is_there(patch: Patch, n_layers: int) -> bool:
    try:
        resolve_layers(patch.layers, n_layers)
    except UsageError:
        return False
    return True


SEED_OUTCOMES = tuple(Outcome.parse(text) for text in ("behavior", "pr@27/32", "rv"))


def classify(
    patches: Patch | Sequence[Patch],
    outcome: Outcome,
    *,
    n_layers: int,
    source: Prompted,
    base: Prompted,
    fed: int | None = None,
) -> Reach:
    """What an outcome can say about the patches of one arm, for one pair; see the module's rule.

    source, base: the prompts, or T of each. Generations are taken to be longer than a window.
    fed: tokens of the longest text that is fed behind the prompt, of which so many predictions are
        read: an answer of one token is read at the prompt's last position alone.
    Raises UsageError for layers, positions and windows that do not fit.
    """
    patches = as_patches(patches)
    flow = trace(
        patches,
        n_layers=n_layers,
        source=source,
        base=base,
        forced=outcome.is_fed,
    )
    by = " & ".join(map(str, patches))
    if outcome.is_geometry:
        return _of_geometry(flow, outcome, n_layers, by)
    return _of_logits(flow, outcome, by, READ_TOKENS if fed is None else fed)


def seed_table(
    *, n_layers: int = 32, source_tokens: int = 64, base_tokens: int = 48
) -> list[SeedCell]:
    """The seed's table method x outcome, each cell with what its number can say.

    The kinds depend on the number of layers (on 16 layers, depth 25/32 is the layer just below
    27/32), but not on the tokens, where the widest window is shorter than both prompts.
    Methods whose layers meet on so few are left out.
    """
    return [
        SeedCell(
            method,
            patch,
            outcome,
            *classify(
                patch,
                outcome,
                n_layers=n_layers,
                source=source_tokens,
                base=base_tokens,
            ),
        )
        for method, patch in seed_methods(n_layers)
        for outcome in SEED_OUTCOMES
    ]


@lru_cache(maxsize=4096)
def is_donor(
    patches: tuple[Patch, ...], *, n_layers: int, source: Prompted, base: Prompted
) -> bool:
    """Whether an arm runs its donor under another name: nothing of the base is left in the cache.

    Followed cell by cell, so no spelling hides it: what counts is that each key and value of each
    layer and head at each of the T-1 cached positions was written, or computed from what was
    written alone. The base's last token may be left. patches: of one arm, in one spelling. What is
    no prompt's (zeros, a mean, a direction) is nobody's run.
    """
    if is_constant(donor_of(patches)):
        return False
    if is_full_swap(patches, n_layers):
        return True
    base_tokens = n_tokens(base)
    written = _Written(n_layers, base_tokens)
    for patch in patches:
        if patch.mode == "append":
            return False
        written.add(patch, source, base)
    untouched = Cells(*(np.zeros(written.shape[1], dtype=np.bool_) for _ in range(3)))
    flow = _through_the_layers(written, untouched, base_tokens)
    cached = slice(base_tokens - 1)
    return bool((flow.keys.given & flow.values.given)[:, cached].all())


@lru_cache(maxsize=4096)
def trace(
    patches: tuple[Patch, ...],
    *,
    n_layers: int,
    source: Prompted,
    base: Prompted,
    forced: bool = False,
) -> Flow:
    """What the patches do to every value and to the logits of the base's run.

    forced: whether the tokens behind the prompt are given (the source's continuation) rather than
        sampled from the logits.
    """
    # A full swap takes the source's length and its last token: it is the donor's run.
    full_swap = is_full_swap(patches, n_layers)
    if full_swap:
        base = source
    tokens = n_tokens(base) + sum(
        len(resolve_window(patch.positions, source, source).source_slots)
        for patch in patches
        if patch.mode == "append"
    )
    written = _Written(n_layers, tokens)
    for patch in patches:
        written.add(patch, source, base)
    fed = Cells(*(np.zeros(written.shape[1], dtype=np.bool_) for _ in range(3)))
    fed.changed[tokens - 1] = fed.given[tokens - 1] = full_swap
    fed.given[tokens:] = forced
    while True:
        flow = _through_the_layers(written, fed, tokens)
        if forced:
            return flow
        sampled = Cells(fed.changed.copy(), fed.pasted, fed.given.copy())
        sampled.changed[tokens:] = flow.logits.changed[tokens - 1 : -1]
        sampled.given[tokens:] = flow.logits.given[tokens - 1 : -1]
        # Each round settles at least one token more, and there are finitely many.
        if all((a == b).all() for a, b in zip(sampled, fed, strict=True)):
            return flow
        fed = sampled


class _Written:
    """The cells that an arm's patches write: `[layer, pos]` for each tensor, by when they do.

    some: written at all. whole: with nothing of the base left in it.
    """

    def __init__(self, n_layers: int, tokens: int) -> None:
        self.shape = (n_layers, tokens + READ_TOKENS)
        self._tokens = tokens
        self._some: dict[tuple[Tensor, bool], Flags] = {}
        self._whole: dict[tuple[Tensor, bool], Flags] = {}

    def add(self, patch: Patch, source: Prompted, base: Prompted) -> None:
        """Mark the cells of one patch."""
        if patch.mode == "append":
            positions = np.arange(n_tokens(base) - 1, self._tokens - 1)
        else:
            window = window_of(patch, source, base)
            positions = np.asarray(window.base_slots)
        if patch.active != "prompt":
            positions = np.append(positions, np.arange(self._tokens, self.shape[1]))
        layers = np.asarray(resolve_layers(patch.layers, self.shape[0]))
        for tensor in patch.tensors:
            key = (tensor, patch.is_splice)
            for flags, here in (
                (self._some, True),
                (self._whole, patch.writes_whole),
            ):
                if key not in flags:
                    flags[key] = np.zeros(self.shape, dtype=np.bool_)
                flags[key][layers[:, None], positions] |= here

    def over(self, cells: Cells, tensor: Tensor, layer: int, *, splice: bool) -> Cells:
        """The cells of one layer once they are written over."""
        key = (tensor, splice)
        if key not in self._some:
            return cells
        some, whole = self._some[key][layer], self._whole[key][layer]
        return Cells(cells.changed | some, cells.pasted | some, cells.given | whole)


def _through_the_layers(written: _Written, fed: Cells, tokens: int) -> Flow:
    """One pass from the tokens that are fed up to the logits."""
    after_splice = np.arange(written.shape[1]) >= tokens - 1
    stream, kept_keys, kept_values = fed, list[Cells](), list[Cells]()
    for layer in range(written.shape[0]):

        def over(cells: Cells, tensor: Tensor, layer: int = layer) -> Cells:
            return written.over(cells, tensor, layer, splice=False)

        if layer == 0:
            stream = over(_passed_on(stream), "embed")
        stream = over(_passed_on(stream), "resid_pre")
        queries, keys, values = (over(_passed_on(stream), tensor) for tensor in ("q", "k", "v"))
        before = _attend(queries, keys, values)
        keys = written.over(keys, "k", layer, splice=True)
        values = written.over(values, "v", layer, splice=True)
        after = _attend(queries, keys, values)
        kept_keys.append(keys)
        kept_values.append(values)
        z = Cells(*(np.where(after_splice, b, a) for a, b in zip(before, after, strict=True)))
        attn_out = over(_passed_on(over(z, "z")), "attn_out")
        stream = over(_added(stream, attn_out), "resid_mid")
        mlp_out = over(_passed_on(stream), "mlp_out")
        stream = over(_added(stream, mlp_out), "residual")
    return Flow(tokens, _stacked(kept_keys), _stacked(kept_values), _passed_on(stream))


def _stacked(layers: Sequence[Cells]) -> Cells:
    return Cells(*(np.stack(flags) for flags in zip(*layers, strict=True)))


def _attend(queries: Cells, keys: Cells, values: Cells) -> Cells:
    """What heads give: each position reads by its own query keys and values up to its own."""
    key_changed = np.logical_or.accumulate(keys.changed) | queries.changed
    key_changed[0] = False
    value_changed = np.logical_or.accumulate(values.changed)
    given = np.logical_and.accumulate(keys.given & values.given)
    return Cells(key_changed | value_changed, np.zeros_like(queries.pasted), queries.given & given)


def _added(stream: Cells, more: Cells) -> Cells:
    """A stream with what is added to it."""
    return Cells(
        stream.changed | more.changed, np.zeros_like(stream.pasted), stream.given & more.given
    )


def _passed_on(cells: Cells) -> Cells:
    """Cells that are computed from these, position by position, and not written themselves."""
    return Cells(cells.changed, np.zeros_like(cells.pasted), cells.given)


def _of_geometry(flow: Flow, outcome: Outcome, n_layers: int, by: str) -> Reach:
    """Classify what is read from the values in a window."""
    rows = np.asarray(outcome.rows(flow.prompt_tokens, READ_TOKENS + 1))
    layers = outcome.layers(n_layers)
    read = Cells(*(flags[np.asarray(layers)[:, None], rows] for flags in flow.values))
    noun = "layer" if len(layers) == 1 else "layers"
    reads = (
        f"reads v_proj of {noun} {' and '.join(map(str, layers))} at "
        f"{_named(rows, flow.prompt_tokens)}"
    )
    if not read.changed.any():
        return Reach("null", f"{reads}, none of which {by} can reach")
    said = []
    for place, layer in enumerate(layers):
        row_cells = Cells(*(flags[place] for flags in read))
        of_layer = "" if len(layers) == 1 else f"layer {layer}: "
        said.append(of_layer + _fates(row_cells, rows, flow.prompt_tokens, by))
    kind: Kind = "tautological" if read.fixed.any() else "informative"
    return Reach(kind, f"{reads}; {'; '.join(said)}")


def _fates(read: Cells, rows: NDArray[np.int_], prompt_tokens: int, by: str) -> str:
    """What became of the rows of one layer: a clause for each fate that occurs."""
    pasted = read.changed & read.pasted
    fates = (
        (pasted, f"pasted by {by}"),
        (read.fixed & ~pasted, f"following from what {by} pasted and nothing else"),
        (read.moved, f"computed downstream of {by}"),
        (~read.changed, "out of its reach"),
    )
    return ", ".join(
        f"{'all' if flags.all() else _named(rows[flags], prompt_tokens)} {fate}"
        for flags, fate in fates
        if flags.any()
    )


def _of_logits(flow: Flow, outcome: Outcome, by: str, predictions: int) -> Reach:
    """Classify what is read from so many predictions after the prompt, if they are traced."""
    last = flow.prompt_tokens - 1
    rows = np.arange(last, min(last + predictions, len(flow.logits.changed)))
    fixed, moved = flow.logits.fixed[rows], flow.logits.moved[rows]
    what = "text sampled from the logits" if outcome.is_text else "the logits"
    reads = f"reads {what} of position {last} (the last of the prompt)"
    if predictions > 1:
        reads += f" and of {'fed' if outcome.behind else 'generated'} ones"
    if not (fixed | moved).any():
        return Reach("null", f"{reads}, none of which {by} can reach")
    settled = f"at {_named(rows[fixed], last + 1)} they follow from what {by} pasted and nothing"
    if not moved.any():
        return Reach("tautological", f"{reads}; {settled} else, and {by} reaches no others")
    also = f"; {settled} else" if fixed.any() else ""
    return Reach("informative", f"{reads}, computed downstream of {by}{also}")


def _named(rows: NDArray[np.int_], prompt_tokens: int) -> str:
    """Ascending positions in words, runs as 'a..b'; generated ones have no place of their own."""
    prompt = [int(row) for row in rows if row < prompt_tokens]
    starts = [row for row in prompt if row - 1 not in prompt]
    ends = [row for row in prompt if row + 1 not in prompt]
    runs = [f"{a}..{b}" if a < b else str(a) for a, b in zip(starts, ends, strict=True)]
    named = [f"position{'s' * (len(prompt) > 1)} {', '.join(runs)}"] if runs else []
    if n := len(rows) - len(prompt):
        named.append(f"the last {WINDOW} generated" if n == WINDOW else "generated positions")
    return " and ".join(named)
