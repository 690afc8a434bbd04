"""What identifies a network: all that is in memory, not the files that it came from.

Covered: every parameter and buffer (name, shape, dtype, bytes), persistent or not; the class of
every module, its plain attributes (epsilons, scales, whether it trains) and whatever is put in the
place of its `forward`; the entries of the configuration that decide the forward pass; that there
are hooks, and the names of their functions. Parametrizations are modules with tensors of their
own, and so are adapters.
Not covered: the code of classes and functions, torch's and transformers' own registries, and what
a hook's function holds. So trials of a network with foreign hooks are never kept (`foreign`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from kv_claims.errors import UsageError
from kv_claims.models.loading import NO_MATTER
from kv_claims.process.cores import threads_for

_CHUNK = 64 << 20
"""Numbers that are copied from a device at a time."""
_WHOLE, _SAMPLES, _SAMPLE = 1 << 20, 16, 1 << 16
"""Bytes: tensors up to this size are looked at whole, of others so many pieces of so many."""
_CHANGING = ("dynamic", "longrope")
"""RoPE types whose frequencies are those of the last text: what they started from is hashed."""
_MOVING = ("max_seq_len_cached", "attention_scaling")
"""Attributes of such a module that move with its frequencies."""
_KNOWN = ("torch", "transformers", "harness", "accelerate")
"""Packages whose hooks do not change what a network computes, or that transformers put there."""
Modules = list[tuple[str, nn.Module]]
_PLAIN = (bool, int, float, str, type(None), torch.dtype)


def weights_sha(network: nn.Module) -> str:
    """SHA-256 of a network, hex. Reads every byte of its tensors, about 2 GB a second a core.

    Raises UsageError for a network that is not in memory.
    """
    modules = _modules(network)
    tensors = list(_tensors(network, modules))
    with ThreadPoolExecutor(threads_for()) as pool:
        hashes = pool.map(lambda one: _sha(one[1]), tensors)
        told = [
            [name, list(tensor.shape), str(tensor.dtype), sha]
            for (name, tensor), sha in zip(tensors, hashes, strict=True)
        ]
    return _hash_of([told, _structure(network, modules)])


def stamp(network: nn.Module) -> str:
    """A cheap hash that holds in this process: equal as long as a network was not touched.

    Sees what `weights_sha` sees but for one thing: of a large tensor, a change that goes round
    torch's count of writes (`tensor.data[...] = `) is seen where it meets one of 16 pieces of
    64 KiB.
    """
    modules = _modules(network)
    told = [
        [name, list(tensor.shape), str(tensor.dtype), *_glance(tensor)]
        for name, tensor in _tensors(network, modules)
    ]
    return _hash_of([told, _structure(network, modules)])


def foreign(network: nn.Module) -> list[str]:
    """Hooks on a network, and functions in the place of a `forward`, that a user put there."""
    return _foreign(_modules(network))


def _modules(network: nn.Module) -> Modules:
    return list(network.named_modules(remove_duplicate=False))


def _foreign(modules: Modules) -> list[str]:
    everywhere = (torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks)
    found = [("every module", function) for some in everywhere for function in some.values()]
    for name, module in modules:
        for some in (module._forward_hooks, module._forward_pre_hooks):
            found += [(name, function) for function in some.values()]
        if "forward" in module.__dict__:
            found.append((name, module.__dict__["forward"]))
    told = [(name or "network", _name_of(function)) for name, function in found]
    return [f"{place}: {name}" for place, name in told if name.partition(".")[0] not in _KNOWN]


def _structure(network: nn.Module, modules: Modules) -> dict[str, Any]:
    config = getattr(network, "config", None)
    return {
        "modules": [
            [name, _name_of(type(module)), _attributes(module)] for name, module in modules
        ],
        "config": _decisive(config.to_dict()) if config is not None else None,
        "kernels": [
            str(getattr(config, name, None))
            for name in ("_attn_implementation", "_experts_implementation")
        ],
        "hooks": _foreign(modules),
    }


def _tensors(network: nn.Module, modules: Modules) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters, buffers, and what a quantiser keeps beside them, by name."""
    found: dict[str, torch.Tensor] = {}
    for place, module in modules:
        changes = _changes(module)
        for own, tensor in (*module._parameters.items(), *module._buffers.items()):
            moves = changes and own.endswith("inv_freq") and "original" not in own
            if tensor is not None and not moves:
                found[f"{place}.{own}" if place else own] = tensor
    if getattr(getattr(network, "config", None), "quantization_config", None) is not None:
        kept = network.state_dict()
        found |= {name: kept[name] for name in kept.keys() - found.keys()}
    for name in sorted(found):
        if isinstance(found[name], torch.Tensor):
            yield from _inner(name, found[name])


def _inner(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """A tensor, or those that one of a class of its own consists of."""
    if tensor.is_meta:
        raise UsageError(f"{name} is not in memory, so nothing tells whether it is the same")
    if not hasattr(tensor, "__tensor_flatten__"):
        yield name, tensor.detach()
        return
    parts, context = tensor.__tensor_flatten__()
    for part in parts:
        yield from _inner(
            f"{name}.{part} of {_name_of(type(tensor))} {context}", getattr(tensor, part)
        )


def _changes(module: nn.Module) -> bool:
    found = module.__dict__.get("rope_type")
    types = found.values() if isinstance(found, dict) else [found]
    return any(kind in _CHANGING for kind in types)


def _sha(tensor: torch.Tensor) -> str:
    digest = hashlib.sha256()
    for piece in torch.split(tensor.reshape(-1), _CHUNK):
        digest.update(_bytes(piece))
    return digest.hexdigest()


def _glance(tensor: torch.Tensor) -> tuple[int, int, str]:
    """Of a large tensor where it lies, how often it was written to, and a hash of some of it."""
    flat = tensor.reshape(-1)
    if flat.numel() * flat.element_size() <= _WHOLE or not tensor.is_contiguous():
        return 0, 0, _sha(tensor)
    writes = 0 if tensor.is_inference() else tensor._version
    n = _SAMPLE // flat.element_size()
    starts = [(flat.numel() - n) * i // (_SAMPLES - 1) for i in range(_SAMPLES)]
    return tensor.data_ptr(), writes, _sha(torch.cat([flat[start : start + n] for start in starts]))


def _bytes(flat: torch.Tensor) -> Any:
    return flat.contiguous().view(torch.uint8).cpu().numpy()


def _attributes(module: nn.Module) -> dict[str, str]:
    """What a module holds beside tensors and modules, as far as it is plain."""
    moving = _MOVING if _changes(module) else ()
    return {
        name: repr(value)
        for name, value in sorted(vars(module).items())
        if not name.startswith("_") and name not in NO_MATTER and name not in moving
        if value is not None and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _decisive(config: Any) -> Any:
    """Entries that decide the forward pass; what is None is as if it were not there."""
    if isinstance(config, dict):
        return {
            str(name): _decisive(value)
            for name, value in config.items()
            if name not in NO_MATTER and value is not None
        }
    return config


def _name_of(thing: Any) -> str:
    thing = getattr(thing, "func", thing)  # of a partial
    kind = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"


def _hash_of(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
