"""The constants of a planted model, as far as its truth is followed: zeros, means, directions.

A mean is over the words of the task's bases, as the engine's is. A direction is known where what it
does to what nobody reads (content, dimensions left over) changes nothing that is read: it may be
added whatever its content, and projected out where it has none.
Does not: know directions of chance, nor ones that move the constant of the stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kv_claims.claims.donors import vector_of
from kv_claims.claims.patch import Patch
from kv_claims.claims.sites import PARTS, Tensor
from kv_claims.planted.catalog import COLUMN, CONSTANT_COLUMN, MATCHED, Planted
from kv_claims.planted.circuit import Circuit, Floats
from kv_claims.planted.features import reference
from kv_claims.planted.simulate import Constant, run
from kv_claims.planted.unknown import UnknownTruth
from kv_claims.tasks.directions import Direction, MeanDifference
from kv_claims.tasks.task import Task


def constant_of(
    planted: Planted, circuit: Circuit, task: Task, patches: Sequence[Patch], donor: str
) -> Constant | None:
    """What a donor writes; None where a prompt is the donor.

    Raises UnknownTruth for a direction whose effect is not followed, or that the task lacks.
    """
    if donor == "zero":
        return lambda _layer, _tensor: np.zeros(1)
    if donor == "mean":
        return _mean(planted, circuit, task)
    name = vector_of(donor)
    return None if name is None else _direction(circuit, task, patches, name)


def _mean(planted: Planted, circuit: Circuit, task: Task) -> Constant:
    prompts = reference(planted, circuit, task)
    trace = run(circuit, prompts)
    there = prompts.positions < prompts.tokens[:, None]

    def mean(layer: int, tensor: Tensor) -> Floats:
        if tensor in ("attn_out", "mlp_out") and tensor not in trace.within[layer]:
            return np.zeros(circuit.n_dims)  # what it adds is content alone
        found: Floats = trace.tensor(layer, tensor)[:, there].mean(1)
        return found

    return mean


def _direction(circuit: Circuit, task: Task, patches: Sequence[Patch], name: str) -> Constant:
    named = {one.name: one for one in task.directions}
    if name not in named:
        raise UnknownTruth(f"direction {name!r}: task {task.name!r} does not name it")
    direction = named[name]
    if isinstance(direction, MeanDifference):
        raise UnknownTruth(f"direction {name!r}: a difference of means is not followed")
    modes = {patch.how.kind for patch in patches}
    if circuit.content_dims:
        raise UnknownTruth(f"direction {name!r}: what it does to the geometry is not known")

    def vector(layer: int, tensor: Tensor) -> Floats:
        whole = _whole(direction, layer, tensor)
        read = _read_components(circuit, layer, tensor)
        other = np.delete(whole, read)
        is_stream = PARTS[tensor].heads is None
        if is_stream and (whole[CONSTANT_COLUMN] or "replace" in modes):
            raise UnknownTruth(f"direction {name!r}: it moves the constant of the stream")
        if "project_out" in modes and other.any():
            raise UnknownTruth(f"direction {name!r}: it has shares of what is not followed")
        if (
            "project_out" in modes
            and is_stream
            and circuit.feedback
            and len(whole.nonzero()[0]) > 1
        ):
            # A marker then moves its own step otherwise than those behind it: no count is enough.
            raise UnknownTruth(
                f"direction {name!r}: it turns a marker's trigger into something else"
            )
        return whole[read]

    return vector


def _whole(direction: Direction, layer: int, tensor: Tensor) -> Floats:
    """A direction's vector, of head 0, which alone is read."""
    array = direction.parts[tensor if tensor in direction.parts else ""]
    found: Floats = array[layer if len(array) > 1 else 0, 0]
    return found


def _read_components(circuit: Circuit, layer: int, tensor: Tensor) -> list[int]:
    """Where a vector of a tensor has the components that are simulated, in their order."""
    if tensor == "k":
        return [MATCHED]
    if PARTS[tensor].heads is None:
        return [COLUMN[dim] for dim in circuit.planted_dims]
    return list(range(len(circuit.layers[layer].of)))
