"""No network is built that is larger than its files: what is registered is counted as it is built.

transformers builds a network without memory (on torch's `meta` device) and fills it then. Torch
tells of each module, parameter and buffer that is registered, so a configuration that asks for
more than the files hold is stopped after the first that is too much, whatever the architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any

from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from kv_claims.errors import UsageError
from kv_claims.models.contents import Contents

_BUILT_TWICE = 2
"""Input and output embeddings are built apart and tied then."""
_SPARE_NUMBERS, _SPARE_BUFFERS, _SPARE_MODULES = 1 << 20, 1 << 28, 10_000
"""What every network may have beside what stands in files. Buffers: causal masks."""
_MODULES_A_TENSOR = 50


@contextmanager
def no_larger_than(contents: Contents, *, quantized: bool) -> Iterator[None]:
    """Raise UsageError as soon as what is built here is larger than the files.

    quantized: the files then hold several numbers in a byte, and each layer is built twice.
    """
    stored = sum(prod(tensor.shape) for tensor in contents.tensors.values())
    most = _BUILT_TWICE * (8 * contents.size if quantized else stored)
    left = {
        "numbers": most + _SPARE_NUMBERS,
        "numbers in buffers": most + _SPARE_BUFFERS,
        "modules": _MODULES_A_TENSOR * len(contents.tensors) + _SPARE_MODULES,
    }

    def take(what: str, n: int) -> None:
        left[what] -= n
        if left[what] < 0:
            raise UsageError(
                f"config.json asks for more {what} than the files hold: {stored} in "
                f"{len(contents.tensors)} tensors"
            )

    def of_meta(what: str) -> Any:
        def hook(_module: nn.Module, _name: str, tensor: Any) -> None:
            # What is filled is registered once more.
            if tensor is not None and tensor.is_meta:
                take(what, tensor.numel())

        return hook

    def module(_module: nn.Module, _name: str, _child: Any) -> None:
        take("modules", 1)

    with ExitStack() as stack:
        for registered in (
            register_module_parameter_registration_hook(of_meta("numbers")),
            register_module_buffer_registration_hook(of_meta("numbers in buffers")),
            register_module_module_registration_hook(module),
        ):
            stack.callback(registered.remove)
        yield
