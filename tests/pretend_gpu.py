"""A device that says it is a GPU, with real numbers, on a machine that has none.

While it is open, tensors asked for on `cuda` lie in the host's memory and know that they must not
be told apart from a GPU's: an operation on one of them and on one of the host raises as CUDA does,
so does `numpy`. A step is recorded on a tape (`tests.run.tape`), which replays operations without
the Python between them, as a graph does. So the engine's whole way on a GPU runs where none is:
`KV_CLAIMS_DEVICE=pretend pytest tests/run tests/patch`.

It says nothing about CUDA's own kernels, streams, memory, or speed. What happens inside torch's
C++ is not seen: the check is made where Python calls torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from kv_claims.models import request
from kv_claims.run import captured
from tests.run.tape import Tape

GPU = torch.device("cuda", 0)
_CPU = torch.device("cpu")
_BYTES = 16 << 30


class OnGpu(torch.Tensor):
    """A tensor that counts as one on the GPU. What is done with it is `_Pretending`'s."""

    __torch_function__ = torch._C._disabled_torch_function_impl


def _plain(tree: Any) -> Any:
    """The tensors of a result as those of the host, in the same memory."""
    return tree_map(
        lambda leaf: leaf.as_subclass(torch.Tensor) if isinstance(leaf, OnGpu) else leaf, tree
    )


def _on_gpu(tree: Any) -> Any:
    """The tensors of a result as those of the GPU; in-place results stay the object they are."""

    def marked(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or isinstance(leaf, OnGpu):
            return leaf
        return leaf.as_subclass(OnGpu)

    return tree_map(marked, tree)


_TO_HOST = {torch.Tensor.tolist, torch.Tensor.item}
_NUMPY = {torch.Tensor.numpy, torch.Tensor.__array__}
_SELF_ASKED = {
    torch.Tensor.device.__get__: GPU,
    torch.Tensor.is_cuda.__get__: True,
    torch.Tensor.is_cpu.__get__: False,
    torch.Tensor.get_device: 0,
}
"""What a tensor says of itself."""
_MAY_MEET = {
    torch.Tensor.copy_,
    torch.Tensor.to,
    torch.Tensor.type_as,
    torch._has_compatible_shallow_copy_type,
    torch.Tensor.data.__set__,
    torch.Tensor.grad.__set__,
}
"""Operations between host and GPU that CUDA knows."""


class _Pretending(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if isinstance(func, torch._ops.OpOverload):
            # Below Python's own calls, which were looked at: results there are of neither device.
            return func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        ours = any(isinstance(one, OnGpu) for one in tensors)
        if args and isinstance(args[0], OnGpu) and func in _SELF_ASKED:
            return _SELF_ASKED[func]
        if ours and func in _NUMPY:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func is torch.Tensor.to:
            return self._moved(args, kwargs)
        if func in (torch.Tensor.cpu, torch.Tensor.cuda):
            place = _CPU if func is torch.Tensor.cpu else GPU
            return self._moved((args[0], place), {})
        if ours and func in _TO_HOST:
            return _plain(func(*args, **kwargs))
        asked = kwargs.get("device")
        if asked is not None:
            on_gpu = torch.device(asked).type == "cuda"
            kwargs["device"] = _CPU if on_gpu else asked
            out = func(*args, **kwargs)
            return _on_gpu(out) if on_gpu else _plain(out)
        if ours:
            self._check(func, args, tensors)
        out = func(*args, **kwargs)
        return _on_gpu(out) if ours else out

    @staticmethod
    def _moved(args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        """`Tensor.to`, by a device, a dtype or another tensor."""
        tensor, *rest = args
        named = [*rest, *kwargs.values()]
        to_gpu = isinstance(tensor, OnGpu)
        for one in named:
            if isinstance(one, torch.Tensor):
                to_gpu = isinstance(one, OnGpu)
            elif isinstance(one, torch.device | str):
                to_gpu = torch.device(one).type == "cuda"

        def host(one: Any) -> Any:
            if isinstance(one, torch.device | str) and torch.device(one).type == "cuda":
                return _CPU
            return one.as_subclass(torch.Tensor) if isinstance(one, OnGpu) else one

        plain = tensor.as_subclass(torch.Tensor) if isinstance(tensor, OnGpu) else tensor
        out = plain.to(*map(host, rest), **{name: host(one) for name, one in kwargs.items()})
        stays = to_gpu == isinstance(tensor, OnGpu)
        if stays and out is plain:
            return tensor
        if not stays and out.data_ptr() == tensor.data_ptr():
            out = out.clone()  # another device has memory of its own
        return _on_gpu(out) if to_gpu else out

    @staticmethod
    def _check(func: Any, args: Any, tensors: list[torch.Tensor]) -> None:
        """Raise where CUDA would: a tensor of the host (but a number) beside one of the GPU."""
        if func in _MAY_MEET:
            return
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            # Places may stand on the host; what is read from or written to decides. A slice takes
            # a value of the host, places of a GPU do not.
            place = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, torch.Tensor)]
            if isinstance(args[0], OnGpu):
                tensors = [*(args[2:] if place or _lists(args[1]) else ())]
            else:
                tensors = [args[0], *place]
            tensors = [one for one in tensors if isinstance(one, torch.Tensor)]
            if isinstance(args[0], OnGpu):
                tensors.append(args[0])
        if any(not isinstance(one, OnGpu) and one.dim() for one in tensors):
            shapes = [(type(one).__name__, tuple(one.shape)) for one in tensors]
            raise RuntimeError(
                f"Expected all tensors to be on the same device, cuda:0 and cpu: {func} {shapes}"
            )


def _lists(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, list) for part in parts)


class _Tapes:
    """Stands in for `kv_claims.run.captured._Gpu`."""

    def __init__(self, device: torch.device) -> None:
        assert device.type == "cuda"

    def record(self, step: captured.Step, warm_up: captured.Step) -> Tape:
        captured._warmed(warm_up)
        return Tape(step)


@contextmanager
def pretend_gpu() -> Iterator[torch.device]:
    """While this is open there is a device `cuda`."""
    known = request._check_device

    def check(device: str | None) -> torch.device:
        return torch.device("cuda") if device in (None, "cuda", "cuda:0") else known(device)

    stand_ins: dict[str, Any] = {
        "mem_get_info": lambda _device=None: (_BYTES // 2, _BYTES),
        "memory_reserved": lambda _device=None: 0,
        "memory_allocated": lambda _device=None: 0,
        "empty_cache": lambda: None,
        "get_device_name": lambda _device=None: "a pretended GPU",
        "synchronize": lambda _device=None: None,
    }
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with (
            mock.patch.multiple(torch.cuda, **stand_ins),
            mock.patch.object(request, "_check_device", check),
            mock.patch.object(captured, "_Gpu", _Tapes),
            _Pretending(),
        ):
            yield GPU
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
