"""The table against the models themselves: what it names is what their caches hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache, Gemma3Config

from kv_claims.claims.sites import PARTS, Tensor
from kv_claims.errors import UsageError
from kv_claims.models.architectures import (
    TABLE,
    Anatomy,
    anatomy_of,
    decoder_layers,
    output_of,
    with_output,
)
from kv_claims.models.forward import with_cache
from kv_claims.models.rotary import rotation_of
from tests.models.architectures import CONFIGS, prompt, tiny

TOKENS = 12
LAST = 3
POSITIONS = torch.arange(TOKENS)


def run(network: Any) -> tuple[Anatomy, DynamicCache, dict[tuple[int, Tensor], torch.Tensor]]:
    """One pass: the cache, and each tensor as the table finds it, `pos head d_head`."""
    anatomy, cache = anatomy_of(network), DynamicCache()
    found: dict[tuple[int, Tensor], torch.Tensor] = {}

    def keep(layer: int, tensor: Tensor) -> Any:
        def hook(_module: nn.Module, args: Any, kwargs: Any, *result: Any) -> None:
            given = args[0] if args else kwargs["hidden_states"]
            states = output_of(result[0]) if result else given
            found[layer, tensor] = anatomy.part(states, tensor)[0].clone()

        return hook

    for layer in range(len(anatomy.layers)):
        for tensor in PARTS:
            module, hook = anatomy.module(layer, tensor), keep(layer, tensor)
            if anatomy.at(tensor) == "input":
                module.register_forward_pre_hook(hook, with_kwargs=True)
            else:
                module.register_forward_hook(hook, with_kwargs=True)
    with torch.no_grad():
        network(input_ids=torch.tensor([prompt(TOKENS, 1)]), **with_cache(network, cache))
    return anatomy, cache, found


def wrapped_gemma3() -> Any:
    """A multimodal model around Gemma 3, asked for text only."""
    config = Gemma3Config(
        text_config=tiny("gemma3").network.config.to_dict(),
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        mm_tokens_per_image=4,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).double().eval()


def network_of(name: str) -> Any:
    return wrapped_gemma3() if name == "gemma3-multimodal" else tiny(name).network


@pytest.mark.parametrize("name", [*CONFIGS, "gemma3-multimodal"])
def test_values_of_the_table_are_the_values_of_the_cache(name: str) -> None:
    anatomy, cache, found = run(network_of(name))
    for layer, kept in enumerate(cache.layers):
        assert found[layer, "v"].shape == (TOKENS, anatomy.n_kv_heads, anatomy.d_head)
        assert torch.equal(found[layer, "v"].transpose(0, 1), kept.values[0])


@pytest.mark.parametrize("name", [*CONFIGS, "gemma3-multimodal"])
def test_keys_of_the_table_normed_and_rotated_are_the_keys_of_the_cache(name: str) -> None:
    network = network_of(name)
    anatomy, cache, found = run(network)
    for layer, kept in enumerate(cache.layers):
        keys = found[layer, "k"]
        norm = getattr(getattr(anatomy.layers[layer], "self_attn", None), "k_norm", None)
        with torch.no_grad():
            keys = norm(keys) if norm is not None else keys
        if anatomy.rotary is not None:
            # yarn and longrope scale what they rotate.
            scale = getattr(anatomy.rotary, "attention_scaling", 1.0)
            keys = rotation_of(network)(layer, keys, POSITIONS) * scale
        torch.testing.assert_close(keys.transpose(0, 1), kept.keys[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*CONFIGS, "gemma3-multimodal"])
def test_the_stream_is_what_is_added_up(name: str) -> None:
    """Embedding, attention and MLP, layer by layer; in parallel blocks nothing stands between."""
    network = network_of(name)
    anatomy, _, found = run(network)
    assert anatomy.is_parallel is (name == "gpt_neox")
    scale = 32**0.5 if name.startswith("gemma") else 1.0
    table = network.get_input_embeddings().weight[prompt(TOKENS, 1)][:, None].detach()
    embedded = found[0, "embed"]
    if name != "gemma2":  # scales in its embedding or behind it, by release
        torch.testing.assert_close(embedded, table * scale, rtol=1e-6, atol=0)
    # GPT-2 adds positions behind it.
    if name != "gpt2":
        wanted = table * scale
        torch.testing.assert_close(found[0, "resid_pre"], wanted, rtol=1e-6, atol=0)
    for layer in range(len(anatomy.layers)):
        pre, behind = found[layer, "resid_pre"], found[layer, "residual"]
        attention, mlp = found[layer, "attn_out"], found[layer, "mlp_out"]
        assert float(attention.abs().amax()) > 1e-3 < float(mlp.abs().amax())
        torch.testing.assert_close(pre + attention + mlp, behind, rtol=1e-9, atol=1e-9)
        if not anatomy.is_parallel:
            assert torch.equal(pre + attention, found[layer, "resid_mid"])
        if layer:
            assert torch.equal(pre, found[layer - 1, "residual"])


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "phi3", "gpt_neox", "gpt2"])
def test_queries_look_at_keys_and_heads_give_what_they_see(name: str) -> None:
    """From the table's queries and the cache to each query head's output."""
    network = tiny(name).network
    anatomy, cache, found = run(network)
    layer = LAST  # of Gemma 3 the last attends to everything
    attention = network.get_decoder().get_submodule(
        {"gpt2": f"h.{layer}.attn", "gpt_neox": f"layers.{layer}.attention"}.get(
            name, f"layers.{layer}.self_attn"
        )
    )
    queries = found[layer, "q"]
    assert queries.shape == found[layer, "z"].shape == (TOKENS, 4, 8)
    norm = getattr(attention, "q_norm", None)
    with torch.no_grad():
        queries = norm(queries) if norm is not None else queries
    if anatomy.rotary is not None:
        queries = rotation_of(network)(layer, queries, POSITIONS)
    keys, values = (
        of[0].repeat_interleave(4 // len(of[0]), 0)
        for of in (cache.layers[layer].keys, cache.layers[layer].values)
    )
    scores = torch.einsum("qhd,hkd->hqk", queries, keys) / 8**0.5
    hidden = torch.ones(TOKENS, TOKENS).triu(1).bool()
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    wanted = torch.einsum("hqk,hkd->qhd", weights, values)
    torch.testing.assert_close(found[layer, "z"], wanted, rtol=1e-4, atol=1e-4)


def test_blocks_without_a_stream_between_are_refused_by_name() -> None:
    anatomy_of(tiny("gpt_neox-serial").network).check("resid_mid")
    anatomy = anatomy_of(tiny("gpt_neox").network)
    for tensor in set(PARTS) - {"resid_mid"}:
        anatomy.check(tensor)
    with pytest.raises(UsageError, match=r"site='resid_mid'.*'gpt_neox' here has parallel blocks"):
        anatomy.check("resid_mid")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_output_of_a_layer_is_the_input_of_the_next(name: str) -> None:
    network = tiny(name).network
    layers = decoder_layers(network)
    assert len(layers) == network.config.num_hidden_layers
    given: list[torch.Tensor] = []

    def note(_module: nn.Module, args: Any, kwargs: Any) -> None:
        given.append(args[0] if args else kwargs["hidden_states"])

    for layer in layers:
        layer.register_forward_pre_hook(note, with_kwargs=True)
    _, _, found = run(network)
    for layer_index in range(len(layers) - 1):
        assert torch.equal(found[layer_index, "residual"][:, 0], given[layer_index + 1][0])


@pytest.mark.parametrize("name", ["llama", "phi3", "gpt_neox", "gpt2"])
def test_writing_to_a_part_writes_the_output_and_nothing_else(name: str) -> None:
    anatomy = anatomy_of(tiny(name).network)
    width = {"llama": 2 * 8, "phi3": (4 + 2 + 2) * 8, "gpt_neox": 96, "gpt2": 96}[name]
    output = torch.zeros(1, 3, width)
    anatomy.part(output, "k")[0, 1] = 1.0
    assert output.sum() == output[0, 1].sum() == anatomy.n_kv_heads * anatomy.d_head
    if name != "llama":
        assert anatomy.part(output, "v").sum() == 0


def test_every_row_of_the_table_has_a_tiny_model() -> None:
    assert set(TABLE) == {kind for kind, _ in CONFIGS.values()}


def test_an_unknown_architecture_is_refused_with_what_is_missing_and_what_is_known() -> None:
    network = tiny("llama").network
    network.config.model_type = "novel"
    with pytest.raises(UsageError, match=r"'novel': it is not known.*layers.*gemma2.*qwen3"):
        anatomy_of(network)
    with pytest.raises(UsageError, match="architecture 'novel'"):
        decoder_layers(network)


def test_a_module_that_is_not_where_the_table_says_is_named() -> None:
    network = tiny("llama").network
    network.config.model_type = "gpt_neox"
    with pytest.raises(UsageError, match=r"'gpt_neox': no module 'attention\.query_key_value'"):
        anatomy_of(network)


def test_what_a_layer_returns_may_be_a_tensor_or_a_tuple() -> None:
    old, new = torch.zeros(2), torch.ones(2)
    assert output_of(old) is output_of((old, "weights")) is old
    assert with_output(old, new) is new
    assert with_output((old, "weights"), new) == (new, "weights")
