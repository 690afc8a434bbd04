"""By which route a model's rows are decoded: with shared prompts, recorded once, or plainly.

All give the same tokens (`docs/sameness.md`). A CPU's time goes into reading and multiplying, so
there rows that share a prompt read it together. A GPU waits for the host to launch each of some
thousand kernels a step, so there a step of fixed shape is recorded and replayed (`static`). Either
is taken where a model's attention is known to be plain, and only after it and the plain route were
run on a small batch and their logits agreed; else rows are decoded plainly, and the reason is
recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch

from kv_claims.claims.positions import Window
from kv_claims.models.load import LoadedModel
from kv_claims.models.window import attention_window
from kv_claims.patch.build import build
from kv_claims.patch.memory import Memory
from kv_claims.patch.plan import RowPlan, Write
from kv_claims.run.decode import decode
from kv_claims.run.probes import LENGTHS, probe_store
from kv_claims.run.sampling_settings import Sampling

Kind = Literal["shared", "static", "plain"]
BEST: dict[str, Kind] = {"cpu": "shared", "cuda": "static"}
"""The route that is tried out on a type of device."""
AGREE: dict[Kind, dict[torch.dtype, float]] = {
    # No half precision: the shared route's own products would be rounded before the softmax.
    "shared": {torch.float64: 1e-6, torch.float32: 1e-4},
    "static": {
        torch.float64: 1e-6,
        torch.float32: 1e-4,
        torch.bfloat16: 5e-2,
        torch.float16: 1e-2,
    },
}
"""Largest difference of logits from the plain route, relative to the largest logit."""
_STEPS = 3


class Route(NamedTuple):
    """How a model's batches are decoded.

    reason: why plainly, or empty. within: positions, generated ones counted, up to which the route
    may be taken, as beyond them some layer no longer sees the first; None: there is no limit.
    """

    kind: Kind
    reason: str = ""
    within: int | None = None

    def of(self, plans: Sequence[RowPlan], steps: int) -> Kind:
        """How a batch of these rows is decoded. steps: tokens that they generate at most."""
        longest = max(plan.tokens for plan in plans) + steps
        if self.within is not None and longest > self.within:
            return "plain"
        if self.kind == "static" and any(plan.planned_at_step(1) for plan in plans):
            return "plain"  # what is written while rows generate is Python, which none can record
        return self.kind


def route_of(model: LoadedModel, kind: Kind | None = None) -> Route:
    """The route of a model's batches, tried out on a few rows. kind: None is the device's best."""
    kind = kind or BEST.get(model.device.type, "plain")
    if kind == "plain":
        return Route("plain", f"nothing faster is known on {model.device.type}")
    if model.dtype not in AGREE[kind]:
        return Route("plain", f"{model.dtype_name} is decoded by the model's own attention")
    implementation = getattr(model.config, "_attn_implementation", None)
    if implementation not in ("sdpa", "eager"):
        return Route("plain", f"attention {implementation!r}")
    windows = [attention_window(model.config, layer) for layer in range(model.n_layers)]
    within = min((window for window in windows if window is not None), default=None)
    if within is not None and within < max(LENGTHS) + _STEPS:
        return Route("plain", f"some layer looks back over {within} positions only")
    try:
        apart = _difference(model, kind)
    except Exception as error:  # whatever an unknown architecture raises, the plain route is there
        return Route("plain", f"{type(error).__name__}: {error}"[:200])
    if not apart <= AGREE[kind][model.dtype]:
        return Route("plain", f"logits of both routes differ by {apart:.1e} of the largest")
    return Route(kind, within=within)


def _difference(model: LoadedModel, kind: Kind) -> float:
    """How far logits are from the plain route's: rows that share a prompt, and patched ones."""
    store, (short, base, source) = probe_store(model)
    window = Window(range(5, 9), range(5, 9))
    middle = model.n_layers // 2
    patch = Write(source, "kv", (middle,), window)
    plans = [
        RowPlan(base, 12),
        RowPlan(base, 12, (patch,)),
        RowPlan(short, 7),
        RowPlan(base, 12),
        RowPlan(source, 12),
    ]
    first = [store.tokens[plan.prompt][-1] for plan in plans]
    uniform = torch.full((len(plans), _STEPS), 0.5, dtype=torch.float64)
    seen = []
    forms: tuple[dict[str, Any], ...] = (
        {},
        {"shared": True} if kind == "shared" else {"memory": Memory()},
    )
    for form in forms:
        slab = build(store, plans, None, headroom=_STEPS, **form).slab
        kept = range(len(plans))
        decoded = decode(
            model, slab, first, uniform, Sampling(_STEPS, 0.0), keep=kept, past_stops=True
        )
        seen.append(decoded)
    plain, fast = seen
    apart = 0.0
    for row in range(len(plans)):
        # Behind a near tie rows were fed other tokens.
        same = 1 + next(
            (i for i in range(_STEPS) if plain.ids[row][i] != fast.ids[row][i]), _STEPS - 1
        )
        one, other = plain.logits[row][:same].double(), fast.logits[row][:same].double()
        apart = max(apart, float((one - other).abs().max() / one.abs().max()))
    return apart
