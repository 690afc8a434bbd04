"""A planted circuit run in numpy: every position of many prompts at once, patched or not.

Exact, up to the 1e-7 by which the network's RMSNorm is not linear. Layer by layer, because a
position's value follows from its own state and attention is causal: one pass gives the prompt and
all generated positions, as long as what generated words bring is known beforehand (`law` sees to
the rest). Keys matter only where a layer matches; the frequency there is so small that where a
key came from does not.
Does not: know patches (`pasting` turns them into what is written where), nor words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from kv_claims.claims.modes import Kind
from kv_claims.claims.sites import Tensor
from kv_claims.planted.catalog import D_HEAD
from kv_claims.planted.circuit import CONTENT_SQUARE, Circuit, Floats, Layer
from kv_claims.planted.features import Ints, Prompts

Bools = npt.NDArray[np.bool_]
Constant = Callable[[int, Tensor], Floats]
"""The simulated components of a layer's tensor, `[component]`, or one number for all."""


class Trace(NamedTuple):
    """All that a run computed, by layer.

    values: `[component, row, pos]`. keys: what is matched, `[row, pos]`. states: the layer's
    output, `[dim, row, pos]`. within: the other tensors of the block that are read by anything, of
    z `[component, row, pos]` of the head that is read, else `[dim, row, pos]`. Layers that nothing
    reads have no values.
    """

    values: list[Floats]
    keys: list[Floats]
    states: list[Floats]
    within: list[dict[Tensor, Floats]]

    def tensor(self, layer: int, tensor: Tensor) -> Floats:
        """One tensor of a layer, `[..., row, pos]`."""
        if tensor in self.within[layer]:
            return self.within[layer][tensor]
        if tensor == "k":
            return self.keys[layer][None]
        return self.states[layer] if tensor == "residual" else self.values[layer]


class Paste(NamedTuple):
    """What is written where, with what weight.

    written: `[row, pos]`. taken: the donor's position, `[row, pos]`, any where nothing is written.
    in_cache: over the cached slots once the prompt is computed; else while it is computed.
    held: one vector stands at all written positions. mode: how it is put together with what stands
    there. constant: what is written where no prompt is the donor.
    """

    layers: frozenset[int]
    tensors: tuple[Tensor, ...]
    written: Bools
    taken: Ints
    alpha: float
    in_cache: bool
    held: bool
    mode: Kind = "replace"
    constant: Constant | None = None


class Fill(Protocol):
    """What is written instead of a donor's vectors: `[component, row, pos]` to the same.

    unseen: how many components of content the vectors have besides what is simulated.
    """

    def __call__(self, vectors: Floats, unseen: int, held: bool, /) -> Floats: ...


def run(
    circuit: Circuit,
    prompts: Prompts,
    donor: Trace | None = None,
    pastes: tuple[Paste, ...] = (),
    fill: Fill | None = None,
) -> Trace:
    """Run prompts with what is pasted from a donor's run.

    A splice needs two passes: the prompt as it was computed, then, from its last token on,
    everything that reads the overwritten slots.
    """
    if donor is None:
        return _pass(circuit, prompts, _Writer(None, (), None), None)
    writer = _Writer(donor, tuple(p for p in pastes if not p.in_cache), fill)
    trace = _pass(circuit, prompts, writer, None)
    spliced = tuple(p for p in pastes if p.in_cache)
    if not spliced:
        return trace
    over = _Writer(donor, spliced, fill)
    cached = Trace(
        [over.write(circuit, layer, "v", values) for layer, values in enumerate(trace.values)],
        [over.write(circuit, layer, "k", k[None])[0] for layer, k in enumerate(trace.keys)],
        [],
        [],
    )
    return _pass(circuit, prompts, writer, cached)


class _Writer:
    """Puts a donor's vectors over what was computed, for some pastes."""

    def __init__(self, donor: Trace | None, pastes: tuple[Paste, ...], fill: Fill | None) -> None:
        self._donor, self._pastes, self._fill = donor, pastes, fill
        self._written: dict[tuple[int, int, Tensor], Floats] = {}

    def write(self, circuit: Circuit, layer: int, tensor: Tensor, own: Floats) -> Floats:
        """`own`, `[component, row, pos]`, with what is pasted in this layer and tensor."""
        unread = _is_unread(circuit, layer, tensor) and not self.adds(layer, tensor)
        if self._donor is None or unread:
            return own
        for index, paste in enumerate(self._pastes):
            if layer not in paste.layers or tensor not in paste.tensors:
                continue
            new = self._vectors(circuit, layer, tensor, index)
            own = np.where(paste.written, _together(own, new, paste), own)
        return own

    def adds(self, layer: int, tensor: Tensor) -> bool:
        """Whether a constant goes to the stream from where a layer itself adds nothing."""
        return tensor in ("attn_out", "mlp_out") and any(
            paste.constant is not None and layer in paste.layers and tensor in paste.tensors
            for paste in self._pastes
        )

    def _vectors(self, circuit: Circuit, layer: int, tensor: Tensor, index: int) -> Floats:
        """What a paste brings. Kept, so that noise is the same in both passes of a splice."""
        found = self._written.get((index, layer, tensor))
        if found is None:
            assert self._donor is not None
            paste, of = self._pastes[index], self._donor
            if paste.constant is not None:
                return np.asarray(paste.constant(layer, tensor))[..., None, None]
            from_donor = of.tensor(layer, tensor)
            taken = np.broadcast_to(paste.taken, (len(from_donor), *paste.taken.shape))
            found = np.take_along_axis(from_donor, taken, axis=-1)
            if self._fill is not None:
                found = self._fill(found, unseen(circuit.layers[layer], tensor), paste.held)
            self._written[index, layer, tensor] = found
        return found


def _together(own: Floats, new: Floats, paste: Paste) -> Floats:
    """What is to stand where `own` stands; components are the first axis."""
    if paste.mode == "add":
        return own + paste.alpha * new
    if paste.mode == "project_out":
        along: Floats = (own * new).sum(0) / np.square(new).sum(0)
        return own - along * new
    return own + paste.alpha * (new - own)


def _is_unread(circuit: Circuit, layer: int, tensor: Tensor) -> bool:
    """Whether nothing that is followed is computed from a tensor: it is not simulated then.

    Queries come from the constant, or are read by no key.
    """
    of = circuit.layers[layer]
    unread = {
        "q": True,
        "k": not of.match,
        "v": circuit.is_idle(layer),
        "z": not of.writes,
        "attn_out": not of.writes,
        "mlp_out": not of.turns,
        "embed": layer > 0,
    }
    return unread.get(tensor, False)


def unseen(layer: Layer, tensor: Tensor) -> int:
    """How many components of content a layer's K or V has besides what is simulated."""
    return layer.unseen if tensor == "v" else D_HEAD - 1


def _pass(circuit: Circuit, prompts: Prompts, writer: _Writer, cached: Trace | None) -> Trace:
    """One pass through all layers. cached: K and V that stand in the first T-1 slots."""
    state = writer.write(circuit, 0, "embed", prompts.features)
    slots = prompts.positions < prompts.tokens[:, None] - 1
    trace = Trace([], [], [], [])
    for index, layer in enumerate(circuit.layers):
        within: dict[Tensor, Floats] = {"embed": state} if index == 0 else {}
        state = within["resid_pre"] = writer.write(circuit, index, "resid_pre", state)
        values, keys = state[:0], state[0]
        if not circuit.is_idle(index):
            scale = np.array(layer.scale)[:, None, None]
            values = writer.write(circuit, index, "v", scale * state[list(layer.of)])
            keys = state[circuit.at("trigger")]
            keys = writer.write(circuit, index, "k", keys[None])[0]
            if cached is not None:
                values = np.where(slots, cached.values[index], values)
                keys = np.where(slots, cached.keys[index], keys)
        if layer.writes or writer.adds(index, "attn_out"):
            added = np.zeros_like(state)
            if layer.writes:
                weights = np.exp(layer.match * keys) if layer.match else None
                z = within["z"] = writer.write(circuit, index, "z", _attend(values, weights))
                for component, dim, weight in layer.writes:
                    added[dim] += weight * z[component]
            added = within["attn_out"] = writer.write(circuit, index, "attn_out", added)
            state = state + added
        state = within["resid_mid"] = writer.write(circuit, index, "resid_mid", state)
        if layer.turns or writer.adds(index, "mlp_out"):
            turned = np.zeros_like(state)
            for of, to, weight in layer.turns:
                turned[to] += weight * state[of]
            turned = within["mlp_out"] = writer.write(circuit, index, "mlp_out", turned)
            state = state + turned
        state = writer.write(circuit, index, "residual", state)
        trace.values.append(values)
        trace.keys.append(keys)
        trace.states.append(state)
        trace.within.append(within)
    return trace


def _attend(values: Floats, weights: Floats | None) -> Floats:
    """What each position attends to: a mean over itself and those before it."""
    if weights is None:
        total: Floats = np.cumsum(values, -1) / np.arange(1, values.shape[-1] + 1)
        return total
    weighed: Floats = np.cumsum(weights * values, -1) / np.cumsum(weights, -1)
    return weighed


class Noise:
    """Norm-matched noise: the lengths of the donor's vectors, in directions of chance.

    Only the simulated components are kept; content that is not simulated counts with its mean
    square. seed: equal seeds give equal noise.
    """

    def __init__(self, seed: int) -> None:
        self._draw = np.random.default_rng(seed)

    def __call__(self, vectors: Floats, unseen: int, held: bool, /) -> Floats:
        shape = (*vectors.shape[:-1], 1) if held else vectors.shape
        direction = self._draw.standard_normal(shape)
        square = np.square(direction).sum(0)
        if unseen:
            square = square + self._draw.chisquare(unseen, shape[1:])
        length = np.sqrt(squared_length(vectors, unseen))
        noise: Floats = direction * length / np.sqrt(square)
        return noise


def no_vectors(vectors: Floats, _unseen: int, _held: bool, /) -> Floats:
    """Zeros: the mean of noise."""
    return np.zeros_like(vectors)


def squared_length(vectors: Floats, unseen: int) -> Floats:
    """Squared lengths of vectors `[component, ...]`, with the mean of what is not simulated."""
    length: Floats = np.square(vectors).sum(0) + unseen * CONTENT_SQUARE
    return length
