"""Loading a model: `planted:NAME`, `mini`, a folder, or a hub id, with device, dtype and revision.

Promises: whatever can be found wrong without loading weights is found by `check_request`, with
one clear error; `trust_remote_code` stays off; safetensors only. Does not: know where an
architecture keeps its keys (see `harness.models.rotary`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM

from harness.errors import UsageError
from harness.models import mini
from harness.models.folder import model_folder
from harness.models.planted.build import build_planted
from harness.models.planted.catalog import CATALOG, PLANTED_PREFIX, Planted
from harness.models.tokens import Tokenization, load_tokenizer

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Request:
    """What was asked for, checked: nothing is loaded yet. folder: None for planted and hub ids."""

    name: str
    device: torch.device
    dtype: torch.dtype
    revision: str | None
    planted: Planted | None
    folder: Path | None


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model, ready to run, and what identifies it.

    weights_sha: hash of the weights (planted), of config and weight files (folder), or the
        commit (hub): two models with equal hashes are the same model.
    """

    name: str
    network: Any
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype
    revision: str | None
    weights_sha: str
    planted: Planted | None = None

    @cached_property
    def config(self) -> Any:
        """The text model's configuration."""
        return self.network.config.get_text_config()

    @property
    def n_layers(self) -> int:
        return int(self.config.num_hidden_layers)

    @property
    def n_kv_heads(self) -> int:
        """Heads of keys and values; with grouped queries fewer than heads of queries."""
        config = self.config
        return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @cached_property
    def tokenization(self) -> Tokenization:
        """How text becomes tokens and tokens text."""
        return Tokenization(self.name, self.tokenizer, self.network)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Token ids that end a text; none for the planted models."""
        return self.tokenization.stops.all

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt as it is fed: see `harness.models.tokens`."""
        return self.tokenization.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated token ids, without special tokens."""
        return self.tokenization.decode(ids)


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
    Raises UsageError for an unknown planted name, a folder without a model, text that is no hub
    id, an unknown dtype, or a device that is not there.
    """
    planted = _check_planted(name, revision)
    folder = None if planted else _check_folder(name, revision)
    place = _check_device(device)
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    if dtype is None:
        dtype = "float64" if planted else "bfloat16" if place.type == "cuda" else "float32"
    return Request(name, place, DTYPES[dtype], revision, planted, folder)


def load_model(
    name: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    revision: str | None = None,
) -> LoadedModel:
    """Load a model by name; arguments and errors as in `check_request`.

    Raises UsageError as well when the hub or the folder does not give a causal language model.
    """
    request = check_request(name, device=device, dtype=dtype, revision=revision)
    if request.planted is not None:
        network, tokenizer = build_planted(request.planted)
        network.to(device=request.device, dtype=request.dtype)
        return LoadedModel(
            name=name,
            network=network,
            tokenizer=tokenizer,
            device=request.device,
            dtype=request.dtype,
            revision=None,
            weights_sha=_hash_tensors(network),
            planted=request.planted,
        )
    network, tokenizer = _from_pretrained(request)
    commit = getattr(network.config, "_commit_hash", None)
    return LoadedModel(
        name=name,
        network=network.to(request.device).eval(),
        tokenizer=tokenizer,
        device=request.device,
        dtype=request.dtype,
        revision=commit or revision,
        weights_sha=_hash_folder(request.folder) if request.folder else str(commit),
    )


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


def _check_folder(name: str, revision: str | None) -> Path | None:
    """The folder that the name stands for, checked to hold a model; None for a hub id."""
    folder = model_folder(name)
    if folder is not None:
        missing = [
            what
            for what, found in (
                ("config.json", (folder / "config.json").is_file()),
                ("a *.safetensors file", any(folder.glob("*.safetensors"))),
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
            f"model {name!r}: {mini.FOLDER} is not there; expected a checkout of this project, "
            "or the folder that `python -m harness mini DIR` trains"
        )
    looks_like_path = (
        name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).is_file()
    )
    if looks_like_path or not _HUB_ID.fullmatch(name):
        raise UsageError(
            f"model {name!r}: not a folder and not a hub id; "
            "expected planted:NAME, mini, an existing folder, or a hub id such as owner/name"
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


def _from_pretrained(request: Request) -> tuple[Any, Any]:
    """Network and tokenizer; the config comes first, so that a wrong name costs no download."""
    options = {"revision": request.revision} if request.revision else {}
    place = str(request.folder or request.name)
    try:
        config = AutoConfig.from_pretrained(place, **options)
        tokenizer = load_tokenizer(place, **options)
        network, loaded = AutoModelForCausalLM.from_pretrained(
            place,
            config=config,
            dtype=request.dtype,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        kind = "folder" if request.folder else "hub id"
        raise UsageError(
            f"model {request.name!r}: the {kind} gives no causal language model: {error}"
        ) from error
    # transformers fills what is missing with random numbers and only warns.
    wrong = {what: sorted(map(str, loaded[what])) for what in ("missing_keys", "mismatched_keys")}
    if any(wrong.values()):
        raise UsageError(
            f"model {request.name!r}: the weights do not fit the configuration: "
            + "; ".join(f"{what} {names[:3]} ({len(names)})" for what, names in wrong.items())
        )
    return network, tokenizer


def _hash_tensors(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()


def _hash_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
