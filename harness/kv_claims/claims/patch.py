"""What is patched: site, layers, positions, donor, mode. No torch here.

Promises: a window that does not fit is an error, never shortened (docs/failures.md names it
*short-window*). Layers and heads are read in `claims.layers`, modes in `claims.modes`, donors in
`claims.donors`.
Does not: touch tensors, know architectures, or know what a source and a base are.

Two experiments share the name "KV patch" and are kept apart by their site. A *splice* (`kv`, `k`,
`v`) overwrites slots of the cache once the base is prefilled: a prompt of T tokens caches T-1 of
them (slots 0 .. T-2), the last prompt token is fed afterwards, in every arm alike. An *in-prefill*
patch (all other sites) overwrites activations while the prompt is
computed, so that everything downstream is computed from them: its positions are the T tokens.
What the sites are is in `claims.sites`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from kv_claims.claims.donors import FROM_SOURCE, check_donor
from kv_claims.claims.layers import parse_spans, resolve_heads, resolve_layers, squeezed
from kv_claims.claims.modes import Mode, check_mode, mode_of
from kv_claims.claims.positions import Positions, Prompted, Span, Window, resolve_window
from kv_claims.claims.sites import (
    CACHE_SITES,
    IN_CACHE,
    SITES,
    TENSORS,
    HeadCounts,
    Site,
    Tensor,
    heads_of,
)
from kv_claims.errors import UsageError
from kv_claims.plain import nearest

Active = Literal["prompt", "every_step", "every_step(held)"]
ACTIVE: tuple[Active, ...] = get_args(Active)


@dataclass(frozen=True)
class Patch:
    """One intervention: `site` in `layers` at `positions`, from a donor into the base.

    site: 'kv', 'k', 'v' (the cache, spliced); in the prompt pass 'kv_proj', 'k_proj', 'v_proj',
        'q_proj' (the projections' outputs) | 'z' (what each query head gives to the output
        projection) | 'attn_out', 'mlp_out' (what attention and MLP add to the stream) |
        'resid_pre', 'resid_mid', 'residual' (the stream before a block, before its MLP, and
        behind it) | 'embed' (the embedding of the tokens).
    layers: '9' | '18/32' | 'a+b' | 'a:b' | 'all'; a depth d is layer floor(d * n_layers). Of
        'embed', which stands before all layers, '0'.
    positions: 'last(W)' | 'first(W)' | 'first(P%)' | 'all' | 'at(I)' | 'at(A:B)' | 'all(NAME)' |
        'last(NAME)' | 'first(NAME)'; see `claims.positions`.
    heads: '0' | 'a+b' | 'a:b' | 'all': KV heads of keys and values, query heads of 'q_proj' and
        'z'; other sites have none.
    mode: 'replace' | 'mix(alpha)' ((1 - alpha) base + alpha donor; not of projected keys, which
        some models norm after) | 'append' (the source's last W slots behind the base's; 'kv' only)
        | 'add(alpha)' (base + alpha direction) | 'project_out' (base less its share along a
        direction).
    active: 'prompt' (written once) | 'every_step' (also on at each generated token: the donor's
        own activation at the same step of its own generation, or its one vector) |
        'every_step(held)' (there the donor's last prompt position, held constant).
    donor: 'source' | 'zero' | 'mean' (over the task's bases, all positions) | 'resample' (another
        pair's base) | 'vector(NAME)' (a direction that the task names); see `claims.donors`. Of any
        but the source, 'all' positions are those of the base.
    Raises UsageError where the text cannot be read or the parts do not go together; whether it
    fits a model or a prompt is found by `resolve_layers`, `resolve_heads` and `resolve_window`.
    """

    site: Site
    layers: str
    positions: str
    heads: str = "all"
    mode: str = "replace"
    active: Active = "prompt"
    donor: str = FROM_SOURCE

    def __post_init__(self) -> None:
        if self.site not in SITES:
            near = nearest(self.site, SITES) if isinstance(self.site, str) else ""
            raise UsageError(f"Patch(site={self.site!r}): expected one of {', '.join(SITES)}{near}")
        if self.active not in ACTIVE:
            raise UsageError(f"Patch(active={self.active!r}): expected one of {', '.join(ACTIVE)}")
        for field in ("layers", "positions", "heads", "mode", "donor"):
            object.__setattr__(self, field, squeezed(getattr(self, field), field))
        parse_spans(self.layers, "layers")
        Positions.parse(self.positions)
        parse_spans(self.heads, "heads")
        check_donor(self.donor)
        if self.heads != "all" and heads_of(self.site) is None:
            have = ", ".join(site for site in SITES if heads_of(site) is not None)
            raise UsageError(
                f"Patch(site={self.site!r}, heads={self.heads!r}): this site has no heads; "
                f"expected one of {have}, or heads 'all'"
            )
        if self.site == "embed" and self.layers != "0":
            raise UsageError(
                f"Patch(site='embed', layers={self.layers!r}): the embedding stands before all "
                "layers; expected layers '0'"
            )
        check_mode(self)

    def __str__(self) -> str:
        return self.where if self.donor == FROM_SOURCE else f"{self.where}/donor={self.donor}"

    @property
    def where(self) -> str:
        """What is written to, and how: all but the donor."""
        extra = [f"heads={self.heads}"] if self.heads != "all" else []
        extra += [part for part in (self.mode, self.active) if part not in ("replace", "prompt")]
        return "/".join([f"{self.site}@{self.layers}/{self.positions}", *extra])

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of a layer that are written."""
        return TENSORS[self.site]

    @property
    def is_splice(self) -> bool:
        """Whether the cache is overwritten; else activations, in the prompt pass."""
        return self.site in CACHE_SITES

    @property
    def span(self) -> Span:
        """Which positions its windows count."""
        return "cache" if self.is_splice else "prompt"

    @property
    def how(self) -> Mode:
        """The mode, read."""
        found = mode_of(self.mode)
        assert found is not None  # checked when this was made
        return found

    @property
    def alpha(self) -> float:
        """The donor's weight: 1 but for `mix(alpha)` and `add(alpha)`."""
        return self.how.alpha

    @property
    def writes_whole(self) -> bool:
        """Whether nothing is left of what stood there: all heads are the donor's, and it alone."""
        is_donors = self.how.kind not in ("add", "project_out") and self.alpha == 1
        return self.heads == "all" and is_donors


def is_full_swap(patches: Sequence[Patch], n_layers: int) -> bool:
    """Whether the patches of an arm name the whole cache: K and V of every layer at all positions.

    In one patch or in several, whatever else the arm writes and however long. Such an arm takes the
    source's cache with its length, and the source's last token. patches: in one spelling.
    """
    named = {
        (layer, tensor)
        for patch in patches
        if patch.is_splice
        and (patch.positions, patch.heads, patch.mode) == ("all", "all", "replace")
        and patch.donor == FROM_SOURCE
        for layer in resolve_layers(patch.layers, n_layers)
        for tensor in patch.tensors
    }
    return len(named) == n_layers * len(IN_CACHE)


def as_patches(patches: Patch | Sequence[Patch]) -> tuple[Patch, ...]:
    """One patch or several of one arm, as a tuple. Raises UsageError for none, or two donors."""
    found = (patches,) if isinstance(patches, Patch) else tuple(patches)
    if not found or not all(isinstance(patch, Patch) for patch in found):
        raise UsageError(f"patches {patches!r}: expected a Patch, or several")
    donor_of(found)
    return found


def donor_of(patches: Sequence[Patch]) -> str:
    """The donor of an arm's patches. Raises UsageError where they do not share one."""
    donors = list(dict.fromkeys(patch.donor for patch in patches))
    if len(donors) > 1:
        raise UsageError(
            f"patches {' & '.join(map(str, patches))}: donors {', '.join(donors)}; expected one "
            "donor for all patches of an arm"
        )
    return donors[0]


def canonical(patch: Patch, n_layers: int, heads: HeadCounts) -> Patch:
    """The same patch in one spelling: layers and heads as plain numbers on this model.

    `all` stays, and stands for every range that is all; 'mix(1)' is 'replace', 'add(2.0)' is
    'add(2)'.
    """
    layers = resolve_layers(patch.layers, n_layers)
    is_all = len(layers) == n_layers and patch.site != "embed"
    picked = heads_on(patch, heads)
    return replace(
        patch,
        layers="all" if is_all else "+".join(map(str, layers)),
        heads="all" if picked is None else "+".join(map(str, picked)),
        mode=str(patch.how) if patch.how.kind == "add" or patch.alpha == 1 else patch.mode,
    )


def names_span(arms: Iterable[Sequence[Patch]]) -> bool:
    """Whether some patch of some arms names a part of the prompt that a task marks."""
    return any(Positions.parse(patch.positions).needs_spans for arm in arms for patch in arm)


def check_apart(patches: Sequence[Patch], n_layers: int) -> None:
    """Raise UsageError where two patches of one arm write the same tensor of the same layer."""
    owner: dict[tuple[int, Tensor], int] = {}
    for number, patch in enumerate(patches):
        for layer in resolve_layers(patch.layers, n_layers):
            for tensor in patch.tensors:
                if (other := owner.setdefault((layer, tensor), number)) != number:
                    raise UsageError(
                        f"patches {patches[other]} and {patch}: both write {tensor!r} of layer "
                        f"{layer}; expected different tensors or layers"
                    )
    if len(patches) > 1 and any(patch.mode == "append" for patch in patches):
        raise UsageError("mode 'append' moves every later position; expected it alone in its arm")


def heads_on(patch: Patch, heads: HeadCounts) -> tuple[int, ...] | None:
    """The heads that a patch names on a model, ascending; None for all of them, or no heads.

    Errors as in `resolve_heads`.
    """
    kind, count = heads_of(patch.site), heads.of(patch.site)
    if kind is None or count is None:
        return None
    found = resolve_heads(patch.heads, count, kind)
    return None if len(found) == count else found


def window_of(
    patch: Patch, source: Prompted, base: Prompted, *, where: str = "this pair"
) -> Window:
    """The positions of the donor and of the base that a patch names, but for what it appends.

    A donor that is not the source has as many positions as the base: nothing of the source is
    pasted, so its length says nothing. Errors as in `resolve_window`.
    """
    donor = source if patch.donor == FROM_SOURCE else base
    return resolve_window(patch.positions, donor, base, span=patch.span, where=where)
