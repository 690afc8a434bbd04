"""A planted model with what is known of it at hand: its task, its expected outcomes, its transfer.

It is the description, `catalog.Planted`, with what follows from it in modules above that.
"""

from __future__ import annotations

from dataclasses import dataclass

from kv_claims.planted import prompts, truth
from kv_claims.planted.catalog import Planted


@dataclass(frozen=True)
class PlantedModel(Planted):
    """What `LoadedModel.planted` is: `model.planted.true_transfer(patch, model.planted.task())`."""

    task = prompts.planted_task
    expected_means = truth.expected_means
    true_transfer = truth.true_transfer

    @classmethod
    def of(cls, planted: Planted) -> PlantedModel:
        """The same model, which knows what follows from its description."""
        return cls(**vars(planted))
