"""What a model's folder may hold, checked before anything is built from it.

A folder comes from somebody else. Here its JSON files, its index and the headers of its weight
files are read, and nothing of it is run or allocated.
Promises: what passes names safetensors files alone, all of them in the folder (or in the blobs of
the hub's cache that it belongs to); its numbers of layers, experts and labels are no larger than
its files can hold; it has no adapter beside it. Whatever else is wrong with it, the loader finds.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from kv_claims.errors import UsageError

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_SMALL_JSON, _LARGE_JSON = 16 << 20, 256 << 20
"""Bytes: a configuration lists modules at most, a tokenizer or an index every word or tensor."""
_IS_LARGE = re.compile(r"(^tokenizer|^vocab|^added_tokens|\.index)\.json$")
_READ = (".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken")
"""Endings of what is read."""
_COUNT = re.compile(r"(^|_)(n_)?(layers?|blocks|depth|experts|labels|extra_ids)$")
"""Entries of a configuration that are numbers of things, each of which is built."""
_FEW = 1000
"""So many things of a kind cost nothing, whatever the files hold."""
_ADAPTER = re.compile(r"adapter_(config\.json|model\..*)")
_DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
_DEEPEST = 50


class Stored(NamedTuple):
    """A tensor in a file, by its header. dtype: as safetensors writes it, such as `BF16`."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Contents:
    """A folder that was looked through.

    config, tokenizer: `config.json`, and `tokenizer_config.json` where there is one.
    files: the weight files that are loaded. unread: weight files beside them that are not.
    tensors: by name, those of all files. size: of the weight files together, bytes.
    """

    folder: Path
    config: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    files: tuple[Path, ...]
    unread: tuple[str, ...]
    tensors: Mapping[str, Stored]
    size: int


def contents_of(folder: Path) -> Contents:
    """Look through a folder; errors name the file and do not say which model it is."""
    for path in sorted(folder.iterdir()):
        _check_file(folder, path)
    config = small_json(folder, CONFIG)
    generation, tokenizer = (
        small_json(folder, name) if (folder / name).exists() else {}
        for name in (GENERATION, TOKENIZER)
    )
    _check_code(config)
    _check_names(tokenizer)
    files = _weight_files(folder, config)
    tensors = _headers(files)
    for name, content in ((CONFIG, config), (GENERATION, generation), (TOKENIZER, tokenizer)):
        _check_counts(name, content, len(tensors))
    read = {file.name for file in files}
    return Contents(
        folder,
        config,
        tokenizer,
        tuple(files),
        tuple(sorted(f.name for f in folder.glob("*.safetensors") if f.name not in read)),
        tensors,
        sum(file.stat().st_size for file in files),
    )


def small_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object in a folder's file."""
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except RecursionError:
        raise UsageError(f"{name}: nested too deeply") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise UsageError(f"{name}: expected a JSON object, got {type(content).__name__}")
    return content


def _check_file(folder: Path, path: Path) -> None:
    name = path.name
    if _ADAPTER.fullmatch(name):
        raise UsageError(
            f"{name}: adapters are not loaded yet, and whether transformers would depends on what "
            "is installed; merge it into the weights, or take it out of the folder"
        )
    if not name.endswith(_READ):
        return
    if _DISTRIBUTED.fullmatch(name):
        raise UsageError(f"{name}: a distributed checkpoint, expected {WEIGHTS} or {INDEX}")
    if path.is_dir():
        return
    _check_inside(folder, path)
    if not path.is_file():
        raise UsageError(f"{name}: expected a regular file")
    most = _LARGE_JSON if _IS_LARGE.search(name) else _SMALL_JSON
    if name.endswith(".json") and (size := path.stat().st_size) > most:
        raise UsageError(f"{name}: {size / 2**20:.0f} MiB of JSON, expected at most {most >> 20}")


def _check_inside(folder: Path, path: Path) -> None:
    """Links end in the folder, or in the hub's cache, whose snapshots are links to its blobs."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise UsageError(f"{path.name}: a link that leads nowhere") from None
    home = folder.resolve()
    allowed = [home]
    if home.parent.name == "snapshots":
        allowed.append(home.parent.parent / "blobs")
    if not any(target.is_relative_to(place) for place in allowed):
        raise UsageError(f"{path.name}: a link out of the folder, to {target}")


def _check_code(config: Mapping[str, Any]) -> None:
    """A kernel from the hub is code, and is asked for by its repository's name."""
    for path, value in _entries(config):
        if path[-1].endswith("attn_implementation") or path[-1].endswith("experts_implementation"):
            for one in value.values() if isinstance(value, dict) else [value]:
                if isinstance(one, str) and "/" in one:
                    raise UsageError(f"{CONFIG}: {path[-1]} {one!r} asks for code from the hub")


def _check_names(tokenizer: Mapping[str, Any]) -> None:
    names = tokenizer.get("fast_tokenizer_files") or []
    for name in names if isinstance(names, list) else [names]:
        if not isinstance(name, str) or PurePosixPath(name).name != name:
            raise UsageError(f"{TOKENIZER}: fast_tokenizer_files names {name!r}, not in the folder")


def _weight_files(folder: Path, config: Mapping[str, Any]) -> list[Path]:
    """Those that transformers takes: one file, or all that the index names."""
    named = config.get("transformers_weights")
    if named is None:
        named = WEIGHTS if (folder / WEIGHTS).exists() else INDEX
    elif not isinstance(named, str):
        raise UsageError(f"{CONFIG}: transformers_weights {named!r}, expected a file's name")
    if not named.endswith(".index.json"):
        return [_weight_file(folder, CONFIG, named)]
    if not (folder / named).exists():
        raise UsageError(f"no {WEIGHTS} and no {named}: there are no weights that can be read")
    index = small_json(folder, named)
    where = index.get("weight_map")
    if not isinstance(where, dict) or not where:
        raise UsageError(f"{named}: weight_map, expected a file for each tensor")
    files = set(map(str, where.values()))
    return [_weight_file(folder, named, file) for file in sorted(files)]


def _weight_file(folder: Path, said_by: str, name: str) -> Path:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or ":" in name:
        raise UsageError(f"{said_by}: names {name!r}, expected a file in the folder")
    if parts.suffix != ".safetensors":
        raise UsageError(f"{said_by}: names {name!r}, expected a .safetensors file")
    path = folder / name
    if not path.exists():
        raise UsageError(f"{said_by}: names {name!r}, which is not there")
    _check_inside(folder, path)
    if not path.is_file():
        raise UsageError(f"{name}: expected a regular file")
    return path


def _headers(files: Sequence[Path]) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    where: dict[str, str] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                    tensor = opened.get_slice(name)
                    if name in where:
                        raise UsageError(f"{name}: in {where[name]} and in {file.name}")
                    where[name] = file.name
                    found[name] = Stored(tensor.get_dtype(), tuple(tensor.get_shape()))
        except (SafetensorError, OSError) as error:
            raise UsageError(f"{file.name}: no safetensors file ({error})") from None
    if not found:
        raise UsageError(f"{files[0].name}: holds no tensor")
    return found


def _check_counts(name: str, content: Mapping[str, Any], tensors: int) -> None:
    """Nothing is built so many times that the files could not hold it."""
    most = max(_FEW, tensors)
    for path, value in _entries(content):
        if _COUNT.search(path[-1]) and isinstance(value, int | float) and value > most:
            raise UsageError(
                f"{name}: {'.'.join(path)[:80]} {str(value)[:20]}, and the files hold {tensors} "
                "tensors"
            )


def _entries(content: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every entry of nested objects and lists, with the names that lead to it."""
    left: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while left:
        path, value = left.pop()
        if path:
            yield path, value
        if isinstance(value, dict | list):
            if len(path) > _DEEPEST:
                raise UsageError(f"{path[0][:40]}: nested more than {_DEEPEST} deep")
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            left += [((*path, str(key)), inner) for key, inner in inside]


def dtypes_of(tensors: Mapping[str, Stored]) -> dict[str, int]:
    """How many tensors are stored in which dtype."""
    return dict(sorted(Counter(tensor.dtype for tensor in tensors.values()).items()))
