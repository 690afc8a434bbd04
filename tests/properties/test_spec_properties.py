"""Laws of layers and positions, for any text that can be written and any size."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import ceil, floor

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kv_claims.claims.layers import resolve_heads, resolve_layers, shifted_layers
from kv_claims.claims.patch import (
    ACTIVE,
    Patch,
    canonical,
    heads_on,
)
from kv_claims.claims.positions import Window, resolve_window
from kv_claims.claims.sites import SITES, TENSORS, HeadCounts, heads_of
from kv_claims.errors import UsageError

laws = settings(deadline=None, max_examples=100, derandomize=True)
depths = st.integers(1, 10**9).flatmap(
    lambda below: st.tuples(st.integers(0, below - 1), st.just(below))
)
models = st.integers(1, 200)
prompts = st.integers(2, 300)
HEADS = HeadCounts(kv=8, query=32)


@laws
@given(depths, models)
@example((29, 100), 100)
@example((999_999_999, 1_000_000_000), 200)
def test_a_depth_is_the_floor_of_its_exact_product(depth: tuple[int, int], n_layers: int) -> None:
    (layer,) = resolve_layers(f"{depth[0]}/{depth[1]}", n_layers)
    assert layer == floor(Fraction(*depth) * n_layers) == depth[0] * n_layers // depth[1]
    assert 0 <= layer < n_layers


@laws
@given(models, st.data())
def test_a_layer_is_also_the_depth_of_its_own_model(n_layers: int, data: st.DataObject) -> None:
    layer = data.draw(st.integers(0, n_layers - 1))
    assert resolve_layers(f"{layer}/{n_layers}", n_layers) == resolve_layers(str(layer), n_layers)
    assert resolve_layers(str(layer), n_layers) == (layer,)


@laws
@given(depths, st.integers(2, 20), models)
def test_a_depth_does_not_depend_on_how_it_is_written(
    depth: tuple[int, int], times: int, n_layers: int
) -> None:
    number, below = depth
    wider = f"{number * times}/{below * times}"
    assert resolve_layers(wider, n_layers) == resolve_layers(f"{number}/{below}", n_layers)


@laws
@given(models, st.data())
def test_a_range_holds_its_start_and_not_its_end(n_layers: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, n_layers - 1))
    stop = data.draw(st.integers(start + 1, n_layers))
    wanted = tuple(range(start, stop))
    assert resolve_layers(f"{start}:{stop}", n_layers) == wanted
    assert resolve_layers(f"{start}/{n_layers}:{stop}/{n_layers}", n_layers) == wanted


@laws
@given(models, st.data())
def test_cutting_all_layers_into_ranges_gives_all_of_them(
    n_layers: int, data: st.DataObject
) -> None:
    cuts = data.draw(st.sets(st.integers(0, n_layers), max_size=5)) | {0, n_layers}
    ends = sorted(cuts)
    parts = [f"{a}:{b}" for a, b in pairwise(ends)]
    order = data.draw(st.permutations(parts))
    everything = tuple(range(n_layers))
    assert (
        resolve_layers("+".join(order), n_layers) == resolve_layers("all", n_layers) == everything
    )


@laws
@given(models, st.data())
def test_parts_come_back_ascending_and_meet_only_in_an_error(
    n_layers: int, data: st.DataObject
) -> None:
    layers = data.draw(st.lists(st.integers(0, n_layers - 1), min_size=1, max_size=6))
    text = "+".join(map(str, layers))
    if len(set(layers)) < len(layers):
        with pytest.raises(UsageError, match="meet in layer"):
            resolve_layers(text, n_layers)
    else:
        assert resolve_layers(text, n_layers) == tuple(sorted(layers))


@laws
@given(models, st.data())
def test_the_wrong_layers_are_as_many_and_never_the_patched_ones(
    n_layers: int, data: st.DataObject
) -> None:
    layers = data.draw(st.sets(st.integers(0, n_layers - 1), min_size=1, max_size=6))
    wrong = shifted_layers("+".join(map(str, layers)), n_layers)
    moved = {(layer + n_layers // 2) % n_layers for layer in layers}
    assert (wrong is None) is bool(moved & layers)
    if wrong is not None:
        assert set(resolve_layers(wrong, n_layers)) == moved
        # On an even depth the wrong layers of the wrong layers are the patched ones.
        if n_layers % 2 == 0:
            assert set(resolve_layers(shifted_layers(wrong, n_layers) or "", n_layers)) == layers


def assert_window(window: Window, source_tokens: int, base_tokens: int, width: int) -> None:
    """As wide on both sides, unbroken, and within both caches (a prompt's last token is none)."""
    assert len(window.source_slots) == len(window.base_slots) == width
    assert window.source_slots.step == window.base_slots.step == 1
    assert 0 <= window.source_slots.start < window.source_slots.stop <= source_tokens - 1
    assert 0 <= window.base_slots.start < window.base_slots.stop <= base_tokens - 1
    moved = {b - s for s, b in zip(window.source_slots, window.base_slots, strict=True)}
    assert moved == {window.shift}


@laws
@given(prompts, prompts, st.data())
def test_last_aligns_the_ends(source_tokens: int, base_tokens: int, data: st.DataObject) -> None:
    width = data.draw(st.integers(1, min(source_tokens, base_tokens) - 1))
    window = resolve_window(f"last({width})", source_tokens, base_tokens)
    assert_window(window, source_tokens, base_tokens, width)
    assert (window.source_slots.stop, window.base_slots.stop) == (
        source_tokens - 1,
        base_tokens - 1,
    )
    assert window.shift == base_tokens - source_tokens


@laws
@given(prompts, prompts, st.data())
def test_first_aligns_the_starts(source_tokens: int, base_tokens: int, data: st.DataObject) -> None:
    width = data.draw(st.integers(1, min(source_tokens, base_tokens) - 1))
    window = resolve_window(f"first({width})", source_tokens, base_tokens)
    assert_window(window, source_tokens, base_tokens, width)
    assert window.source_slots.start == window.base_slots.start == window.shift == 0


@laws
@given(prompts, prompts, st.integers(1, 100))
@example(101, 101, 7)
def test_a_share_is_the_ceiling_of_its_exact_product(
    source_tokens: int, base_tokens: int, percent: int
) -> None:
    shorter = min(source_tokens, base_tokens) - 1
    window = resolve_window(f"first({percent}%)", source_tokens, base_tokens)
    assert_window(window, source_tokens, base_tokens, ceil(Fraction(percent, 100) * shorter))
    assert len(window.base_slots) == -(-percent * shorter // 100)
    assert window.shift == 0


@laws
@given(prompts, prompts)
def test_all_is_the_shorter_cache_aligned_at_the_ends(source_tokens: int, base_tokens: int) -> None:
    shorter = min(source_tokens, base_tokens) - 1
    window = resolve_window("all", source_tokens, base_tokens)
    assert_window(window, source_tokens, base_tokens, shorter)
    assert window == resolve_window(f"last({shorter})", source_tokens, base_tokens)


@laws
@given(st.sampled_from(["last({})", "first({})", "first({}%)", "all"]), prompts, prompts, st.data())
def test_turning_source_and_base_turns_the_window(
    text: str, source_tokens: int, base_tokens: int, data: st.DataObject
) -> None:
    width = data.draw(st.integers(1, min(100, min(source_tokens, base_tokens) - 1)))
    here = resolve_window(text.format(width), source_tokens, base_tokens)
    there = resolve_window(text.format(width), base_tokens, source_tokens)
    assert there == Window(here.base_slots, here.source_slots)
    assert there.shift == -here.shift


@laws
@given(st.sampled_from(["last", "first"]), prompts, prompts, st.integers(0, 50))
def test_a_window_wider_than_either_cache_is_an_error(
    kind: str, source_tokens: int, base_tokens: int, more: int
) -> None:
    width = min(source_tokens, base_tokens) + more
    with pytest.raises(UsageError, match=f"need {width} cached positions"):
        resolve_window(f"{kind}({width})", source_tokens, base_tokens)


@laws
@given(st.text(alphabet="0123456789/:+-all() ", max_size=12), models)
@example("1/0", 4)
@example("9:", 16)
def test_any_text_resolves_within_the_model_or_is_a_usage_error(text: str, n_layers: int) -> None:
    try:
        layers = resolve_layers(text, n_layers)
    except UsageError:
        return
    assert layers
    assert all(0 <= layer < n_layers for layer in layers)
    assert list(layers) == sorted(set(layers))


windows = st.one_of(
    st.builds("{}({})".format, st.sampled_from(["last", "first"]), st.integers(1, 30)),
    st.builds("first({}%)".format, st.integers(1, 100)),
    st.just("all"),
)


@laws
@given(windows, prompts, prompts)
def test_a_prompt_has_the_positions_of_a_cache_of_one_token_more(
    text: str, source_tokens: int, base_tokens: int
) -> None:
    """Windows differ in what they count, and in nothing else."""
    try:
        of_prompt = resolve_window(text, source_tokens, base_tokens, span="prompt")
    except UsageError:
        with pytest.raises(UsageError):
            resolve_window(text, source_tokens + 1, base_tokens + 1, span="cache")
        return
    assert of_prompt == resolve_window(text, source_tokens + 1, base_tokens + 1, span="cache")
    assert of_prompt.source_slots.stop <= source_tokens
    assert of_prompt.base_slots.stop <= base_tokens


@laws
@given(st.integers(1, 64), st.data())
def test_heads_resolve_as_layers_do(n_heads: int, data: st.DataObject) -> None:
    picked = data.draw(st.sets(st.integers(0, n_heads - 1), min_size=1, max_size=5))
    text = "+".join(map(str, data.draw(st.permutations(sorted(picked)))))
    assert resolve_heads(text, n_heads) == resolve_layers(text, n_heads) == tuple(sorted(picked))


@st.composite
def patches(draw: st.DrawFn) -> Patch:
    """Any patch of a model of 16 layers, 8 KV heads and 32 query heads."""
    site = draw(st.sampled_from(SITES))
    index = st.integers(0, 15).map(str)
    depth = st.integers(0, 31).map("{}/32".format)
    mode = draw(st.sampled_from(["replace", "replace", "mix(0.5)", "mix(1)"]))
    splice = site in ("kv", "k", "v")
    mixes = splice or "k" not in TENSORS[site]
    heads = st.sampled_from(["all", "0:8", "1+0", "7"] if heads_of(site) else ["all"])
    layers = st.one_of(index, depth, st.sampled_from(["all", "0:16", "3:7+9", "1/2:32/32"]))
    return Patch(
        site,
        "0" if site == "embed" else draw(layers),
        draw(windows),
        heads=draw(heads),
        mode=mode if mixes else "replace",
        active=draw(st.sampled_from(ACTIVE)) if not mixes or mode == "replace" else "prompt",
    )


@laws
@given(patches())
def test_a_patch_has_one_spelling_that_does_the_same(patch: Patch) -> None:
    one = canonical(patch, 16, HEADS)
    assert canonical(one, 16, HEADS) == one
    assert resolve_layers(one.layers, 16) == resolve_layers(patch.layers, 16)
    assert heads_on(one, HEADS) == heads_on(patch, HEADS)
    assert (one.alpha, one.active, one.tensors) == (patch.alpha, patch.active, patch.tensors)


@laws
@given(patches(), patches())
def test_patches_that_differ_are_shown_differently(one: Patch, other: Patch) -> None:
    """The name of an arm, and so the key of its trials, is made of this."""
    assert (str(one) == str(other)) is (one == other)
