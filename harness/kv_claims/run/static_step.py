"""A step of decoding with fixed shapes at fixed addresses, so that it can be recorded and replayed.

Everything that differs from step to step is a tensor that the step itself moves on: positions, the
column that is written, the mask. Nothing of it is a Python number, which a replay would not see.
What grows is how far the step reads into the cache: it is recorded once for every `REACH`
positions, so that the free headroom is not read from the start.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from kv_claims.models.forward import with_cache
from kv_claims.models.load import LoadedModel
from kv_claims.patch.memory import Frame
from kv_claims.patch.sharing import round_up
from kv_claims.patch.slab import Slab
from kv_claims.run.captured import Captured, Recorder
from kv_claims.run.fused_norms import Norm, fused, fusible
from kv_claims.run.shared_attention import attending
from kv_claims.run.static_attention import NAME, static_attention

REACH = 32
"""Positions by which a recording reads further than the one before: with 100 new tokens a step
reads 16 positions too many on average, and four recordings are made."""
KEPT = 8
"""Shapes of batches whose recordings are kept; each has logits of its own (33 MB at 512 rows of
32,000 words in half precision)."""


class Recordings:
    """What was recorded in one memory: a step for each shape of batch, the latest ones."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self._recorder = Recorder(model.device)
        self._norms = fusible(model.network)
        self._steps: OrderedDict[tuple[int, int, int], StaticStep] = OrderedDict()

    def step(self, frame: Frame, slots: int) -> StaticStep:
        """The step of a batch; the same object for every batch of its shape."""
        rows, _, width, _ = frame.keys[0].shape
        shape = (rows, slots, width)
        if shape not in self._steps:
            self._steps[shape] = StaticStep(self.model, frame, slots, self._recorder, self._norms)
            if len(self._steps) > KEPT:
                self._steps.popitem(last=False)
        self._steps.move_to_end(shape)
        return self._steps[shape]


def step_of(model: LoadedModel, slab: Slab) -> StaticStep:
    """The step of a static slab, kept with its memory."""
    assert slab.frame is not None
    memory = slab.frame.memory
    if not isinstance(memory.held, Recordings) or memory.held.model is not model:
        memory.held = Recordings(model)
    return memory.held.step(slab.frame, slab.slots)


@dataclass
class _State:
    """What a step reads and moves on, in tensors that stay where they are.

    token, position: `row 1`. column: where the next keys and values go, `[1]`. mask: added to
    scores, `row 1 1 pos`. logits: `row vocab`, None before the first step.
    """

    token: torch.Tensor
    position: torch.Tensor
    column: torch.Tensor
    mask: torch.Tensor
    logits: torch.Tensor | None = None

    @property
    def moved(self) -> tuple[torch.Tensor, ...]:
        """Those that a step changes and the next one reads."""
        return self.position, self.column, self.mask


class StaticStep:
    """Feeds a token a row to all rows of a frame. slots: positions of it before its headroom."""

    def __init__(
        self,
        model: LoadedModel,
        frame: Frame,
        slots: int,
        recorder: Recorder,
        norms: Sequence[Norm],
    ) -> None:
        self._model, self._slots, self._recorder, self._norms = model, slots, recorder, norms
        # Not the frame: its memory holds what is recorded, and a circle would outlive its use.
        self._keys, self._values = frame.keys, frame.values
        like = frame.keys[0]
        rows, _, self._width, _ = like.shape
        # As transformers does, the least number rather than -inf: a kernel that goes through
        # positions in blocks may meet a block that is hidden as a whole.
        self._hidden = torch.finfo(like.dtype).min
        self._state = _State(
            token=torch.zeros(rows, 1, dtype=torch.long, device=like.device),
            position=torch.zeros(rows, 1, dtype=torch.long, device=like.device),
            column=torch.zeros(1, dtype=torch.long, device=like.device),
            mask=like.new_full((rows, 1, 1, self._width), self._hidden),
        )
        self._recorded: dict[int, Captured] = {}

    def start(self, lengths: torch.Tensor, number: int) -> None:
        """Make ready for another batch. lengths: T of its rows. number: of the first step fed.

        Rows behind the batch's are fed token 0 from position 0 on and see nothing but that.
        """
        rows, state = len(lengths), self._state
        state.token.zero_()
        state.position.zero_()
        state.position[:rows, 0] = lengths - 1 + number
        state.column.fill_(self._slots + number)
        state.mask.fill_(self._hidden)
        at = torch.arange(self._slots + number, device=lengths.device)
        seen = at >= (self._slots - lengths + 1)[:, None]
        state.mask[:rows, 0, 0, : len(at)].masked_fill_(seen, 0.0)

    def feed(self, token: torch.Tensor, number: int) -> torch.Tensor:
        """Logits `row vocab` from the token of each row, `[row]`; steps come in their order.

        They stand in memory that the next step overwrites.
        """
        rows = len(token)
        self._state.token[:rows, 0] = token
        reach = min(round_up(self._slots + number + 1, REACH), self._width)
        if reach not in self._recorded:
            self._recorded[reach] = self._record(reach)
        self._recorded[reach].replay()
        assert self._state.logits is not None
        return self._state.logits[:rows]

    def _record(self, reach: int) -> Captured:
        model, state, norms = self._model, self._state, self._norms
        cache = DynamicCache()
        cache.layers = [
            _StaticLayer(keys, values, state.column, reach, self._slots)
            for keys, values in zip(self._keys, self._values, strict=True)
        ]
        cache.layer_class_to_replicate = None
        given: dict[str, Any] = {
            "input_ids": state.token,
            "position_ids": state.position,
            "attention_mask": state.mask[..., :reach],
            **with_cache(model.network, cache),
        }

        def step() -> None:
            with attending(model, NAME, static_attention), fused(norms):
                state.mask.index_fill_(3, state.column, 0.0)
                logits = model.network(**given, use_cache=True, logits_to_keep=1).logits[:, -1]
            if state.logits is None:  # while warming up, so not out of a recording's pool
                state.logits = torch.empty_like(logits)
            state.logits.copy_(logits)
            state.position.add_(1)
            state.column.add_(1)

        def warm_up() -> None:
            """A step, and back; its keys and values are overwritten when it is replayed."""
            before = [tensor.clone() for tensor in state.moved]
            step()
            for tensor, old in zip(state.moved, before, strict=True):
                tensor.copy_(old)

        return self._recorder.record(step, warm_up)


class _StaticLayer(DynamicLayer):
    """A cache layer of fixed width, written where a tensor says."""

    def __init__(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        column: torch.Tensor,
        reach: int,
        slots: int,
    ) -> None:
        super().__init__()
        self._whole_keys, self._whole_values, self._column = keys, values, column
        self._slots = slots
        self.dtype, self.device = keys.dtype, keys.device
        self.keys, self.values = keys[:, :, :reach], values[:, :, :reach]
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self._whole_keys.index_copy_(2, self._column, key_states)
        self._whole_values.index_copy_(2, self._column, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Not the length, which is on the device: models that are given positions and a mask take
        nothing from it."""
        return self._slots
