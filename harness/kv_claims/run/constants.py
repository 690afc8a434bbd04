"""The constants of a study: zeros, means over the task's bases, directions that the task names.

Promises: whether a direction fits a model is found before a model runs; what stands in its place as
a control keeps all lengths and angles. Does not: write anything (`kv_claims.patch`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from kv_claims.claims.donors import vector_of
from kv_claims.claims.patch import Patch, donor_of
from kv_claims.claims.sites import PARTS, TENSORS, Tensor
from kv_claims.errors import UsageError
from kv_claims.models.load import LoadedModel
from kv_claims.patch.constant import ZERO, Constant
from kv_claims.patch.store import width_of
from kv_claims.run.arms import Arm
from kv_claims.run.means import Means
from kv_claims.tasks.directions import Array, Direction
from kv_claims.tasks.task import Pair, Prompt, Task


class Constants:
    """Constants of one task on one model. tokens: of a prompt."""

    def __init__(
        self, model: LoadedModel, task: Task, tokens: Callable[[Prompt], Sequence[int]]
    ) -> None:
        self._model, self._task = model, task
        self._directions = {one.name: one for one in task.directions}
        means = Means(model, self.reference)
        self._mean = Constant("mean", means.of, means.prepare)
        self._tokens = tokens

    def reference(self) -> list[Sequence[int]]:
        """The prompts that means are over: the task's bases, all of them, judged or not."""
        return [self._tokens(base) for base in self._task.bases]

    def of(self, arm: Arm, pair: Pair, seed: int) -> Constant | None:
        """What an arm writes in place of a prompt's; None where a prompt is its donor.

        Raises UsageError for a direction that the task does not name.
        """
        if arm.donor == "zero":
            return ZERO
        if arm.donor == "mean":
            return self._mean
        direction = self._direction(arm)
        if direction is None:
            return None
        if arm.donor == donor_of(arm.patches):
            return _constant(f"{direction.name}:{direction.sha}", direction.parts.__getitem__)
        stream = f"{pair.id}:{seed}:{direction.sha}"

        def by_chance(part: str) -> Array:
            return turned_by_chance(direction.parts[part], f"{stream}:{part}")

        return _constant(f"random:{stream}", by_chance)

    def instead_of(self, arm: Arm) -> Constant | None:
        """What the patched arm writes, where an arm is a control of one that adds a direction."""
        direction = self._direction(arm)
        if direction is None or arm.donor == donor_of(arm.patches):
            return None
        return _constant(f"{direction.name}:{direction.sha}", direction.parts.__getitem__)

    def sha(self, arm: Arm) -> str | None:
        """The hash of the direction that an arm rests on; None where it rests on none."""
        direction = self._direction(arm)
        return None if direction is None else direction.sha

    def told(self, donor: str) -> str | None:
        """What a donor is, for the evidence; None of one that is a prompt."""
        if donor == "mean":
            n = len(self._task.bases)
            return (
                f"the mean over all T positions of the {n} bases of task {self._task.name!r} "
                f"({self._task.sha[:16]})"
            )
        if (name := vector_of(donor)) is None:
            return None
        direction = self._named(name)
        shapes = {part or "any": list(array.shape) for part, array in direction.parts.items()}
        return f"direction {name!r}, sha256 {direction.sha}, [layer, head, d] {shapes}"

    def check(self, arm: Arm, patch: Patch, layers: Sequence[int]) -> None:
        """Raise UsageError for a direction that a patch of an arm cannot take on this model."""
        direction = self._direction(arm)
        if direction is None:
            return
        for tensor in TENSORS[patch.site]:
            part = _part_for(direction.parts, tensor)
            if part is None or (part == "" and len(TENSORS[patch.site]) > 1):
                raise UsageError(
                    f"{patch}: {direction.where} has {sorted(direction.parts) or 'one array'}; "
                    f"expected a safetensors file with arrays named "
                    f"{' and '.join(map(repr, TENSORS[patch.site]))}"
                )
            self._check_shape(direction, part, patch, tensor, layers)

    def _check_shape(
        self, direction: Direction, part: str, patch: Patch, tensor: Tensor, layers: Sequence[int]
    ) -> None:
        array, model = direction.parts[part], self._model
        n_heads = model.heads.of(patch.site) if PARTS[tensor].heads else 1
        for layer in layers:
            wanted = (model.n_layers, n_heads, width_of(model, layer, tensor))
            fits = [
                have == want or (axis < 2 and have == 1)
                for axis, (have, want) in enumerate(zip(array.shape, wanted, strict=True))
            ]
            if not all(fits):
                heads = f"[{wanted[0]}, {wanted[1]}, {wanted[2]}]" if PARTS[tensor].heads else ""
                raise UsageError(
                    f"{patch}: {direction.where} has shape {list(array.shape)} (layer, head, d), "
                    f"but {tensor!r} on {model.name} needs [{wanted[2]}], "
                    f"[{wanted[0]}, {wanted[2]}]{' or ' + heads if heads else ''}"
                )
            vectors = array[layer if len(array) > 1 else 0]
            if not np.linalg.norm(vectors, axis=-1).all():
                raise UsageError(
                    f"{patch}: {direction.where} is 0 in layer {layer}; expected a direction there"
                )

    def _direction(self, arm: Arm) -> Direction | None:
        name = vector_of(donor_of(arm.patches)) if arm.patches else None
        # A self-patch takes the base's own: its patches name the source.
        return None if name is None else self._named(name)

    def _named(self, name: str) -> Direction:
        if name not in self._directions:
            have = ", ".join(self._directions) or "none"
            raise UsageError(
                f"donor 'vector({name})': task {self._task.name!r} ({self._task.where}) names "
                f"no such direction; it names {have}"
            )
        return self._directions[name]


def _part_for(parts: Mapping[str, Array], tensor: Tensor) -> str | None:
    """Under which name the vectors for a tensor stand; None where they do not."""
    return next((name for name in (tensor, "") if name in parts), None)


def turned_by_chance(vectors: Array, stream: str) -> Array:
    """Vectors of other directions, `[layer, head, d]`: of a head, all turned alike.

    So all norms, and the angles between layers, are kept: what adds up over layers still does. The
    turn is uniform; equal streams give equal ones.
    """
    digest = hashlib.sha256(stream.encode()).digest()
    draw = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
    found = np.empty_like(vectors)
    for head in range(vectors.shape[1]):
        _, lengths = np.linalg.qr(vectors[:, head].T)
        frame, signs = np.linalg.qr(draw.standard_normal((vectors.shape[2], len(lengths))))
        found[:, head] = (frame * np.sign(np.diag(signs)) @ lengths).T
    return found


def _constant(name: str, parts: Callable[[str], Array]) -> Constant:
    """The constant of a direction. parts: its arrays by name, made when they are first read."""
    made: dict[str, torch.Tensor] = {}

    def vectors(layer: int, tensor: Tensor) -> torch.Tensor:
        if tensor not in made:
            try:
                array = parts(tensor)
            except KeyError:
                array = parts("")
            made[tensor] = torch.from_numpy(np.array(array))
        found = made[tensor]
        return found[layer if len(found) > 1 else 0]

    return Constant(name, vectors)
