"""A step that is recorded once and replayed: as a CUDA graph on a GPU, as a call elsewhere.

A step takes no arguments and returns nothing: it reads and writes tensors that stay where they are.
A graph repeats kernels with the addresses and shapes that they had, and none of the Python between
them. So a step may not read a number back to the host (that waits for the device, which a recording
cannot), nor may a shape depend on one. Both are refused before anything is recorded, on any device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Step = Callable[[], None]
WARM_UPS = 2
"""Runs before a recording: kernels are loaded, algorithms and workspaces chosen, none of which may
happen while a graph is recorded."""
_READ_BACK = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_INDEXED = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
}
"""Their second argument says where; a mask there is turned into places, whose number is read."""


class ReadBackError(RuntimeError):
    """A step needs a number on the host that is on the device, so it cannot be recorded."""


class Captured(Protocol):
    """What was recorded of a step."""

    def replay(self) -> None: ...


class Recorder:
    """Records steps of one device. They must not run at once: they share their working memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._on_gpu = _Gpu(device) if device.type == "cuda" else None

    def record(self, step: Step, warm_up: Step) -> Captured:
        """Record a step. warm_up: runs it, and leaves all that it changes as it was.

        Raises ReadBackError, and whatever CUDA raises.
        """
        if self._on_gpu is not None:
            return self._on_gpu.record(step, warm_up)
        _warmed(warm_up)
        return _Call(step)


class _Call:
    def __init__(self, step: Step) -> None:
        self._step = step

    def replay(self) -> None:
        self._step()


class _Gpu:
    """A stream and a pool for all recordings.

    The pool is shared: what a step works with is free again at its end, so the next shape's
    recording takes the same memory. Warm-ups run on the stream that is recorded, as cuBLAS has a
    workspace a stream, and must have got it before.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, step: Step, warm_up: Step) -> Captured:
        before = torch.cuda.current_stream(self._device)
        # The stream is named again as torch's own context leaves another behind where it fails.
        with torch.cuda.device(self._device), torch.cuda.stream(before):
            self._stream.wait_stream(before)
            with torch.cuda.stream(self._stream):
                _warmed(warm_up)
            before.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads (of progress bars, of pinned memory) may use the device meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                step()
        return graph


def _warmed(warm_up: Step) -> None:
    with _NoReadBack():  # type: ignore[no-untyped-call]
        warm_up()
    for _ in range(WARM_UPS - 1):
        warm_up()


class _NoReadBack(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While this is open, operations that need a tensor's numbers on the host raise.

    torch marks them itself: `item` and what rests on it, results whose shape depends on numbers.
    Copies between devices are found by their result.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _reads_back(func, args):
            raise ReadBackError(f"{func} needs a number of the device on the host")
        out = func(*args, **(kwargs or {}))
        tensors = [one for one in (*args, out) if isinstance(one, torch.Tensor)]
        if len({tensor.device for tensor in tensors if tensor.dim()}) > 1:
            raise ReadBackError(f"{func} copies between host and device")
        return out


def _reads_back(func: Any, args: Any) -> bool:
    if func in _INDEXED:
        masks = (torch.bool, torch.uint8)
        return any(where is not None and where.dtype in masks for where in args[1])
    return bool(_READ_BACK.intersection(func.tags))
