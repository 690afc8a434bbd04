"""Directions that a task names: vectors to add to activations, or to project out of them.

A file holds one array, `[d]` (the same in every layer), `[layer, d]` or `[layer, head, d]`; or, in
safetensors, several, each named as the tensor of a block that it is for (`k`, `v`, `residual` ...).
d is the width of the tensor, of one head where it has heads; without a head axis all heads get the
same. Keys are those before rotation, behind their norm.

Or a direction is a difference of means: of a model's own activations over some texts, less those
over others. These are *discovery* texts, which no task may judge.

Promises: what is no direction is one error that names the file; what was read is hashed. Does not:
know a model, so not whether widths and layers fit one (`kv_claims.run.constants`). No torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from kv_claims.claims.donors import check_donor
from kv_claims.claims.sites import PARTS
from kv_claims.errors import UsageError

At = Literal["last", "all"]
Array = npt.NDArray[np.float64]
SUFFIXES = (".npy", ".safetensors")


@dataclass(frozen=True)
class Direction:
    """Vectors by tensor; equal where they hold the same numbers.

    sha: SHA-256 over the numbers and their shapes, hex. parts: by the name of a block's tensor, or
    all under '' where one array is for any: `[layer or 1, head or 1, d]`. where: it came from.
    Raises UsageError for a name that no donor could have, and for arrays that are no direction.
    """

    name: str
    parts: Mapping[str, Array] = field(compare=False, repr=False)
    where: str = field(default="<memory>", compare=False)
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        check_donor(f"vector({self.name})")
        named = sorted(set(self.parts) - {""})
        if not self.parts or ("" in self.parts and named):
            raise UsageError(f"{self.where}: expected one array, or several that are named")
        if unknown := [name for name in named if name not in PARTS]:
            raise UsageError(
                f"{self.where}: tensor {unknown[0]!r}, expected one array, or names of "
                f"{', '.join(PARTS)}"
            )
        parts = {name: _shaped(array, self.where) for name, array in self.parts.items()}
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "sha", _hashed(parts))


@dataclass(frozen=True)
class MeanDifference:
    """The mean of activations over the texts of one side less that over the other's.

    at: 'last': of each text's last token, 'all': of all its tokens. sha: SHA-256 over it all, hex.
    Raises UsageError for a name that no donor could have, an empty side, or a text in both.
    """

    name: str
    toward: tuple[str, ...]
    away: tuple[str, ...]
    at: At = "last"
    where: str = field(default="<memory>", compare=False)

    def __post_init__(self) -> None:
        check_donor(f"vector({self.name})")
        if self.at not in get_args(At):
            raise UsageError(f"{self.where}: at {self.at!r}, expected one of {get_args(At)}")
        for side, texts in (("toward", self.toward), ("away", self.away)):
            if not texts or not all(isinstance(one, str) and one.strip() for one in texts):
                raise UsageError(f"{self.where}: `{side}`, expected texts, none of them empty")
        both = [one for one in self.toward if one in self.away]
        if both or len({*self.toward, *self.away}) < len(self.toward) + len(self.away):
            raise UsageError(f"{self.where}: a text stands twice, expected each once")

    @property
    def sha(self) -> str:
        told = json.dumps([self.toward, self.away, self.at])
        return hashlib.sha256(told.encode()).hexdigest()


AnyDirection = Direction | MeanDifference


def read_direction(name: str, path: Path) -> Direction:
    """The direction in a file. Raises UsageError for a file that cannot be read as one."""
    where = f"direction {name!r}, file {path}"
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{where}: expected a file of {' or '.join(SUFFIXES)}")
    if not path.is_file():
        raise UsageError(f"{where}: there is no such file")
    try:
        return Direction(name, _arrays(path), where)
    except (ValueError, OSError, EOFError, TypeError, AttributeError) as error:
        raise UsageError(f"{where}: cannot be read ({str(error)[:200]})") from None


def _arrays(path: Path) -> dict[str, Any]:
    if path.suffix == ".npy":
        return {"": np.load(path, allow_pickle=False)}
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found: dict[str, Any] = load_file(path)
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{error}; half precision other than float16 must be widened") from None
    # One array is for any tensor, whatever it is called, but for one that it is called after.
    return found if len(found) > 1 or set(found) & set(PARTS) else {"": found.popitem()[1]}


def _shaped(array: Any, where: str) -> Array:
    """An array of numbers as `[layer or 1, head or 1, d]`."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise UsageError(f"{where}: expected an array of real numbers")
    if array.ndim not in (1, 2, 3) or not array.size:
        raise UsageError(
            f"{where}: shape {list(array.shape)}, expected [d], [layer, d] or [layer, head, d]"
        )
    found = array.astype(np.float64)
    if not np.isfinite(found).all():
        raise UsageError(f"{where}: some numbers are not finite")
    if not found.any():
        raise UsageError(f"{where}: all numbers are 0, which is no direction")
    shape = {1: (1, 1, -1), 2: (len(found), 1, -1), 3: found.shape}[found.ndim]
    shaped: Array = found.reshape(shape)
    shaped.flags.writeable = False
    return shaped


def _hashed(parts: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(parts.items()):
        digest.update(f"{name}:{array.shape}:".encode() + array.astype("<f8").tobytes())
    return digest.hexdigest()
