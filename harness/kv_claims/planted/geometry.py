"""What is true of the geometry of a planted model's values: participation ratios of windows.

The window is the last 16 of the T prompt tokens: what v_proj gives there, with what a patch puts
in its place, for a splice as the cache holds it once it is spliced. It is a function of the very
words, so it is computed for given pairs. A donor of noise is averaged over a few draws with a fixed
seed; the standard error of the mean over 300 pairs is about 0.01.
Does not: know the layout that appending makes, nor windows of generated tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from kv_claims.claims.outcome import WINDOW, Outcome
from kv_claims.claims.patch import Patch
from kv_claims.planted.catalog import N_LAYERS, Planted
from kv_claims.planted.circuit import Circuit, Floats, circuit_of
from kv_claims.planted.constants import constant_of
from kv_claims.planted.features import Cases, Prompts, of_pairs
from kv_claims.planted.pasting import OTHER_PROMPTS, check_noise, may_stand_in, row_of
from kv_claims.planted.simulate import Noise, Trace, run
from kv_claims.planted.unknown import UnknownTruth
from kv_claims.tasks.task import Task

_NOISE_DRAWS = 8
_NOISE_SEED = 0


def expected(
    planted: Planted, patches: Sequence[Patch], task: Task, donor: str, outcome: Outcome
) -> tuple[float, float, float]:
    """Mean outcome of base, source and patched arm over the task's pairs.

    Raises UnknownTruth for another window or variant than the published one, for an appended
    cache and for noise as `check_noise` does; UsageError for a window that does not fit a prompt.
    """
    if outcome.where != "prompt" or outcome.variant != "uncentred":
        raise UnknownTruth(f"outcome {outcome}: known are 'pr' and 'rv' over the prompt")
    if any(patch.mode == "append" for patch in patches):
        raise UnknownTruth(f"outcome {outcome}: its truth is not known where the cache is appended")
    if donor == "noise":
        check_noise(planted, patches)
    circuit, cases = _cases(planted, patches, task, donor)
    row = row_of(cases, patches, donor, constant_of(planted, circuit, task, patches, donor))
    draws = _NOISE_DRAWS if donor == "noise" else 1
    patched = [
        outcomes(
            row.run(circuit, Noise(_NOISE_SEED + draw) if donor == "noise" else None),
            row.prompts,
            outcome,
        )
        for draw in range(draws)
    ]
    base, source = (
        outcomes(run(circuit, prompts), prompts, outcome) for prompts in (cases.base, cases.source)
    )
    return float(base.mean()), float(source.mean()), float(np.mean(patched))


def outcomes(trace: Trace, prompts: Prompts, outcome: Outcome) -> Floats:
    """The outcome of each row, `[row]`."""
    ratios = []
    for layer in outcome.layers(N_LAYERS):
        for tokens in prompts.tokens.tolist():
            outcome.rows(tokens, 0)
        window = prompts.tokens[:, None] - WINDOW + np.arange(WINDOW)
        values = trace.values[layer]
        taken = np.broadcast_to(window, (len(values), *window.shape))
        ratios.append(_participation(np.take_along_axis(values, taken, axis=-1)))
    if outcome.name == "pr":
        return ratios[0]
    early, late = ratios
    return late / early


def _participation(windows: Floats) -> Floats:
    """(sum s^2)^2 / sum s^4 of each row's window, `[component, row, pos]` to `[row]`."""
    gram = np.einsum("crp,drp->rcd", windows, windows)
    ratio: Floats = np.trace(gram, axis1=1, axis2=2) ** 2 / np.square(gram).sum((1, 2))
    return ratio


def _cases(
    planted: Planted, patches: Sequence[Patch], task: Task, donor: str
) -> tuple[Circuit, Cases]:
    circuit = circuit_of(planted, with_content=True)
    needed = partial(may_stand_in, patches) if donor in OTHER_PROMPTS else None
    return circuit, of_pairs(planted, circuit, task, 1, needed)
