"""Folders that hold something else than a model that can be read in full: each, and what is said.

Data. A case takes a copy of a small good folder, does one thing to it, and has words that the one
line of the refusal must contain.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

from kv_claims.planted.made import plain_mistral, word_tokenizer

WORDS = 40
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Harm = Callable[[Path], object]


class Case(NamedTuple):
    name: str
    harm: Harm
    says: str


def good_folder(folder: Path) -> None:
    """A Mistral of 4 layers and its tokenizer."""
    from transformers import MistralForCausalLM

    torch.manual_seed(0)
    config = plain_mistral(
        vocab_size=WORDS,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    _save(MistralForCausalLM(config), folder)


def config(**changes: Any) -> Harm:
    return entries("config.json", **changes)


def entries(file: str, **changes: Any) -> Harm:
    """Change entries of a JSON file."""

    def harm(folder: Path) -> None:
        path = folder / file
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(content | changes))

    return harm


def text(file: str, content: str) -> Harm:
    return lambda folder: (folder / file).write_text(content)


def tensors(**made: tuple[int, ...]) -> Harm:
    """Put tensors into the weight file. made: names, with __ for a dot, and shapes."""

    def harm(folder: Path) -> None:
        added = {name.replace("__", "."): torch.ones(shape) for name, shape in made.items()}
        _write(folder, {**load_file(folder / WEIGHTS), **added})

    return harm


def without(part: str) -> Harm:
    """Take the tensors out that have this in their name."""

    def harm(folder: Path) -> None:
        _write(folder, {k: t for k, t in load_file(folder / WEIGHTS).items() if part not in k})

    return harm


def index(file: str, *, move: bool = True) -> Harm:
    """Name this file in an index. move: the weights are there, by an honest path or a dishonest."""

    def harm(folder: Path) -> None:
        names = list(load_file(folder / WEIGHTS))
        target = folder / file
        if move:
            target.parent.mkdir(exist_ok=True)
            (folder / WEIGHTS).rename(target)
        else:
            (folder / WEIGHTS).unlink()
        content = {"metadata": {}, "weight_map": dict.fromkeys(names, file)}
        (folder / INDEX).write_text(json.dumps(content))

    return harm


def index_of(content: str) -> Harm:
    """An index in the place of the weights."""

    def harm(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / INDEX).write_text(content)

    return harm


def linked_out(file: str) -> Harm:
    """Move a file out of the folder and leave a link to it."""

    def harm(folder: Path) -> None:
        outside = folder.parent / f"{folder.name}-{file}"
        (folder / file).rename(outside)
        (folder / file).symlink_to(outside)

    return harm


def pipe(file: str) -> Harm:
    def harm(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return harm


def twice(folder: Path) -> None:
    """Two shards, with one tensor in both."""
    found = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    where = {}
    for number, names in enumerate((list(found), list(found)[:1])):
        file = f"model-{number}.safetensors"
        save_file({name: found[name] for name in names}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))


def other(network: Callable[[], Any], **changes: Any) -> Harm:
    """Another network in the folder, and then other entries in its configuration."""

    def harm(folder: Path) -> None:
        _save(network(), folder)
        config(**changes)(folder)

    return harm


def code(folder: Path) -> None:
    """A model type that transformers does not know, and a file of code that says what it is."""
    (folder / "evil.py").write_text(f"open({str(folder / 'was-run')!r}, 'w')\n")
    mapped = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoTokenizer": "evil.T"}
    config(model_type="evil", auto_map=mapped)(folder)


def tokenizer_code(folder: Path) -> None:
    (folder / "evil.py").write_text(f"open({str(folder / 'was-run')!r}, 'w')\n")
    entries(
        "tokenizer_config.json",
        tokenizer_class="Evil",
        auto_map={"AutoTokenizer": ["evil.T", None]},
    )(folder)


def _small_gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=WORDS, n_positions=64, n_embd=16, n_layer=2, n_head=2)
    )


def _small_gpt() -> OpenAIGPTLMHeadModel:
    return OpenAIGPTLMHeadModel(
        OpenAIGPTConfig(vocab_size=WORDS, n_positions=64, n_embd=16, n_layer=2, n_head=2)
    )


def _save(network: Any, folder: Path) -> None:
    network.save_pretrained(folder)
    word_tokenizer([f"w{i}" for i in range(WORDS)], unknown="w0").save_pretrained(folder)


def _write(folder: Path, found: dict[str, torch.Tensor]) -> None:
    save_file(found, folder / WEIGHTS, metadata={"format": "pt"})


_QUANTISERS = ("awq", "bitsandbytes", "compressed-tensors", "gptq", "hqq", "quanto", "torchao")
_OF_QUANTISERS: dict[str, dict[str, Any]] = {
    "awq": {"bits": 4},
    "bitsandbytes": {"load_in_8bit": True},
    "gptq": {"bits": 4},
    "torchao": {"quant_type": "int8_weight_only"},
    "quanto": {"weights": "int8"},
}
_DEEP = '{"a":' * 5000 + "1" + "}" * 5000

CASES = (
    # What would be read in part, or made up.
    Case("half-the-layers", config(num_hidden_layers=2), "no place for.*layers.2.* and 15 more"),
    Case("no-layers", config(num_hidden_layers=0), "."),
    Case("more-layers", config(num_hidden_layers=5), "are missing.*layers.4"),
    Case(
        "a-bias", tensors(model__layers__0__self_attn__q_proj__bias=(16,)), "no place.*q_proj.bias"
    ),
    Case(
        "lora-inside",
        tensors(model__layers__0__self_attn__q_proj__lora_A__weight=(2, 16)),
        "lora_A",
    ),
    Case("a-norm-in-a-layer", tensors(model__layers__0__post_norm__weight=(16,)), "post_norm"),
    Case("a-norm-at-the-end", tensors(model__last_norm__weight=(16,)), "no place.*last_norm"),
    Case("a-missing-tensor", without("layers.1.mlp.up_proj"), "are missing.*layers.1.mlp.up_proj"),
    Case("another-vocabulary", config(vocab_size=30), r"do not fit.*\[40, 16\].*\[30, 16\]"),
    Case("in-two-files", twice, "lm_head.weight: in model-0.safetensors and in model-1"),
    # What is not loaded.
    Case("adapter-beside", text("adapter_config.json", "{}"), "adapters are not loaded yet"),
    Case("adapter-weights", text("adapter_model.safetensors", ""), "adapters are not loaded yet"),
    Case("distributed", text("shard-00000-model-00001-of-00002.safetensors", ""), "distributed"),
    # Code, pickles, and paths that lead out.
    Case("code", code, "contains custom code"),
    Case("kernel-of-the-hub", config(attn_implementation="evil/kernel"), "asks for code"),
    Case("index-of-pickles", index("model.bin"), "expected a .safetensors file"),
    Case("index-above", index("../outside.safetensors"), r"'\.\./outside.safetensors', expected"),
    Case(
        "index-absolute", index("/tmp/x.safetensors", move=False), "expected a file in the folder"
    ),
    Case("index-of-nothing", index("gone.safetensors", move=False), "which is not there"),
    Case("index-of-lists", index_of("[]"), "index.json: expected a JSON object, got list"),
    Case("index-of-numbers", index_of('{"weight_map": {"a": 1}}'), "names '1'"),
    Case("named-weights", config(transformers_weights="../x.safetensors"), "in the folder"),
    Case("linked-weights", linked_out(WEIGHTS), "a link out of the folder"),
    Case("linked-config", linked_out("config.json"), "a link out of the folder"),
    Case("linked-tokenizer", linked_out("tokenizer.json"), "a link out of the folder"),
    Case("pipe", pipe("generation_config.json"), "expected a regular file"),
    Case(
        "tokenizer-elsewhere",
        entries("tokenizer_config.json", fast_tokenizer_files=["../tokenizer.1.0.json"]),
        "fast_tokenizer_files",
    ),
    # What would fill the memory, or never end.
    Case("many-layers", config(num_hidden_layers=10**7), "num_hidden_layers 10000000"),
    Case("many-labels", config(num_labels=10**9), "num_labels"),
    Case("many-layers-inside", config(vision_config={"depth": 10**8}), "vision_config.depth"),
    Case("many-words", config(vocab_size=10**9), "asks for more numbers than the files hold"),
    Case("wide", config(intermediate_size=10**12), "asks for more numbers than the files hold"),
    Case("wide-heads", config(head_dim=10**9), "asks for more numbers"),
    Case("many-heads", config(num_key_value_heads=10**9), "more numbers|divis"),
    Case("huge-mask", other(_small_gpt2, n_positions=10**5), "asks for more numbers"),
    Case("deep", text("config.json", _DEEP), "config.json: nested"),
    Case("deep-tokenizer", text("tokenizer.json", _DEEP), "."),
    Case("long", text("config.json", " " * (17 << 20)), "17 MiB of JSON, expected at most 16"),
    Case("digits", text("config.json", '{"a": ' + "9" * 10**5 + "}"), "config.json: not JSON"),
    # Whatever else.
    Case("no-json", text("config.json", "model"), "config.json: not JSON"),
    Case("a-list", text("config.json", "[]"), "expected a JSON object, got list"),
    Case("no-type", text("config.json", "{}"), "."),
    Case("another-kind", config(model_type="t5"), "."),
    Case("torn", text(WEIGHTS, "not a safetensors file"), "no safetensors file"),
    Case("empty", lambda folder: _write(folder, {}), "holds no tensor"),
    Case("generation", text("generation_config.json", "{"), "generation_config.json: not JSON"),
    Case("tokenizer", text("tokenizer.json", "{}"), "."),
    Case("flash", config(attn_implementation="flash_attention_2"), "(?i)flash"),
    Case("old-dtype", config(dtype="bf16"), "bf16"),
    Case("padding", config(pad_token_id=WORDS), "(?i)padding_idx|pad_token_id"),
    Case("rope-in-words", config(rope_parameters={"rope_type": "default", "rope_theta": "x"}), "."),
    Case("stops", entries("generation_config.json", eos_token_id=[0, None]), "eos_token_id"),
    Case("no-names", config(return_dict=False), "return_dict"),
    Case("activation", config(hidden_act="quick"), "quick"),
    Case("uneven-heads", config(num_attention_heads=3), "."),
    Case("no-kv-heads", config(num_key_value_heads=0), "."),
    Case("layers-in-words", config(num_hidden_layers="4"), "num_hidden_layers"),
    Case("no-cache", other(_small_gpt), "'openai-gpt' takes no cache of keys and values"),
    *(
        Case(
            f"quantiser-{name}",
            config(quantization_config={"quant_method": name, **_OF_QUANTISERS.get(name, {})}),
            ".",
        )
        for name in _QUANTISERS
    ),
)
