"""By pyvene: an IntervenableModel for each layer, and its `generate`."""

from __future__ import annotations

import copy

import torch
from pyvene import IntervenableConfig, IntervenableModel, VanillaIntervention

from kv_claims.benching.reference import LAYERS, Reference
from tests.benchmarks.peers.ways import Rows, Way, a_few, arm_by_arm, in_batches


class Pyvene:
    def __init__(self, work: Reference) -> None:
        self._work = work
        network = copy.deepcopy(work.model.network)
        slots = work.window().base_slots
        self._models = [
            IntervenableModel(
                IntervenableConfig(
                    [
                        {
                            "layer": layer,
                            "component": component,
                            "unit": "pos",
                            "max_number_of_units": len(slots),
                            "group_key": 0,
                            "intervention_type": VanillaIntervention,
                        }
                        for component in ("key_output", "value_output")
                    ]
                ),
                network,
            )
            for layer in range(LAYERS)
        ]

    def generate(self, rows: Rows) -> torch.Tensor:
        """Rows of one layer: it patches a batch in one place."""
        ((layer, places, donor),) = rows.by_layer()
        slots = list(self._work.window().base_slots)
        where = [[slots] * len(places)] * 2
        _, found = self._models[layer].generate(
            {"input_ids": rows.bases},
            [{"input_ids": rows.sources[donor]}],
            {"sources->base": (where, where)},
            intervene_on_prompt=True,
            max_new_tokens=self._work.new_tokens,
            do_sample=False,
        )
        tokens: torch.Tensor = found[:, rows.bases.shape[1] :]
        return tokens


def ways(work: Reference, few: int) -> list[Way]:
    by = Pyvene(work)
    return [
        in_batches("pyvene", "pyvene", "in-prefill", cut, by.generate)
        for cut in (arm_by_arm(work), a_few(work, few))
    ]
