"""A model in a GGUF file: undone into a folder of the cache, once, and loaded from there.

The folder is named by the file's SHA-256. transformers undoes the quantisation and reads the
tokenizer, the chat template and the configuration; numbers are kept in float32, so that nothing is
rounded again. Promises: a file that transformers would read in part only is refused: a tensor that
finds no place, a scaling of rotary angles that is not followed. Whatever else of its metadata is
not read is recorded. Does not: know better than transformers what an architecture's metadata means.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from io import StringIO
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kv_claims.errors import UsageError
from kv_claims.files.cache import cache_folder, once, sha256
from kv_claims.models.contents import Contents, dtypes_of
from kv_claims.models.gguf_header import Header, read_header

NOTE = "from_gguf.json"
"""In a folder that was made here: what it was made of."""
_NEEDED = ("gguf", "accelerate")
_LAYER = "blk."
_OLDEST = (5, 24)
"""The first that is known to read a tokenizer as its file describes it; 5.0 does not."""


@dataclass(frozen=True)
class GgufFile:
    """The file that a network was made of.

    quantization: as the file names it (`Q4_1`). tensors: how many are stored in which type.
    licence: as the file names it. unread: metadata of the architecture, and tensors of layers that
    the network does not have, that transformers leaves out. read_by: versions of packages.
    """

    name: str
    sha256: str
    architecture: str
    quantization: str
    tensors: Mapping[str, int]
    licence: str | None
    unread: tuple[str, ...]
    read_by: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


class _Note(msgspec.Struct, frozen=True):
    """files: SHA-256 of each file beside the note."""

    file: GgufFile
    files: dict[str, str]


def check_installed() -> None:
    """Raise UsageError where what reads a GGUF file is missing, or too old."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"a GGUF file is read by {' and '.join(_NEEDED)}; not installed: {', '.join(missing)} "
            "(pip install 'kv-claims[gguf]')"
        )
    found = metadata.version("transformers")
    if tuple(map(int, found.split(".")[:2])) < _OLDEST:
        raise UsageError(
            f"a GGUF file is read by transformers {'.'.join(map(str, _OLDEST))} or newer, "
            f"and {found} is installed; an older one reads some tokenizers as others than they are"
        )


def check_file(path: Path) -> Header:
    """A GGUF file's head, if transformers can read the file; nothing is built.

    Raises UsageError for a file that is none, is truncated, is of another architecture or is
    quantised in a way that cannot be undone, and where the packages for it are missing.
    """
    check_installed()
    header = read_header(path)
    known = _architectures()
    if _plain(header.architecture) not in map(_plain, known):
        raise UsageError(
            f"architecture {header.architecture!r}, and transformers reads {', '.join(known)} from "
            "GGUF"
        )
    _check_types({tensor.dtype for tensor in header.tensors.values()})
    return header


def undone(path: Path) -> Path:
    """The folder of a file's model, made where it is not in the cache yet.

    Raises UsageError as `check_file` does, and where the cache has no room for it; whatever
    transformers raises.
    """
    header, sha = check_file(path), sha256(path)
    return once(undone_folder(sha), 4 * header.numbers, lambda part: _undo(header, sha, part))


def undone_folder(sha: str) -> Path:
    """Where the model of a file with this SHA-256 lies, there or not."""
    return cache_folder() / "gguf" / sha


def made_of(folder: Path) -> GgufFile | None:
    """What a folder of the cache was made of; None for any other folder.

    Raises UsageError for one that was changed since.
    """
    if folder.parent != cache_folder() / "gguf":
        return None
    try:
        note = msgspec.json.decode((folder / NOTE).read_bytes(), type=_Note)
        changed = [name for name, sha in note.files.items() if sha256(folder / name) != sha]
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{folder}: damaged ({error}); remove it, it is made again") from None
    if changed:
        raise UsageError(f"{folder}: {', '.join(changed)} changed; remove it, it is made again")
    return note.file


def _undo(header: Header, sha: str, part: Path) -> None:
    """Write a model's folder, and a note of what it was made of."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from kv_claims.models.budget import no_larger_than

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    # What lies beside a file is not its own, and transformers would read it.
    with tempfile.TemporaryDirectory() as alone:
        (Path(alone) / "model.gguf").symlink_to(header.path.resolve())
        place = {"pretrained_model_name_or_path": alone, "gguf_file": "model.gguf", **options}
        place |= {"dtype": "float32", "output_loading_info": True}
        place["quantization_config"] = GgufConfig(dequantize=True)
        try:
            tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file="model.gguf", **options)
            # Its bar goes there, whatever it is told.
            with no_larger_than(_contents(header), quantized=False), redirect_stderr(StringIO()):
                network, report = AutoModelForCausalLM.from_pretrained(**place)
        except OSError as error:  # of a cache that cannot be written there are others
            raise UsageError(f"transformers cannot read it: {error}") from error
    if missing := sorted(map(str, report["missing_keys"])):
        raise UsageError(
            f"weights that are missing, and would be made up: {', '.join(missing[:3])}"
        )
    unread = (*_without_place(header, network), *_unread(header))
    _check_rope(header, network.config)
    # It is a plain model now, and transformers saves none that is called quantised.
    network.config.__dict__.pop("quantization_config", None)
    network.__dict__.pop("hf_quantizer", None)
    tokenizer.init_kwargs.pop("gguf_file", None)
    try:
        network.save_pretrained(part)
        tokenizer.save_pretrained(part)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    file = GgufFile(
        name=header.path.name,
        sha256=sha,
        architecture=header.architecture,
        quantization=_quantization(header),
        tensors=dtypes_of(header.tensors),
        licence=header.said.get("general.license"),
        unread=unread,
        read_by={name: metadata.version(name) for name in ("transformers", "gguf")},
    )
    files = {path.name: sha256(path) for path in sorted(part.iterdir())}
    note = {"file": file.to_dict(), "files": files}
    (part / NOTE).write_text(json.dumps(note, indent=2), encoding="utf-8")


def _without_place(header: Header, network: Any) -> tuple[str, ...]:
    """Tensors of layers behind the network's own; any other without a place is an error."""
    layers = network.config.get_text_config().num_hidden_layers
    behind = {
        name: tensor
        for name, tensor in header.tensors.items()
        if name.startswith(_LAYER) and int(name.split(".")[1]) >= layers
    }
    left = header.numbers - sum(prod(tensor.shape) for tensor in behind.values())
    tied = network.config.get_text_config().tie_word_embeddings
    if tied and "output.weight" in header.tensors:
        left -= prod(header.tensors["output.weight"].shape)
    left -= sum(tensor.numel() for tensor in {id(t): t for t in network.parameters()}.values())
    left -= sum(t.numel() for n, t in network.named_buffers() if n in network.state_dict())
    if left > 0:
        such = [name for name, tensor in header.tensors.items() if prod(tensor.shape) == left]
        raise UsageError(
            f"{left} of its numbers find no place in transformers' network"
            f"{f' (those of {such[0]}?)' if such else ''}: it would be another model"
        )
    return tuple(sorted(behind))


def _unread(header: Header) -> tuple[str, ...]:
    """Metadata of the architecture that transformers' table for it does not name."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_TO_TRANSFORMERS_MAPPING

    own = f"{header.architecture}."
    table = GGUF_TO_TRANSFORMERS_MAPPING["config"].get(header.architecture)
    if table is None:
        return ()
    return tuple(
        key for key in header.said if key.startswith(own) and key.removeprefix(own) not in table
    )


def _check_rope(header: Header, config: Any) -> None:
    factor = header.said.get(f"{header.architecture}.rope.scaling.factor", 1.0)
    followed = getattr(config.get_text_config(), "rope_parameters", None) or {}
    if factor not in (0.0, 1.0) and followed.get("rope_type", "default") == "default":
        raise UsageError(
            f"rope.scaling.factor {factor}, which transformers does not read from a GGUF file of "
            f"architecture {header.architecture!r}: it would be another model"
        )


def _architectures() -> list[str]:
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    return sorted({*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_CONFIG_ARCHS} - {"general", "tokenizer"})


def _plain(architecture: str) -> str:
    """One spelling for `gpt-oss` and `gpt_oss`."""
    return architecture.replace("-", "").replace("_", "")


def _check_types(types: set[str]) -> None:
    """Each is undone on a block of zeros, which shows whether it can be."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    for name in sorted(types - {"F32", "F16"}):
        kind = GGMLQuantizationType[name]
        try:
            dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except NotImplementedError:
            raise UsageError(f"tensors stored as {name}, which cannot be undone") from None


def _quantization(header: Header) -> str:
    """What the file calls itself; without, the type that most of its numbers have."""
    from gguf import LlamaFileType

    try:
        return str(LlamaFileType(header.said.get("general.file_type")).name.split("_", 1)[1])
    except (ValueError, IndexError):
        sizes: dict[str, int] = {}
        for tensor in header.tensors.values():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + prod(tensor.shape)
        return max(sizes, key=lambda kind: sizes[kind])


def _contents(header: Header) -> Contents:
    return Contents(header.path.parent, {}, {}, (header.path,), (), header.tensors, header.size)
