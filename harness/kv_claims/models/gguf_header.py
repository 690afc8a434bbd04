"""The head of a GGUF file: what it says of a model, and which tensors it holds.

Read here so that a bad file is known as such at once: transformers' own reader takes seconds for a
head, and does not say that the end of a file is missing. Promises: whatever a file is, an error is
a UsageError, and no more is allocated than the file holds. Does not: read a weight, or a
vocabulary.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from kv_claims.errors import UsageError
from kv_claims.models.contents import Stored

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_ALIGNED = 32
_MOST_AXES, _MOST_LAYERS = 4, 1000


class Header(NamedTuple):
    """said: metadata by key; of an array the number of its entries. tensors: by name, shapes as
    torch has them, types as ggml names them (`Q4_1`). size: of the file, bytes."""

    path: Path
    said: Mapping[str, Any]
    tensors: Mapping[str, Stored]
    size: int

    @property
    def architecture(self) -> str:
        return str(self.said["general.architecture"])

    @property
    def numbers(self) -> int:
        """Of weights, in all tensors."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())


def read_header(path: Path) -> Header:
    """The head of a file, checked against the file's length.

    Needs the package `gguf`. Errors do not name the file.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
            return _read(path, held)
    except (struct.error, UnicodeDecodeError, IndexError, OverflowError) as error:
        raise UsageError(
            f"no GGUF file, or a truncated one: its head ends early ({error})"
        ) from None
    except ValueError as error:  # what mmap says of an empty file
        raise UsageError(f"no GGUF file: {error}") from None
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})") from None


def _read(path: Path, held: mmap.mmap) -> Header:
    if held[:4] != _MAGIC:
        raise UsageError(f"no GGUF file: starts with {held[:4]!r}, expected {_MAGIC!r}")
    version, n_tensors, n_said = struct.unpack_from("<IQQ", held, 4)
    if version not in _VERSIONS:
        raise UsageError(f"GGUF version {version}, expected {' or '.join(map(str, _VERSIONS))}")
    at = 24
    said: dict[str, Any] = {}
    for _ in range(n_said):
        key, at = _string(held, at)
        (kind,) = struct.unpack_from("<I", held, at)
        said[key], at = _value(held, at + 4, kind)
    tensors, ends, at = _tensors(held, at, n_tensors)
    if not isinstance(said.get("general.architecture"), str) or not tensors:
        raise UsageError("holds no model: no general.architecture, or no tensors")
    aligned = said.get("general.alignment", _ALIGNED)
    if not isinstance(aligned, int) or aligned < 1:
        raise UsageError(f"general.alignment {aligned!r}, expected a number of bytes")
    whole = -(-at // aligned) * aligned + max(ends)
    if whole > len(held):
        raise UsageError(f"truncated: has {len(held)} bytes, and its tensors end at {whole}")
    _check_size(said, len(tensors))
    return Header(path, said, tensors, len(held))


def _check_size(said: Mapping[str, Any], n_tensors: int) -> None:
    """A part of a model, or one with more layers than tensors, is not built."""
    if isinstance(parts := said.get("split.count"), int) and parts > 1:
        raise UsageError(
            f"one of {parts} parts of a model; expected one file (`llama-gguf-split --merge` joins "
            "them)"
        )
    most = max(n_tensors, _MOST_LAYERS)
    for key, value in said.items():
        if key.endswith("_count") and isinstance(value, int) and value > most:
            raise UsageError(f"{key} {value}, and it holds {n_tensors} tensors")


def _tensors(held: mmap.mmap, at: int, n_tensors: int) -> tuple[dict[str, Stored], list[int], int]:
    """Tensors by name, where each ends in the part with the data, and where their list ends."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    found: dict[str, Stored] = {}
    ends = []
    for _ in range(n_tensors):
        name, at = _string(held, at)
        (axes,) = struct.unpack_from("<I", held, at)
        if axes > _MOST_AXES:
            raise UsageError(f"tensor {name}: {axes} axes, expected at most {_MOST_AXES}")
        *shape, number, start = struct.unpack_from(f"<{axes}QIQ", held, at + 4)
        at += 16 + 8 * axes
        try:
            kind = GGMLQuantizationType(number)
        except ValueError:
            raise UsageError(
                f"tensor {name}: ggml type {number}, which the installed gguf does not know"
            ) from None
        of_block, bytes_of_block = GGML_QUANT_SIZES[kind]
        if name in found or (shape and shape[0] % of_block):
            raise UsageError(f"tensor {name}: stands twice, or in no whole blocks of {kind.name}")
        found[name] = Stored(kind.name, tuple(reversed(shape)))
        ends.append(start + prod(shape) // of_block * bytes_of_block)
    return found, ends, at


def _value(held: mmap.mmap, at: int, kind: int) -> tuple[Any, int]:
    if kind in _NUMBERS:
        form = f"<{_NUMBERS[kind]}"
        return struct.unpack_from(form, held, at)[0], at + struct.calcsize(form)
    if kind == _STRING:
        return _string(held, at)
    if kind != _ARRAY:
        raise UsageError(f"metadata of type {kind}, expected one of the types of GGUF")
    inner, n = struct.unpack_from("<IQ", held, at)
    at += 12
    if inner in _NUMBERS:
        at += n * struct.calcsize(f"<{_NUMBERS[inner]}")
    else:
        for _ in range(n):
            if inner == _STRING:
                at += 8 + struct.unpack_from("<Q", held, at)[0]
            else:
                _, at = _value(held, at, inner)
    return n, at


def _string(held: mmap.mmap, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", held, at)
    end = at + 8 + length
    if end > len(held):
        raise IndexError(f"a text of {length} bytes")
    return held[at + 8 : end].decode("utf-8"), end
