"""What a CUDA graph does, on a CPU: operations are taken down with their tensors, and done again.

No Python of a step runs when it is replayed. So a number that a step took from Python, where it
should have taken it from a tensor, stays what it was when the step was recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kv_claims.run.captured import Recorder, Step


class Tape:
    """A recording. Taking it down leaves tensors as they were, as recording a graph does."""

    def __init__(self, step: Step) -> None:
        taken = _Taken()
        with taken:
            step()
        for tensor, before in reversed(taken.written):
            tensor.copy_(before)
        self.operations = taken.operations

    def replay(self) -> None:
        for operation, args, kwargs, out in self.operations:
            again = operation(*args, **kwargs)
            owned = {_memory(one) for one in _tensors((args, kwargs))}
            for old, new in zip(_tensors(out), _tensors(again), strict=True):
                # Views and what was written in place are where they were already.
                if _memory(old) not in owned:
                    old.copy_(new)


class _Taken(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.written: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for given, place in zip(args, func._schema.arguments, strict=False):
            if place.alias_info is not None and place.alias_info.is_write:
                self.written.append((given, given.clone()))
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@contextmanager
def taped(monkeypatch: Any) -> Iterator[list[Tape]]:
    """While this is open, steps are recorded on tapes; gives those that were."""
    tapes: list[Tape] = []

    def record(_self: Recorder, step: Step, warm_up: Step) -> Tape:
        warm_up()
        tapes.append(Tape(step))
        return tapes[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "record", record)
        yield tapes
