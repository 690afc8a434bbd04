"""Patches as text, and what they resolve to on a model and on a pair of prompts."""

from __future__ import annotations

import pytest

from kv_claims.claims.layers import resolve_heads, resolve_layers, shifted_layers
from kv_claims.claims.patch import (
    Patch,
    as_patches,
    canonical,
    check_apart,
    is_full_swap,
)
from kv_claims.claims.sites import SITES, HeadCounts
from kv_claims.errors import UsageError

HEADS = HeadCounts(kv=8, query=32)

# --- layers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "n_layers", "layers"),
    [
        pytest.param("0", 16, (0,), id="first"),
        pytest.param("15", 16, (15,), id="last"),
        pytest.param("18/32", 32, (18,), id="depth-on-its-own-model"),
        pytest.param("18/32", 16, (9,), id="depth-18"),
        pytest.param("25/32", 16, (12,), id="depth-25-rounds-down"),
        pytest.param("27/32", 16, (13,), id="depth-27-rounds-down"),
        pytest.param("31/32", 5, (4,), id="deepest-on-5"),
        pytest.param("0/32", 7, (0,), id="depth-0"),
        # floor(0.29 * 100) is 28 in floating point, as 0.29 * 100 is 28.999...
        pytest.param("29/100", 100, (29,), id="exact-not-floating"),
        pytest.param("1/3", 3, (1,), id="third-of-3"),
        pytest.param("25/32+27/32", 16, (12, 13), id="two-depths"),
        pytest.param("13+2", 16, (2, 13), id="ascending"),
        pytest.param("0:4", 16, (0, 1, 2, 3), id="range"),
        pytest.param("8/32:16/32", 16, (4, 5, 6, 7), id="range-of-depths"),
        pytest.param("14:32/32", 16, (14, 15), id="range-to-the-end"),
        pytest.param("1/2:16", 16, tuple(range(8, 16)), id="depth-to-layer"),
        pytest.param("0:2+5+14:16", 16, (0, 1, 5, 14, 15), id="ranges-and-layers"),
        pytest.param("0:2+2:4", 16, (0, 1, 2, 3), id="ranges-that-touch"),
        pytest.param("all", 3, (0, 1, 2), id="all"),
        pytest.param(" 18/32 + 2 ", 16, (2, 9), id="spaces"),
    ],
)
def test_layers_resolve(text: str, n_layers: int, layers: tuple[int, ...]) -> None:
    assert resolve_layers(text, n_layers) == layers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", r"cannot read ''", id="empty"),
        pytest.param("nine", r"cannot read 'nine'", id="word"),
        pytest.param("9.5", r"cannot read '9.5'", id="decimal"),
        pytest.param("9+", r"cannot read ''", id="nothing-after-plus"),
        pytest.param("9,10", r"cannot read '9,10'", id="comma"),
        pytest.param("0:4:2", r"cannot read '0:4:2'", id="step"),
        pytest.param(":4", r"cannot read ''", id="open-range"),
        pytest.param("1/2/3", r"cannot read '1/2/3'", id="two-slashes"),
        pytest.param("all+3", r"cannot read 'all'", id="all-and-more"),
        pytest.param("-1", r"layer -1 is below 0", id="negative-layer"),
        pytest.param("3/0", r"'3/0' divides by zero", id="zero-denominator"),
        pytest.param("32/32", r"depth 32/32 is outside \[0, 1\)", id="depth-1"),
        pytest.param("33/32", r"depth 33/32 is outside \[0, 1\)", id="depth-above-1"),
        pytest.param("-1/32", r"depth -1/32 is outside \[0, 1\)", id="depth-below-0"),
        pytest.param("32/32:16", r"depth 32/32 is outside \[0, 1\)", id="range-from-depth-1"),
        pytest.param("0:33/32", r"depth 33/32 is outside \[0, 1\)", id="range-beyond-1"),
    ],
)
def test_layers_that_cannot_be_read(text: str, message: str) -> None:
    """Found when the patch is written down, before there is a model."""
    for read in (lambda: Patch("kv", text, "all"), lambda: resolve_layers(text, 16)):
        with pytest.raises(UsageError, match=rf"layers '.*': .*{message}"):
            read()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("16", r"'16' is out of range, expected layers 0 to 15", id="one-too-deep"),
        pytest.param("0:17", r"'0:17' is out of range, expected layers 0 to 15", id="range-end"),
        pytest.param("3+99", r"layers '3\+99': '99' is out of range", id="one-of-two"),
        pytest.param("20:24", r"'20:24' is out of range", id="whole-range"),
        pytest.param("5:5", r"the range '5:5' is empty on 16 layers", id="empty"),
        pytest.param("7:3", r"the range '7:3' is empty on 16 layers", id="backwards"),
        pytest.param("17/32:18/32", None, id="not-empty-as-depths"),
        pytest.param("16/32:17/32", r"'16/32:17/32' is empty on 16", id="empty-on-this-model"),
        pytest.param("9+9", r"'9' and '9' meet in layer 9 of 16", id="twice"),
        pytest.param("9+18/32", r"'9' and '18/32' meet in layer 9 of 16", id="depth-and-layer"),
        pytest.param("24/32+25/32", r"'24/32' and '25/32' meet in layer 12", id="two-depths"),
        pytest.param("0:8+7", r"'0:8' and '7' meet in layer 7 of 16", id="range-and-layer"),
    ],
)
def test_layers_that_do_not_fit_the_model(text: str, message: str | None) -> None:
    Patch("kv", text, "all")
    if message is None:
        assert resolve_layers(text, 16)
        return
    with pytest.raises(UsageError, match=message):
        resolve_layers(text, 16)


def test_depths_that_meet_on_a_shallow_model_are_apart_on_a_deeper_one() -> None:
    assert resolve_layers("24/32+25/32", 32) == (24, 25)


# --- patches -------------------------------------------------------------------------------


@pytest.mark.parametrize("site", SITES)
def test_every_site_is_accepted_and_shown(site: str) -> None:
    layers = "0" if site == "embed" else "18/32"
    assert str(Patch(site, layers, "last(16)")) == f"{site}@{layers}/last(16)"


@pytest.mark.parametrize("site", ["attention", "mlp", "KV", "", None], ids=repr)
def test_a_site_that_is_not_patched_here_is_refused(site: str) -> None:
    expected = "expected one of kv, k, v, kv_proj, .*, resid_mid, residual"
    with pytest.raises(UsageError, match=rf"{expected}(; did you mean '\w+'\?)?$"):
        Patch(site, "9", "all")


@pytest.mark.parametrize(
    ("site", "tensors", "span"),
    [
        ("kv", ("k", "v"), "cache"),
        ("k", ("k",), "cache"),
        ("v", ("v",), "cache"),
        ("kv_proj", ("k", "v"), "prompt"),
        ("k_proj", ("k",), "prompt"),
        ("v_proj", ("v",), "prompt"),
        ("q_proj", ("q",), "prompt"),
        ("z", ("z",), "prompt"),
        ("resid_mid", ("resid_mid",), "prompt"),
        ("residual", ("residual",), "prompt"),
    ],
)
def test_a_site_says_what_it_writes_and_which_positions_it_counts(
    site: str, tensors: tuple[str, ...], span: str
) -> None:
    patch = Patch(site, "9", "all")
    assert (patch.tensors, patch.span, patch.is_splice) == (tensors, span, span == "cache")


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, "kv@9/last(4)"),
        ({"heads": "0 + 2"}, "kv@9/last(4)/heads=0+2"),
        ({"mode": "mix( 0.5 )"}, "kv@9/last(4)/mix(0.5)"),
        ({"active": "every_step"}, "kv@9/last(4)/every_step"),
        ({"active": "every_step(held)", "heads": "1"}, "kv@9/last(4)/heads=1/every_step(held)"),
    ],
    ids=["plain", "heads", "mix", "every-step", "held"],
)
def test_what_is_not_usual_is_shown(options: dict[str, str], shown: str) -> None:
    assert str(Patch("kv", "9", "last(4)", **options)) == shown


@pytest.mark.parametrize("active", ["every step", "always", "every_step()", None], ids=repr)
def test_an_activity_that_there_is_not_is_refused(active: str) -> None:
    expected = r"expected one of prompt, every_step, every_step\(held\)"
    with pytest.raises(UsageError, match=expected):
        Patch("kv", "9", "all", active=active)


@pytest.mark.parametrize(
    ("site", "options", "message"),
    [
        ("kv", {"mode": "add"}, "expected 'replace', 'append', 'mix"),
        ("kv", {"mode": "mix(0)"}, "with 0 < alpha <= 1"),
        ("kv", {"mode": "mix(1.01)"}, "with 0 < alpha <= 1"),
        ("kv", {"mode": "mix(-0.5)"}, "with 0 < alpha <= 1"),
        ("kv", {"mode": "mix(half)"}, "with 0 < alpha <= 1"),
        ("kv", {"mode": "mix()"}, "with 0 < alpha <= 1"),
        ("residual", {"mode": "append"}, "expected site 'kv', layers 'all', heads 'all'"),
        ("kv", {"mode": "mix(0.5)", "active": "every_step"}, "goes with mode 'replace' only"),
        ("kv", {"mode": "append", "active": "every_step(held)"}, "goes with mode 'replace' only"),
        ("k", {"mode": "append"}, "expected site 'kv', layers 'all', heads 'all'"),
        ("kv", {"mode": "append", "layers": "9"}, "expected site 'kv', layers 'all'"),
        ("kv", {"mode": "append", "heads": "0"}, "expected site 'kv', layers 'all'"),
        ("kv", {"mode": "append", "positions": "first(3)"}, r"expected positions 'last\(W\)'"),
        ("kv", {"mode": "append", "positions": "all"}, r"expected positions 'last\(W\)'"),
        ("residual", {"heads": "0"}, "no heads; expected one of kv, k, v, .*q_proj, z, or heads"),
        (
            "attn_out",
            {"heads": "0"},
            r"Patch\(site='attn_out', heads='0'\): this site has no heads",
        ),
        ("embed", {"layers": "all"}, "before all layers; expected layers '0'"),
        ("embed", {"layers": "1"}, "before all layers; expected layers '0'"),
        ("resid_post", {}, "expected one of .*; did you mean 'resid_pre'"),
        ("atn_out", {}, "did you mean 'attn_out'"),
        ("k_proj", {"mode": "mix(0.5)"}, "norm keys behind their projection"),
        ("kv_proj", {"mode": "mix(0.5)"}, "expected site 'k' or 'kv', or mode 'replace'"),
        ("z", {"mode": "mix(0.5)", "active": "every_step"}, "goes with mode 'replace' only"),
        ("kv", {"heads": "1/2"}, "cannot read '1/2'; expected a head"),
        ("kv", {"heads": "-1"}, "heads -1 is below 0|head -1 is below 0"),
        ("kv", {"heads": "0 1"}, "two numbers with nothing between them"),
        ("kv", {"heads": 0}, "heads 0: expected text, got int"),
        ("kv", {"mode": 0.5}, "mode 0.5: expected text, got float"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(
    site: str, options: dict[str, str], message: str
) -> None:
    usual = {"layers": "all", "positions": "last(3)"}
    with pytest.raises(UsageError, match=message):
        Patch(site, **{**usual, **options})


@pytest.mark.parametrize(
    ("mode", "alpha"),
    [("replace", 1.0), ("append", 1.0), ("mix(0.25)", 0.25), ("mix(1)", 1.0), ("mix(.5)", 0.5)],
)
def test_the_sources_weight_is_one_but_for_a_mix(mode: str, alpha: float) -> None:
    assert Patch("kv", "all", "last(3)", mode=mode).alpha == alpha


@pytest.mark.parametrize(
    ("text", "n_heads", "heads"),
    [
        ("all", 4, (0, 1, 2, 3)),
        ("3", 4, (3,)),
        ("2+0", 4, (0, 2)),
        ("1:3", 4, (1, 2)),
        ("0:4", 4, (0, 1, 2, 3)),
    ],
)
def test_heads_resolve(text: str, n_heads: int, heads: tuple[int, ...]) -> None:
    assert resolve_heads(text, n_heads) == heads


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8", r"heads '8': '8' is out of range, expected KV heads 0 to 7 \(the model has 8\)"),
        ("4:9", r"'4:9' is out of range, expected KV heads 0 to 7"),
        ("0:8+3", r"'0:8' and '3' meet in head 3 of 8"),
        ("2:2", r"the range '2:2' is empty on 8 heads"),
    ],
    ids=["past", "range-past", "meet", "empty"],
)
def test_heads_that_do_not_fit_the_model(text: str, message: str) -> None:
    """An index past the KV heads would be an empty slice: 8 of Mistral's 32 query heads."""
    with pytest.raises(UsageError, match=message):
        resolve_heads(text, 8)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (Patch("kv", "18/32", "last(4)"), Patch("kv", "9", "last(4)")),
        (Patch("kv", "0:16", "last(4)"), Patch("kv", "all", "last(4)")),
        (Patch("kv", "2+1", "all", heads="1+0"), Patch("kv", "1+2", "all", heads="0+1")),
        (Patch("kv", "1", "all", heads="0:8"), Patch("kv", "1", "all")),
        (Patch("kv", "1", "all", mode="mix(1.0)"), Patch("kv", "1", "all")),
        (
            Patch("q_proj", "1", "all", heads="0:8"),
            Patch("q_proj", "1", "all", heads="0+1+2+3+4+5+6+7"),
        ),
        (Patch("z", "1", "all", heads="0:32"), Patch("z", "1", "all")),
        (Patch("embed", "0", "all"), Patch("embed", "0", "all")),
        (
            Patch("v_proj", "1", "all", active="every_step"),
            Patch("v_proj", "1", "all", active="every_step"),
        ),
    ],
    ids=[
        "depth",
        "all-layers",
        "order",
        "all-heads",
        "mix-1",
        "eight-of-32",
        "all-32",
        "embed",
        "active",
    ],
)
def test_one_spelling_of_a_patch(given: Patch, wanted: Patch) -> None:
    assert canonical(given, 16, HEADS) == wanted
    assert canonical(wanted, 16, HEADS) == wanted


def test_one_patch_or_several_are_patches() -> None:
    one, other = Patch("k", "1", "all"), Patch("v", "1", "all")
    assert as_patches(one) == (one,)
    assert as_patches([one, other]) == as_patches((one, other)) == (one, other)


@pytest.mark.parametrize("given", [(), [], ["kv@1/all"], (None,)], ids=repr)
def test_what_is_no_patch_is_refused(given: tuple[Patch, ...]) -> None:
    with pytest.raises(UsageError, match="expected a Patch, or several"):
        as_patches(given)


MEET = {
    "same-site": (Patch("v", "1", "all"), Patch("v", "0:2", "last(2)"), "'v' of layer 1"),
    "cache-and-projection": (
        Patch("kv", "all", "last(2)"),
        Patch("k_proj", "3", "all"),
        "'k' of layer 3",
    ),
    "depth": (
        Patch("residual", "9", "all"),
        Patch("residual", "18/32", "first(1)"),
        "'residual' of layer 9",
    ),
    # Different heads or positions of one tensor: two patches of it are refused all the same.
    "heads": (
        Patch("v", "1", "all", heads="0"),
        Patch("v", "1", "all", heads="1"),
        "'v' of layer 1",
    ),
}


@pytest.mark.parametrize("case", MEET)
def test_two_patches_that_write_one_tensor_are_refused(case: str) -> None:
    one, other, message = MEET[case]
    for pair in ((one, other), (other, one)):
        with pytest.raises(UsageError, match=f"both write {message}"):
            check_apart(pair, 16)


def test_patches_of_different_tensors_or_layers_go_together() -> None:
    check_apart(
        [
            Patch("k", "1", "all"),
            Patch("v_proj", "1", "all"),
            Patch("residual", "1", "all"),
            Patch("kv", "2:16", "all"),
        ],
        16,
    )
    check_apart([Patch("kv", "all", "last(2)", mode="append")], 16)


def test_appending_stands_alone() -> None:
    appended = Patch("kv", "all", "last(2)", mode="append")
    with pytest.raises(UsageError, match="expected it alone in its arm"):
        check_apart([appended, Patch("residual", "1", "all")], 16)


@pytest.mark.parametrize(
    ("layers", "positions", "message"),
    [
        pytest.param(9, "all", "layers 9: expected text, got int", id="layers-int"),
        pytest.param(None, "all", "layers None: expected text, got NoneType", id="layers-none"),
        pytest.param("9", 16, "positions 16: expected text, got int", id="positions-int"),
        pytest.param("9", ["all"], "positions .*: expected text, got list", id="positions-list"),
    ],
)
def test_layers_and_positions_are_text(layers: str, positions: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Patch("kv", layers, positions)


def test_spaces_do_not_make_another_patch() -> None:
    assert Patch("kv", " 25/32 + 27/32", "last( 16 )") == Patch("kv", "25/32+27/32", "last(16)")


@pytest.mark.parametrize(
    ("patch", "full"),
    [
        pytest.param(Patch("kv", "all", "all"), True, id="all"),
        pytest.param(Patch("kv", "0:16", "all"), True, id="all-layers-as-a-range"),
        pytest.param(Patch("kv", "0:8+8:32/32", "all"), True, id="all-layers-as-two"),
        pytest.param(Patch("kv", "0:15", "all"), False, id="one-layer-less"),
        pytest.param(Patch("kv", "all", "last(16)"), False, id="a-window"),
        pytest.param(Patch("k", "all", "all"), False, id="keys-only"),
        pytest.param(Patch("v", "all", "all"), False, id="values-only"),
        pytest.param(Patch("kv_proj", "all", "all"), False, id="projections"),
        pytest.param(Patch("kv", "all", "all", heads="0"), False, id="one-head"),
        pytest.param(Patch("kv", "all", "all", mode="mix(0.9)"), False, id="a-mix"),
    ],
)
def test_full_swap_is_k_and_v_of_every_layer_at_every_position(patch: Patch, full: bool) -> None:
    assert is_full_swap([patch], 16) is full


@pytest.mark.parametrize(
    ("patches", "full"),
    [
        pytest.param([Patch("k", "all", "all"), Patch("v", "all", "all")], True, id="k-and-v"),
        pytest.param(
            [Patch("kv", "0:8", "all"), Patch("k", "8:16", "all"), Patch("v", "8:16", "all")],
            True,
            id="by-halves",
        ),
        pytest.param(
            [Patch("kv", str(layer), "all") for layer in range(16)], True, id="layer-by-layer"
        ),
        pytest.param([Patch("kv", "all", "all", active="every_step")], True, id="every-step"),
        pytest.param([Patch("kv", "all", "all", active="every_step(held)")], True, id="held"),
        pytest.param(
            [Patch("kv", "all", "all"), Patch("residual", "3", "last(2)")], True, id="and-more"
        ),
        pytest.param([Patch("k", "all", "all"), Patch("v", "0:15", "all")], False, id="a-v-less"),
        pytest.param([Patch("k", "all", "all"), Patch("v", "all", "last(4)")], False, id="window"),
        pytest.param([Patch("k", "all", "all"), Patch("v_proj", "all", "all")], False, id="proj"),
    ],
)
def test_several_patches_together_are_the_full_swap(patches: list[Patch], full: bool) -> None:
    assert is_full_swap(patches, 16) is full


@pytest.mark.parametrize(
    ("layers", "n_layers", "shifted"),
    [
        pytest.param("9", 16, "1", id="wraps"),
        pytest.param("3", 16, "11", id="forward"),
        pytest.param("25/32+27/32", 16, "4+5", id="two"),
        pytest.param("7+8", 16, "0+15", id="ascending-after-wrapping"),
        pytest.param("0:8", 16, "8+9+10+11+12+13+14+15", id="half"),
        pytest.param("0", 5, "2", id="odd-depth"),
        pytest.param("0:9", 16, None, id="more-than-half-meets"),
        pytest.param("1+9", 16, None, id="meets-itself"),
        pytest.param("all", 16, None, id="all"),
        pytest.param("0", 1, None, id="one-layer-model"),
    ],
)
def test_the_wrong_layer_is_half_the_depth_away(
    layers: str, n_layers: int, shifted: str | None
) -> None:
    assert shifted_layers(layers, n_layers) == shifted
