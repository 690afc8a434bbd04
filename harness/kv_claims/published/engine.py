"""The engine with the seed's two defects put back: a last token fed twice, keys not rotated.

Everything else is the engine itself, so that a difference is the defect's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kv_claims.models.load import LoadedModel
from kv_claims.models.rotary import Rotation
from kv_claims.published.defects import DUPLICATE, UNROTATED
from kv_claims.run.rows import Rows, Tokens
from kv_claims.run.runner import Runner
from kv_claims.tasks.task import Prompt


class DoubledRows(Rows):
    """Rows whose prompts end with their last token twice.

    The engine caches all but the last token and feeds that: here it caches the whole prompt and
    feeds its last token again.
    """

    def tokens(self, prompt: Prompt) -> Tokens:
        tokens = super().tokens(prompt)
        return (*tokens, *tokens[-1:])


def no_rotation(model: LoadedModel) -> Rotation:
    """A rotation without frequencies: keys stay as they are, wherever they are pasted."""
    return Rotation((torch.empty(0),) * model.n_layers)


@dataclass
class DefectiveRunner(Runner):
    """The runner with some defects of the published engine; with none, the runner itself.

    Give it a ledger of its own, in memory: a trial's key does not say how keys were turned.
    """

    defects: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        super().__post_init__()
        if DUPLICATE in self.defects:
            self.rows = DoubledRows(self.model, self.task, self.sampling.max_new_tokens)
        if UNROTATED in self.defects:
            self.rows.rotation = no_rotation(self.model)
