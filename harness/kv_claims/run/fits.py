"""Whether an architecture that nobody has tested here can be patched through its cache at all.

The table of `kv_claims.models.architectures` is tested on tiny models. Of any other nothing is
known: whether it is causal, takes its positions where it is told, and reads rows of unlike length
past their padding. So a few rows are decoded before its first trial, one of them spliced, and their
logits are held against the oracle's (`kv_claims.run.oracle`). Promises: what passes decodes and
splices as the oracle does; what does not is refused by name, in one line. Does not: move keys, nor
look at what no few tokens show, such as attention windows.
"""

from __future__ import annotations

import torch

from kv_claims.claims.positions import Window
from kv_claims.errors import UsageError
from kv_claims.models.architectures import TABLE
from kv_claims.models.cached import first_line
from kv_claims.models.load import LoadedModel
from kv_claims.patch.build import build
from kv_claims.patch.plan import RowPlan, Write
from kv_claims.run.decode import decode
from kv_claims.run.oracle import Paste, oracle_logits, relative_error
from kv_claims.run.probes import probe_store
from kv_claims.run.sampling_settings import Sampling

FITS_WITHIN = {"float64": 1e-4, "float32": 1e-3, "bfloat16": 0.2, "float16": 0.1}
"""Largest |difference| / largest |logit| from the oracle.

Looser than what a trial is held to: an expert that is chosen by a hair may be another one."""
_STEPS = 3


def check_fits(model: LoadedModel) -> None:
    """Raise UsageError for an architecture out of the table whose caches do not decode as told."""
    kind = model.config.model_type
    if kind in TABLE:
        return
    try:
        apart = _largest_error(model)
    except UsageError:
        raise
    except Exception as error:  # whatever an unknown architecture raises: it is refused by name
        raise UsageError(
            f"architecture {kind!r}: rows of unlike length cannot be decoded from its caches, so "
            f"it cannot be patched ({first_line(error)})"
        ) from error
    if not apart <= FITS_WITHIN[model.dtype_name]:
        raise UsageError(
            f"architecture {kind!r}: rows decoded from its caches do not have the logits of a "
            f"forward pass over the same tokens (apart by {apart:.1e} of the largest), so what "
            "is patched would not be what is measured"
        )


def _largest_error(model: LoadedModel) -> float:
    """How far rows of unlike length, and a spliced one, are from the oracle."""
    store, (short, base, source) = probe_store(model)
    layers, window = tuple(range(model.n_layers)), Window(range(5, 9), range(5, 9))
    plans = [
        RowPlan(short, len(store.tokens[short])),
        RowPlan(base, len(store.tokens[base])),
        RowPlan(base, len(store.tokens[base]), (Write(source, "kv", layers, window),)),
    ]
    slab = build(store, plans, None, headroom=_STEPS).slab
    decoded = decode(
        model,
        slab,
        [store.tokens[plan.prompt][-1] for plan in plans],
        torch.full((len(plans), _STEPS), 0.5, dtype=torch.float64),
        Sampling(_STEPS, 0.0),
        keep=range(len(plans)),
        past_stops=True,
    )
    paste = Paste(store.tokens[source], "kv", layers, tuple(range(model.n_kv_heads)), window)
    return max(
        relative_error(
            decoded.logits[row],
            oracle_logits(
                model, store.tokens[plan.prompt], decoded.ids[row], [paste] if plan.writes else []
            ),
        )
        for row, plan in enumerate(plans)
    )
