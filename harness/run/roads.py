"""By which road a model's rows are decoded: with shared prompts, or plainly.

Both give the same tokens (`docs/sameness.md`). The shared road is taken where a model's attention
is known to be plain, and only after both roads were run on a small batch and their logits agreed;
else rows are decoded plainly, and the reason is recorded.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from harness.models.load import LoadedModel
from harness.models.window import attention_window
from harness.patch.build import build
from harness.patch.plan import RowPlan, Write
from harness.patch.store import PromptStore
from harness.run.decode import decode
from harness.run.sampling_settings import Sampling
from harness.spec import Window

AGREE = {torch.float64: 1e-6, torch.float32: 1e-4}
"""Largest difference of logits between both roads, relative to the largest logit. The other
dtypes are decoded plainly: their products would be rounded before the softmax."""
_LENGTHS = (7, 12, 12)
_STEPS = 3


class Road(NamedTuple):
    """How a model's batches are decoded.

    reason: why plainly, or empty. within: positions, generated ones counted, up to which rows may
    share prompts, as beyond them some layer no longer sees the first; None: there is no limit.
    """

    kind: Literal["shared", "plain"]
    reason: str = ""
    within: int | None = None

    def is_shared(self, positions: int) -> bool:
        """Whether a batch whose longest row ends with so many positions shares prompts."""
        return self.kind == "shared" and (self.within is None or positions <= self.within)


def road_of(model: LoadedModel) -> Road:
    """The road of a model's batches, tried out on a few rows."""
    if model.dtype not in AGREE:
        return Road("plain", f"{model.dtype_name} is decoded by the model's own attention")
    implementation = getattr(model.config, "_attn_implementation", None)
    if implementation not in ("sdpa", "eager"):
        return Road("plain", f"attention {implementation!r}")
    windows = [attention_window(model.config, layer) for layer in range(model.n_layers)]
    within = min((window for window in windows if window is not None), default=None)
    if within is not None and within < max(_LENGTHS) + _STEPS:
        return Road("plain", f"some layer looks back over {within} positions only")
    try:
        apart = _difference(model)
    except Exception as error:  # whatever an unknown architecture raises, the plain road is there
        return Road("plain", f"{type(error).__name__}: {error}"[:200])
    if not apart <= AGREE[model.dtype]:
        return Road("plain", f"logits of both roads differ by {apart:.1e} of the largest")
    return Road("shared", within=within)


def _difference(model: LoadedModel) -> float:
    """How far logits of both roads are apart, on rows that share a prompt, and on patched ones."""
    vocabulary = int(model.config.vocab_size)
    prompts = [
        [(31 * at + 17 * number + 5) % vocabulary for at in range(length)]
        for number, length in enumerate(_LENGTHS)
    ]
    store = PromptStore(model)
    store.add(prompts)
    places = [store.index(prompt) for prompt in prompts]
    short, base, source = places
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
    for shared in (False, True):
        slab = build(store, plans, None, room=_STEPS, shared=shared).slab
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
