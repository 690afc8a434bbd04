"""What transformers did with a model's files: what it left out, put in and took for granted.

Promises: a tensor of the files that did not become a part of the network is either of a whole part
that the network does not have (a vision tower, a value head) and recorded, or an error; a tensor
that the files lack is an error. Does not: know what the class of a model leaves out by its own
list (old masks and frequencies, layers for predicting several tokens) does; that is recorded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from transformers import PretrainedConfig

from kv_claims.errors import UsageError
from kv_claims.models.contents import Contents, dtypes_of

NO_MATTER = frozenset(
    (
        *("architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"),
        *("_name_or_path", "name_or_path", "_commit_hash", "id2label", "label2id", "num_labels"),
        *(
            "use_cache",
            "output_attentions",
            "output_hidden_states",
            "return_dict",
            "tokenizer_class",
        ),
        *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id"),
        *("initializer_range", "problem_type", "chunk_size_feed_forward", "is_encoder_decoder"),
        *("loss_type", "gradient_checkpointing", "padding_idx"),
        *("unsloth_version", "unsloth_fixed", "transformers.js_config", "finetuning_task"),
    )
)
"""Entries of a configuration, and of modules, that no number of the forward pass depends on."""
_SHOWN = 3


@dataclass(frozen=True)
class Quantization:
    """How weights are stored. bits: None where the configuration does not say.

    rounds: the dtype whose rounding products with them have; None where that is the network's.
    """

    method: str
    bits: int | None
    rounds: str | None


@dataclass(frozen=True)
class Loading:
    """What stands in the files and what was made of it; all empty for a model made in memory.

    stored: tensors by dtype. computed: the dtype of the loaded ones.
    ignored: parts of the files that the network does not have, with their numbers of tensors.
    added: tensors that no file has and that were not missed. tied: tensors that are one.
    guessed: what decides the forward pass and stands nowhere in `config.json`: the class's value.
    unknown: entries of `config.json` that its class does not know.
    code: classes that the folder brings, which were not run.
    unread: weight files beside those that were read.
    """

    stored: Mapping[str, int] = field(default_factory=dict)
    computed: str = ""
    quantization: Quantization | None = None
    ignored: Mapping[str, int] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    guessed: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def loading_of(
    network: Any, contents: Contents, report: Mapping[str, Iterable[Any]], dtype: torch.dtype
) -> Loading:
    """What became of the files. report: as transformers gives it with `output_loading_info`.

    Raises UsageError for whatever was made up, or left out without being a part of its own.
    """
    _refuse(
        "do not fit the network",
        [f"{name} {a} for {b}" for name, a, b in report["mismatched_keys"]],
    )
    _refuse("are missing, and would be made up", map(str, report["missing_keys"]))
    ignored = _ignored(network, contents, sorted(map(str, report["unexpected_keys"])))
    known, tied = _declared(type(network.config)), _tied(network)
    guessed = _guessed(network.config, contents.config)
    if network.config.get_text_config().tie_word_embeddings and not tied:
        guessed["tie_word_embeddings"] = "False, as the files hold both"
    return Loading(
        stored=dtypes_of(contents.tensors),
        computed=str(dtype).removeprefix("torch."),
        quantization=quantization_of(network.config),
        ignored=ignored,
        added=tuple(
            name
            for name in network.state_dict()
            if name not in contents.tensors
            and _matches(getattr(network, "_keys_to_ignore_on_load_missing", None), name)
        ),
        tied=tied,
        guessed=guessed,
        unknown=tuple(
            sorted(name for name in contents.config if name not in known and name not in NO_MATTER)
        ),
        code=tuple(sorted(_code(contents.config) | _code(contents.tokenizer))),
        unread=contents.unread,
    )


def quantization_of(config: Any) -> Quantization | None:
    """How a network's weights are stored, by its configuration; None: as plain numbers."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    said = dict(found) if isinstance(found, Mapping) else found.to_dict()
    method = getattr(said.get("quant_method"), "value", said.get("quant_method"))
    told = " ".join(str(said[name]) for name in _SAY_BITS if said.get(name) is not None)
    eight, four = (said.get(f"load_in_{n}bit") is True for n in (8, 4))
    number = re.search(r"(?:u?int|float|fp|nf|\b)(\d)(?!\d)", f"{told} {method}", re.IGNORECASE)
    bits = 8 if eight else 4 if four else int(number[1]) if number else None
    rounds_inputs = eight or any(said.get(name) for name in _SAY_INPUTS) or "Dynamic" in told
    if rounds_inputs or "fp8" in str(method):
        # A row of inputs in 8 bits, against its largest number: 2**-8, as bfloat16 has.
        return Quantization(str(method), bits, "bfloat16")
    return Quantization(str(method), bits, said.get("bnb_4bit_compute_dtype") if four else None)


_SAY_BITS = ("bits", "w_bit", "nbits", "weights", "weight_dtype", "quant_type", "fmt")
_SAY_INPUTS = ("activations", "activation_scheme", "input_activations")
"""Entries of the quantisers' configurations that say how weights, and inputs, are stored."""


def _refuse(what: str, names: Iterable[str]) -> None:
    if found := sorted(names):
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise UsageError(f"weights that {what}: {', '.join(found[:_SHOWN])}{more}")


def _ignored(network: Any, contents: Contents, unexpected: Sequence[str]) -> dict[str, int]:
    """Parts that the network does not have, by name, with how many tensors they hold."""
    modules = {name for name, _ in network.named_modules()}
    names = {name.rpartition(".")[2] for name in modules}
    base_model = _base_model(network, modules)
    prefix = getattr(network, "base_model_prefix", "") + "."
    has_prefix = any(name.startswith(prefix) for name in contents.tensors)
    parts: dict[str, list[str]] = {}
    left = []
    for key in unexpected:
        parent = _parent(key, modules)
        own, _, rest = key[len(parent) + bool(parent) :].partition(".")
        if parent in base_model and rest and not own.isdigit() and own not in names:
            parts.setdefault(f"{parent}.{own}".lstrip("."), []).append(rest)
        else:
            left.append(key)
    for part, inside in list(parts.items()):
        # One layer beside the network's own may stand on its way; a head or a tower does not.
        is_head = "." not in part and has_prefix
        if not is_head and not any("." in rest for rest in inside):
            left += [f"{part}.{rest}" for rest in parts.pop(part)]
    _refuse("the network has no place for (is config.json that of these files?)", left)
    patterns = getattr(network, "_keys_to_ignore_on_load_unexpected", None)
    loaded = set(network.state_dict())
    own_list = Counter(
        re.sub(r"\d+", "*", name)
        for name in contents.tensors
        if not {name, prefix + name} & loaded
        and _matches([*(patterns or ()), r"rotary_emb\.inv_freq", r"(^|\.)position_ids$"], name)
    )
    return {**{part: len(inside) for part, inside in parts.items()}, **own_list}


def _base_model(network: Any, modules: Iterable[str]) -> set[str]:
    """The modules around the layers, from the outermost to the decoder."""
    decoder = network.get_decoder()
    path = next((name for name, module in network.named_modules() if module is decoder), "")
    return {name for name in modules if not name or f"{path}.".startswith(f"{name}.")}


def _parent(key: str, modules: set[str]) -> str:
    """The innermost module of the network that a tensor's name leads to."""
    parent = key.rpartition(".")[0]
    while parent not in modules:
        parent = parent.rpartition(".")[0]
    return parent


def _matches(patterns: Iterable[str] | None, name: str) -> bool:
    return any(re.search(pattern, name) for pattern in patterns or ())


def _tied(network: Any) -> tuple[str, ...]:
    names: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return tuple(" = ".join(same) for same in names.values() if len(same) > 1)


def _declared(kind: type) -> set[str]:
    """Entries that a class of configurations knows, under all their names."""
    declared = set(getattr(kind, "__dataclass_fields__", ()))
    return (
        declared
        | set(getattr(kind, "attribute_map", ()))
        | {
            *("model_type", "quantization_config", "rope_theta", "rope_scaling", "text_config"),
            *("attn_implementation", "transformers_weights"),
        }
    )


def _guessed(config: Any, said: Mapping[str, Any]) -> dict[str, str]:
    """Entries of the text model's configuration that the file does not have."""
    text = config.get_text_config()
    inner = said.get("text_config")
    given = set(said) | set(inner if isinstance(inner, Mapping) else ())
    given |= {real for name, real in type(text).attribute_map.items() if name in given}
    if any(name.startswith("rope") for name in given):
        given.add("rope_parameters")
    general = set(getattr(PretrainedConfig, "__dataclass_fields__", ())) - {"tie_word_embeddings"}
    declared = set(getattr(type(text), "__dataclass_fields__", ())) | {"tie_word_embeddings"}
    return {
        name: str(getattr(text, name, None))[:80]
        for name in sorted(declared - general - given - NO_MATTER)
        if "dropout" not in name and "pdrop" not in name
    }


def _code(content: Mapping[str, Any]) -> set[str]:
    """Classes that a folder's `auto_map` names: one, or a slow and a fast one."""
    named = content.get("auto_map")
    found = list(named.values()) if isinstance(named, Mapping) else [named]
    flat = [one for some in found for one in (some if isinstance(some, list) else [some])]
    return {str(one) for one in flat if one is not None}
