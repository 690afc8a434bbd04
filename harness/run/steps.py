"""One step of decoding: a token a row in, logits out; plainly, or with shared prompts.

The slab says which: see `harness.patch.slab`. What is written while rows generate is written on
either road by the same edits, at the cache and on the layers' outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch

from harness.models.forward import with_cache
from harness.models.load import LoadedModel
from harness.patch.interception import residual_edited
from harness.patch.live import Live
from harness.patch.slab import Slab
from harness.run.shared_attention import arguments, as_room, attending
from harness.run.slab_cache import as_cache, padding_mask

Step = Callable[[torch.Tensor, int], torch.Tensor]
"""From the token of each row, `[row]`, and the number of the step: logits, `row vocab`."""


@contextmanager
def stepping(
    model: LoadedModel, slab: Slab, steps: int, live: Live | None, *, start: int = 0
) -> Iterator[Step]:
    """What feeds a slab's rows, while this is open.

    steps: how many there will be at most. start: how many the slab has behind it.
    """
    network, shared = model.network, slab.shared is not None
    cache = with_cache(
        network, as_room(slab, live, start) if shared else as_cache(slab, live, start)
    )
    mask = None if shared else padding_mask(slab, steps)

    def step(token: torch.Tensor, number: int) -> torch.Tensor:
        if mask is None:
            attention = arguments(slab, number)
        else:
            attention = {"attention_mask": mask[:, : slab.slots + number + 1]}
        logits: torch.Tensor = network(
            input_ids=token[:, None],
            position_ids=(slab.lengths - 1 + number)[:, None],
            **cache,
            **attention,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits

    layers, edit = (live.residual_layers, live.edit) if live else ([], None)
    with residual_edited(model, layers, edit), attending(model) if shared else nullcontext():
        yield step
