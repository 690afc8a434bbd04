"""The constants of a study: zeros, means over the task's bases, directions that the task names.

Promises: whether a direction fits a model is found before a model runs; what stands in its place as
a control keeps all lengths and angles. Does not: write anything (`kv_claims.patch`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from kv_claims.claims.donors import vector_of
from kv_claims.claims.patch import Patch, donor_of
from kv_claims.claims.sites import PARTS, TENSORS, Spot, Tensor
from kv_claims.errors import UsageError
from kv_claims.models.load import LoadedModel
from kv_claims.patch.constant import ZERO, Constant, Vectors
from kv_claims.patch.noise import drawing
from kv_claims.patch.store import width_of
from kv_claims.run.arms import Arm
from kv_claims.run.means import Means
from kv_claims.run.oracle_means import PlainMeans
from kv_claims.tasks.directions import AnyDirection, Array, Direction, MeanDifference
from kv_claims.tasks.task import Pair, Prompt, Task


class Difference:
    """A difference of means: the vectors of a direction that is found on texts.

    kind: of the means, the engine's or the oracle's. tokens: of a text.
    """

    def __init__(
        self,
        model: LoadedModel,
        direction: MeanDifference,
        kind: type[Means] | type[PlainMeans],
        tokens: Callable[[str], Sequence[int]],
    ) -> None:
        self._model, self._direction = model, direction
        self._toward, self._away = (
            kind(model, partial(_all_tokens, tokens, texts), direction.at)
            for texts in (direction.toward, direction.away)
        )

    def prepare(self, spots: Iterable[Spot]) -> None:
        """Compute what is not there yet. Raises UsageError where both sides have one mean."""
        spots = list(spots)
        for side in (self._toward, self._away):
            if isinstance(side, Means):
                side.prepare(spots)
        for layer, tensor in spots:
            if not self.of(layer, tensor).norm(dim=-1).all():
                raise UsageError(
                    f"{self._direction.where}: both sides have the same mean of {tensor!r} in "
                    f"layer {layer}; expected a direction there"
                )

    def of(self, layer: int, tensor: Tensor) -> torch.Tensor:
        """The difference of a layer's tensor, `head d_head`, in float64."""
        return self._toward.of(layer, tensor) - self._away.of(layer, tensor)

    def array(self, tensor: str) -> Array:
        """The same of all layers, `[layer, head, d]`."""
        known: Tensor = next(name for name in PARTS if name == tensor)
        layers = range(1 if known == "embed" else self._model.n_layers)
        return torch.stack([self.of(layer, known) for layer in layers]).cpu().numpy()


class Constants:
    """Constants of one task on one model. tokens: of a prompt."""

    def __init__(
        self, model: LoadedModel, task: Task, tokens: Callable[[Prompt], Sequence[int]]
    ) -> None:
        self._model, self._task, self._tokens = model, task, tokens
        self._directions = {one.name: one for one in task.directions}
        means = Means(model, self.reference)
        self._mean = Constant("mean", means.of, means.prepare)
        self._mean_by_oracle = Constant("mean", PlainMeans(model, self.reference).of)
        found = [one for one in task.directions if isinstance(one, MeanDifference)]
        self._differences, self._by_oracle = (
            {one.name: Difference(model, one, kind, self._of_text) for one in found}
            for kind in (Means, PlainMeans)
        )

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
        own = self._constant(direction)
        if arm.donor == donor_of(arm.patches):
            return own
        stream = f"{pair.id}:{seed}:{direction.sha}"
        whole = self._arrays(direction)

        def by_chance(part: str) -> Array:
            return turned_by_chance(whole(part), f"{stream}:{part}")

        return Constant(f"random:{stream}", _vectors(by_chance), own.prepare)

    def instead_of(self, arm: Arm) -> Constant | None:
        """What the patched arm writes, where an arm is a control of one that adds a direction."""
        direction = self._direction(arm)
        if direction is None or arm.donor == donor_of(arm.patches):
            return None
        return self._constant(direction)

    def by_oracle(self, arm: Arm) -> Constant | None:
        """What an arm writes by the oracle's own means; None where it rests on none."""
        if arm.donor == "mean":
            return self._mean_by_oracle
        name = vector_of(arm.donor or "")
        return Constant(name, self._by_oracle[name].of) if name in self._by_oracle else None

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
        if isinstance(direction, MeanDifference):
            sizes = len(direction.toward), len(direction.away)
            return (
                f"direction {name!r}, sha256 {direction.sha}, the mean over {sizes[0]} texts less "
                f"that over {sizes[1]}, at {direction.at} positions; none of them is judged"
            )
        shapes = {part or "any": list(array.shape) for part, array in direction.parts.items()}
        return f"direction {name!r}, sha256 {direction.sha}, [layer, head, d] {shapes}"

    def check(self, arm: Arm, patch: Patch, layers: Sequence[int]) -> None:
        """Raise UsageError for a direction that a patch of an arm cannot take on this model."""
        direction = self._direction(arm)
        if direction is None:
            return
        if isinstance(direction, MeanDifference):
            self._check_apart(direction)
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

    def _check_apart(self, direction: MeanDifference) -> None:
        """Raise UsageError for texts that this model reads as a prompt that is judged."""
        found = {tuple(self._of_text(text)) for text in (*direction.toward, *direction.away)}
        for prompt in (*self._task.sources, *self._task.bases):
            if tuple(self._tokens(prompt)) in found:
                raise UsageError(
                    f"{direction.where}: to {self._model.name} a text of it is the same tokens as "
                    f"prompt {prompt.id!r}, which is judged; expected other texts"
                )

    def _of_text(self, text: str) -> Sequence[int]:
        return self._tokens(Prompt("discovery", "discovery", text))

    def _constant(self, direction: AnyDirection) -> Constant:
        """What a direction is where it is written."""
        name = f"{direction.name}:{direction.sha}"
        if isinstance(direction, MeanDifference):
            found = self._differences[direction.name]
            return Constant(name, found.of, found.prepare)
        return Constant(name, _vectors(direction.parts.__getitem__))

    def _arrays(self, direction: AnyDirection) -> Callable[[str], Array]:
        """Its arrays, `[layer, head, d]`, by the tensor's name; KeyError where one is for any."""
        if isinstance(direction, MeanDifference):
            return self._differences[direction.name].array
        return direction.parts.__getitem__

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

    def _direction(self, arm: Arm) -> AnyDirection | None:
        name = vector_of(donor_of(arm.patches)) if arm.patches else None
        # A self-patch takes the base's own: its patches name the source.
        return None if name is None else self._named(name)

    def _named(self, name: str) -> AnyDirection:
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
    draw = drawing(stream)
    found = np.empty_like(vectors)
    for head in range(vectors.shape[1]):
        _, lengths = np.linalg.qr(vectors[:, head].T)
        frame, signs = np.linalg.qr(draw.standard_normal((vectors.shape[2], len(lengths))))
        found[:, head] = (frame * np.sign(np.diag(signs)) @ lengths).T
    return found


def _all_tokens(
    tokens: Callable[[str], Sequence[int]], texts: Sequence[str]
) -> list[Sequence[int]]:
    return [tokens(text) for text in texts]


def _vectors(parts: Callable[[str], Array]) -> Vectors:
    """The vectors of arrays by name, made when they are first read."""
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

    return vectors
