"""The planted models, as data: where each keeps its behavior, and how strongly.

Every model is 16 layers deep, so that the depths 18/32, 25/32 and 27/32 are the layers 9, 12
and 13. How the numbers below become weights is in `build`; what follows from them, exactly, in
`truth`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Literal

from harness.spec import Patch, resolve_layers

if TYPE_CHECKING:
    from harness.tasks.task import Task

PLANTED_PREFIX = "planted:"
"""What the name of a planted model starts with, as `--model` takes it."""
N_LAYERS = 16
HIDDEN = 32
N_HEADS = 2
N_KV_HEADS = 1
D_HEAD = 8
CONTENT = 0.2
"""Amplitude of the token-dependent content in K and V that nothing reads."""
SHORTEST_PROMPT, LONGEST_PROMPT = 36, 44
"""Prompt lengths in tokens, both included; uniform, sources and bases independently."""
N_PAIRS = 300


@dataclass(frozen=True)
class Planted:
    """One planted model.

    layers: the layers whose attention reads the trigger value, with equal shares that sum to 1.
    trigger_share: the share of a source prompt, from its start, that is trigger words.
    offset, gain: the logit of a marker word over a plain word is offset + gain * m, before the
        temperature, where m is the mean trigger value that the reading layers attend to.
    """

    name: str
    about: str
    layers: str
    trigger_share: Fraction
    offset: float
    gain: float

    @property
    def shares(self) -> tuple[float, ...]:
        """Each layer's share of the signal, shape `[layer]`."""
        reading = resolve_layers(self.layers, N_LAYERS)
        return tuple(1 / len(reading) if layer in reading else 0.0 for layer in range(N_LAYERS))

    def n_triggers(self, source_tokens: int) -> int:
        """How many trigger words a source of so many tokens starts with."""
        return ceil(self.trigger_share * source_tokens)

    # What follows from the data stands in modules that import it, hence the imports inside.

    def task(self, n_pairs: int = N_PAIRS) -> Task:
        """The model's own task; see `prompts.planted_task`."""
        from harness.models.planted.prompts import planted_task

        return planted_task(self, n_pairs)

    def true_transfer(
        self,
        patch: Patch,
        task: Task,
        *,
        max_new_tokens: int = 50,
        temperature: float = 0.7,
        over: Literal["population", "pairs"] = "population",
    ) -> float:
        """The exact transfer of a patch; see `truth.true_transfer`."""
        from harness.models.planted.truth import true_transfer

        return true_transfer(
            self, patch, task, max_new_tokens=max_new_tokens, temperature=temperature, over=over
        )


CATALOG: dict[str, Planted] = {
    planted.name: planted
    for planted in (
        Planted(
            name="stored-at-layer",
            about="the KV cache of layer 25/32 carries the whole behavior",
            layers="25/32",
            trigger_share=Fraction(1),
            offset=-1.75,
            gain=4.0,
        ),
        Planted(
            name="distributed",
            about="every layer's KV cache carries an equal share",
            layers="all",
            trigger_share=Fraction(1),
            offset=-1.75,
            gain=4.0,
        ),
        Planted(
            name="early-tokens",
            about="layer 18/32 carries it, in the first quarter of the source's tokens",
            layers="18/32",
            trigger_share=Fraction(1, 4),
            offset=-1.75,
            gain=16.0,
        ),
        Planted(
            name="inert",
            about="sources and bases behave alike: there is nothing to transfer",
            layers="25/32",
            trigger_share=Fraction(1),
            offset=-1.75,
            gain=0.0,
        ),
    )
}
